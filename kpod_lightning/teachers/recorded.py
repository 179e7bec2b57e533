"""Rationales that stand in a file already, whoever wrote them: graded and written like those of any teacher."""

import array
from concurrent.futures import Future
from decimal import Decimal
from pathlib import Path

import numpy as np

from kpod_lightning.distributed.preemption import asked_to_stop
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import JsonLines
from kpod_lightning.store.keys import Key, Positions, repeated
from kpod_lightning.teachers.requests import Reply
from kpod_lightning.teachers.writing import Work

SOME = 1000
"""Rows after which is waited until the disk has them, and is looked for signals."""


def occurrences(hashes: np.ndarray) -> np.ndarray:
    """[N] how many times each of [N] hashes stood there before."""
    order = np.argsort(hashes, kind="stable")
    is_new = np.diff(hashes[order], prepend=hashes[order][:1] - 1) != 0
    firsts = np.flatnonzero(is_new)
    found = np.empty(len(hashes), np.int64)
    found[order] = np.arange(len(hashes)) - firsts[np.cumsum(is_new) - 1]
    return found


class RecordedSamples:
    """Rows with ``problem_id`` and ``rationale``, by problem and sample.

    Without a field ``sample`` a row is its problem's next one, from 0. Held are a few numbers a row.

    Raises:
        InputError: a broken row; only some are numbered; a sample stands there twice.
    """

    def __init__(self, path: Path) -> None:
        self.rows = JsonLines(path)
        problems, samples = array.array("q"), array.array("q")
        for number, row in enumerate(self.rows, start=1):
            for name in ("problem_id", "rationale"):
                if not isinstance(row.get(name), str):
                    raise InputError(f"{path}:{number}: no field {name}; a rationale has problem_id and rationale")
            sample = row.get("sample", -1)
            if isinstance(sample, bool) or not isinstance(sample, int) or ("sample" in row and sample < 0):
                raise InputError(f"{path}:{number}: sample is a number from 0, not {sample!r}")
            if number > 1 and (sample < 0) != (samples[0] < 0):
                raise InputError(
                    f"{path}:{number}: some rows have a field sample and some have none: number all or none"
                )
            problems.append(hash(row["problem_id"]))
            samples.append(sample)
        is_numbered = bool(samples) and samples[0] >= 0
        self._samples = np.array(samples, np.int64) if is_numbered else occurrences(np.array(problems, np.int64))
        for earlier, later in repeated(np.fromiter(map(hash, self._keys()), np.int64)).tolist():
            if self._key(earlier) == self._key(later):
                name, sample = self._key(later)
                raise InputError(
                    f"{path}:{later + 1}: sample {sample} of problem {name} stands at line {earlier + 1} already; "
                    "number them, or leave the field out"
                )
        self._positions = Positions(self._keys())

    def _key(self, position: int) -> Key:
        return self.rows[position]["problem_id"], int(self._samples[position])

    def _keys(self) -> "map[Key]":
        return map(self._key, range(len(self.rows)))

    def reply(self, key: Key) -> Reply | None:
        """The sample, or None where there is no such one."""
        for position in self._positions.of(key):
            if self._key(position) == key:
                row = self.rows[position]
                model = row.get("model") or row.get("teacher")
                reason = row.get("finish_reason") or "stop"
                return Reply(text=row["rationale"], finish_reason=reason, model=None if model is None else str(model))
        return None


def write(work: Work) -> None:
    """Copy all that is wanted and there.

    Raises:
        InputError: the file; nothing of it fits the problems; the disk.
    """
    teacher = work.teacher
    if teacher.answer_call:
        raise InputError("teacher.answer_call=true asks for answers, and recorded: only reads: set it to false")
    path = Path((teacher.name or "").partition(":")[2])
    samples = RecordedSamples(path)
    number, done = 0, None
    while (request := work.take()) is not None:
        reply = samples.reply((request.problem.id, request.sample))
        if reply is None:
            work.give_up(request)
        else:
            done = work.add(request, reply, [], Decimal(0))
        number += 1
        if number % SOME == 0:
            _wait(done)
            work.stopped = work.stopped or asked_to_stop()
    _wait(done)
    if work.stopped is None and work.given_up and not work.file.num_rows:
        raise InputError(
            f"{path}: none of its {len(samples.rows)} rationales is for one of the problems; the file belongs to "
            "another dataset or split"
        )


def _wait(done: "Future[None] | None") -> None:
    """Lines go to disk in their order: the last one stands for all before it."""
    if done is not None:
        done.result()

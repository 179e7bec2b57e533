"""Rationales from a file, whoever wrote them: graded and written to a file of samples like those of any teacher."""

import array
from collections.abc import Iterator
from concurrent.futures import Future
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from kpod_lightning.distributed.preemption import asked_to_stop
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import JsonLines
from kpod_lightning.store.keys import Key
from kpod_lightning.store.records import id_of, optional_text, text_of, whole_number
from kpod_lightning.store.row_index import RowIndex
from kpod_lightning.teachers.replies import ending_of
from kpod_lightning.teachers.requests import Reply
from kpod_lightning.teachers.writing import Work

NUM_BETWEEN_FLUSHES = 1000
"""Rows after which the loop waits for the disk and looks for signals."""


class RecordedSamples:
    """Rows with ``problem_id`` and ``rationale``, by problem and sample. Memory holds an index and one problem's rows.

    Rows without a field ``sample`` are numbered from 0 within their problem, in the order of the file.

    Raises:
        InputError: a damaged row; some rows are numbered and some are not; a problem has a sample twice.
    """

    def __init__(self, path: Path) -> None:
        self.rows = JsonLines(path)
        samples = array.array("q")
        self._index = RowIndex(self.rows, self._checked(samples))
        self._is_numbered = bool(samples) and samples[0] >= 0
        self._problem: str | None = None
        self._found: dict[int, dict[str, Any]] = {}
        if self._is_numbered and (pair := self._index.repeated(np.array(samples, np.int64))) is not None:
            earlier, later = pair
            raise InputError(
                f"{path}:{later + 1}: sample {samples[later]} of problem {self.rows[later]['problem_id']} stands at "
                f"line {earlier + 1} already; number them, or leave the field out"
            )

    def _checked(self, samples: "array.array[int]") -> Iterator[str]:
        """The problem id of each row; ``samples`` gets the index of its sample, or -1 where rows have none."""
        for number, row in enumerate(self.rows, start=1):
            place = f"{self.rows.path}:{number}"
            name = id_of(row, "problem_id", place)
            if row.get("rationale") != "":  # which a teacher writes of a request that is refused
                text_of(row, "rationale", place)
            for said in ("model", "teacher", "finish_reason"):
                optional_text(row, said, place)
            sample = whole_number(row, "sample", place) if "sample" in row else -1
            if samples and (sample < 0) != (samples[0] < 0):
                raise InputError(f"{place}: some rows have a field sample and some have none: number all or none")
            samples.append(sample)
            yield name

    def reply(self, key: Key) -> Reply | None:
        """The sample, or None if the file does not have it. Asking problem after problem reads each row once."""
        name, sample = key
        if name != self._problem:
            rows = [row for _, row in self._index.group(name)]
            self._problem = name
            self._found = {
                whole_number(row, "sample", "") if self._is_numbered else i: row for i, row in enumerate(rows)
            }
        row = self._found.get(sample)
        if row is None:
            return None
        model = row.get("model") or row.get("teacher") or None
        said = row.get("finish_reason")
        reason = "stop" if said is None or said == "" else ending_of(said)
        return Reply(text=row["rationale"], finish_reason=reason, model=model)


def write(work: Work) -> None:
    """Copy every wanted sample that the file has.

    Raises:
        InputError: the file is damaged or fits none of the problems; the disk is full.
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
        if number % NUM_BETWEEN_FLUSHES == 0:
            _wait(done)
            work.stopped = work.stopped or asked_to_stop()
    _wait(done)
    if work.stopped is None and work.given_up and not work.file.num_rows:
        raise InputError(
            f"{path}: none of its {len(samples.rows)} rationales is for one of the problems; the file belongs to "
            "another dataset or split"
        )


def _wait(done: "Future[None] | None") -> None:
    """Wait until a row is on disk. Rows go there in order, so all earlier ones are there too."""
    if done is not None:
        done.result()

"""A file of samples that survives any kill: it keeps every paid sample and knows which requests were under way.

``FILE.jsonl`` has a row for each sample. Beside it, ``FILE.ledger.jsonl`` has a line for each request that is sent and
one for each that failed, and ``FILE.lock`` keeps a second process away. A line is on disk (fsync) before anything
depends on it: the ledger's before the request is sent, the row before its sample counts as done.
"""

import array
import json
import os
import queue
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import numpy as np

from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import cut_torn_line, read_rows
from kpod_lightning.store.keys import Positions
from kpod_lightning.store.locks import one_writer
from kpod_lightning.store.records import text_of
from kpod_lightning.teachers.estimates import Seen, probably_billed
from kpod_lightning.teachers.samples.fields import attempt_of, check_counted, dollars_of


class Appender:
    """Appends lines to files in its own thread. Lines that arrive during an fsync are written together after it."""

    def __init__(self, *paths: Path) -> None:
        self._files = {path: path.open("ab", buffering=0) for path in paths}
        self._lines: queue.SimpleQueue[tuple[Path, bytes, Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="appender", daemon=True)
        self._thread.start()

    def append(self, path: Path, row: dict[str, Any]) -> "Future[None]":
        """A future that is done when the line is on disk, or holds the InputError that says why it is not."""
        done: Future[None] = Future()
        line = json.dumps(row, ensure_ascii=False, default=str) + "\n"
        # Half a surrogate pair, which JSON can carry and UTF-8 cannot, becomes a question mark.
        self._lines.put((path, line.encode("utf-8", "replace"), done))
        return done

    def _write(self) -> None:
        while (first := self._lines.get()) is not None:
            group, last = [first], False
            with suppress(queue.Empty):
                while not last:
                    item = self._lines.get_nowait()
                    if item is None:
                        last = True
                    else:
                        group.append(item)
            try:
                for path in {path for path, _, _ in group}:
                    _write_whole(self._files[path], b"".join(line for where, line, _ in group if where == path))
                    os.fsync(self._files[path].fileno())
            except OSError as error:
                place = ", ".join(str(path) for path in self._files)
                told = InputError(f"{place}: {error.strerror}; free space or permissions there, then repeat")
                for _, _, done in group:
                    done.set_exception(told)
                # The file may now end inside a line. A line appended to that would be damaged too, so refuse all.
                if not last:
                    self._refuse(told)
                return
            for _, _, done in group:
                done.set_result(None)
            if last:
                return

    def _refuse(self, error: InputError) -> None:
        while (item := self._lines.get()) is not None:
            item[2].set_exception(error)

    def close(self) -> None:
        self._lines.put(None)
        self._thread.join()
        for file in self._files.values():
            file.close()


def _write_whole(file: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file.fileno(), view) :]


def check_name(path: Path) -> None:
    """Check the name of a file of samples.

    Raises:
        InputError: it does not end in .jsonl.
    """
    if path.suffix != ".jsonl":
        raise InputError(f"--out {path}: a file of samples ends in .jsonl")


def refuse_others(path: Path) -> None:
    """Refuse to write to a file that is no file of samples.

    Raises:
        InputError: the first row is no row of a file of samples. The file stays as it is.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        first = file.readline()
    try:
        ours = {"key", "attempts", "cost"} <= json.loads(first).keys() if first.endswith(b"\n") else None
    except (ValueError, AttributeError):
        ours = False
    if ours is None:  # no newline: a kill may have torn the only row, so compare how rows begin
        ours = first.startswith(b'{"problem_id": '[: len(first)])
    if not ours:
        raise InputError(f"{path}:1: no row of a file of samples; take another --out")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the one writer of a file of samples, by whatever name: ``FILE.lock`` beside the file that links lead to.

    Raises:
        InputError: another process writes it, or nothing can be written there.
    """
    file = path.resolve()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; permissions there, then repeat") from error
    with one_writer(path, file.with_suffix(".lock")):
        yield


@dataclass
class Money:
    """US dollars. ``held``: the most that requests under way, or under way when a process was killed, may cost."""

    limit: Decimal | None = None
    spent: Decimal = Decimal(0)
    held: Decimal = Decimal(0)

    def reserve(self, at_most: Decimal) -> bool:
        """Set aside the most that a request may cost. False if the budget has no room for it."""
        if self.limit is not None and self.spent + self.held + at_most > self.limit:
            return False
        self.held += at_most
        return True

    def settle(self, at_most: Decimal, cost: Decimal | None) -> None:
        """Replace what was set aside by the cost of the request; None (unknown) leaves it set aside."""
        if cost is not None:
            self.held -= at_most
            self.spent += cost


@dataclass
class Ledger:
    """Cost of requests that produced no row, in US dollars.

    ``open``: upper bound for the cost of attempts with unknown outcome, by name. ``num_wasted``: see ``Seen``.
    """

    in_vain: Decimal = Decimal(0)
    open: dict[str, Decimal] = field(default_factory=dict)
    num_wasted: int = 0

    num_lost: int = 0
    """Attempts of rows that the ledger lacks. It had a line of each before the request was sent: lines are lost."""

    @classmethod
    def read(cls, path: Path, successes: "array.array[int]") -> "Ledger":
        """Add up the ledger's lines of all attempts that produced no row.

        Args:
            path: a file that is not there has no lines.
            successes: names of the attempts that rows were made from, as numbers.

        Raises:
            InputError: a line is damaged or no line of a ledger.
        """
        found = cls()
        names = array.array("Q", np.unique(np.array(successes, np.uint64)).tobytes())
        is_there = bytearray(len(names))
        for number, line in enumerate(read_rows(path) if path.is_file() else (), start=1):
            where = f"{path}:{number}"
            try:
                attempt = attempt_of(line.get("attempt"), where)
                place = bisect_left(names, attempt)
                if place < len(names) and names[place] == attempt:
                    is_there[place] = True
                    continue
                name = line["attempt"]
                if "at_most" in line:
                    found.open[name] = dollars_of(line, "at_most", where)
                    continue
                if "cost" not in line:
                    raise InputError(f"{where}: neither at_most nor cost")
                cost = None if line["cost"] is None else dollars_of(line, "cost", where)
                found.num_wasted += probably_billed(cost, text_of(line, "why", where))
                if cost is not None and found.open.pop(name, None) is not None:
                    found.in_vain += cost
            except InputError as error:
                why = str(error).removeprefix(f"{where}: ")
                raise InputError(
                    f"{where}: no line of a ledger ({why}); without it nobody knows what was spent: restore it"
                ) from error
        found.num_lost = is_there.count(0)
        return found

    @classmethod
    def of(cls, path: Path, successes: "array.array[int]", way_out: str) -> "Ledger":
        """The ledger beside a file of samples, which has all requests that the file's rows were made from.

        Args:
            successes: as for ``read``.
            way_out: what to do where it cannot be restored, for the message.

        Raises:
            InputError: as ``read``; or it lacks requests.
        """
        ledger = path.with_suffix(".ledger.jsonl")
        found = cls.read(ledger, successes)
        if found.num_lost:
            raise InputError(
                f"{ledger}: lacks {found.num_lost} requests that rows of {path} were made from, so nobody knows what "
                f"was spent: restore it, or {way_out}"
            )
        return found


class SampleFile:
    """An open file of samples: its rows, its costs, and how rows are added.

    Args:
        path: ends in .jsonl; an existing file is continued.
        limit: the budget in US dollars, including what the file has cost so far.
        alike: whether a row was asked as the coming ones will be, so that its cost and correctness predict theirs.

    Raises:
        InputError: another process is writing the file, a line is damaged, or the folder cannot be written.
    """

    def __init__(
        self,
        path: Path,
        limit: Decimal | None = None,
        alike: Callable[[dict[str, Any]], bool] = lambda row: True,
    ) -> None:
        check_name(path)
        self.path, self.ledger, self._alike = path, path.with_suffix(".ledger.jsonl"), alike
        self.money = Money(limit)
        self.num_rows = 0
        self.seen = Seen()
        self._lock = locked(path)
        self._new_files: list[Path] = []
        try:
            self._lock.__enter__()
            try:
                refuse_others(self.path)
                self._new_files = [file for file in (self.path, self.ledger) if not file.exists()]
                for file in (self.path, self.ledger):
                    cut_torn_line(file)
                self._read()
                for file in (self.path, self.ledger):
                    file.touch()
                self._appender = Appender(self.path, self.ledger)
            except BaseException:
                self._remove_if_empty()
                self._lock.__exit__(None, None, None)
                raise
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; free space or permissions there, then repeat") from error

    def _read(self) -> None:
        """Read rows and ledger. Memory holds three numbers and a bit a row, not the texts."""
        rights, successes = bytearray(), array.array("Q")

        def keys() -> Iterator[str]:
            for number, row in enumerate(read_rows(self.path) if self.path.exists() else (), start=1):
                check_counted(row, f"{self.path}:{number}")
                rights.append(row["correct"])
                self.money.spent += Decimal(str(row["cost"]))
                try:
                    self._count(row)
                except KeyError as error:
                    raise InputError(
                        f"{self.path}:{number}: no row of a file of samples (no {error}); take another --out"
                    ) from error
                successes.extend(int(attempt, 16) for attempt in row["attempts"])
                yield row["key"]

        self._positions = Positions(keys())
        self._rights, self._new = rights, dict[str, bool]()
        found = Ledger.of(self.path, successes, "take another --out")
        self.open = found.open
        """Upper bound for the cost of each attempt of an earlier process with unknown outcome, by name."""
        self.money.spent += found.in_vain
        self.money.held = sum(found.open.values(), Decimal(0))
        # Failed requests carry no settings, so count those of rows alike in proportion to the rows.
        self.seen.num_wasted = found.num_wasted * (self.seen.num_rows / self.num_rows if self.num_rows else 1.0)

    def _count(self, row: dict[str, Any]) -> None:
        self.num_rows += 1
        if self._alike(row):
            self.seen.count(row)

    def right_of(self, key: str) -> bool | None:
        """Whether the sample is right, or None if it has no row. By a 64-bit hash of the key."""
        if key in self._new:
            return self._new[key]
        position = self._positions.of(key)
        return bool(self._rights[position[0]]) if position else None

    def had(self, keys: Iterable[str]) -> np.ndarray:
        """[N] whether each sample had a row when the file was opened. By a 64-bit hash of the key."""
        return self._positions.first(np.fromiter(map(hash, keys), np.int64)) >= 0

    def begin(self, attempt: str, key: str, at_most: Decimal) -> "Future[None]":
        """Note a request in the ledger. It may be sent once the future is done."""
        return self._appender.append(self.ledger, {"attempt": attempt, "key": key, "at_most": at_most})

    def fail(self, attempt: str, cost: Decimal | None, why: str) -> "Future[None]":
        """Note that a request failed, and its cost in US dollars; None: it may have been billed."""
        self.seen.num_wasted += probably_billed(cost, why)
        return self._appender.append(self.ledger, {"attempt": attempt, "cost": cost, "why": why})

    def add(self, row: dict[str, Any]) -> "Future[None]":
        """Append a sample's row. The sample counts once the future is done."""
        self._new[row["key"]] = bool(row["correct"])
        self._count(row)
        return self._appender.append(self.path, row)

    def close(self) -> None:
        self._appender.close()
        self._lock.__exit__(None, None, None)

    def __enter__(self) -> "SampleFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._appender.close()
        if kind is not None:
            self._remove_if_empty()
        self._lock.__exit__(None, None, None)

    def _remove_if_empty(self) -> None:
        """Remove the files that were made for an order of which nothing came, not even a request."""
        if all(file.stat().st_size == 0 for file in self._new_files if file.exists()):
            for file in self._new_files:
                file.unlink(missing_ok=True)

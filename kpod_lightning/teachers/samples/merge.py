"""Merges files of samples that several processes wrote, and their ledgers."""

import array
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import writing
from kpod_lightning.store.json_lines import JsonLines, save_jsonl
from kpod_lightning.store.keys import repeated
from kpod_lightning.teachers.samples.fields import check_counted
from kpod_lightning.teachers.samples.file import Ledger, check_name, locked
from kpod_lightning.teachers.samples.journal import Journal


@dataclass(frozen=True)
class Merged:
    """A merged file: its rows, their cost in US dollars, and the number of repeated rows that were left out."""

    num_rows: int
    num_duplicates: int
    cost: Decimal


class Lines:
    """The rows of several files as one sequence; a missing file has none."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.files = [JsonLines(path, may_be_torn=True) for path in paths if path.is_file()]
        self.ends = np.cumsum([0, *map(len, self.files)])

    def _place(self, position: int) -> tuple[JsonLines, int]:
        which = int(np.searchsorted(self.ends, position, "right")) - 1
        return self.files[which], position - int(self.ends[which])

    def where(self, position: int) -> str:
        file, i = self._place(position)
        return f"{file.path}:{i + 1}"

    def __getitem__(self, position: int) -> dict[str, Any]:
        file, i = self._place(position)
        return file[i]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(int(self.ends[-1])))

    def hashes(self, name_of: Callable[[dict[str, Any]], str]) -> np.ndarray:
        """[N] hash of each row's name.

        Raises:
            InputError: a row is damaged or lacks a field that its name needs.
        """
        found = np.empty(int(self.ends[-1]), np.int64)
        for i, row in enumerate(self):
            try:
                found[i] = hash(name_of(row))
            except InputError as error:
                raise InputError(f"{self.where(i)}{error}") from error
            except KeyError as error:
                raise InputError(
                    f"{self.where(i)}: no field {error.args[0]}: no file of samples, or its ledger"
                ) from error
        return found


def _key(row: dict[str, Any]) -> str:
    for name in ("correct", "cost", "usage", "attempts"):  # a KeyError here: an order could not continue the file
        _ = row[name]
    check_counted(row, "")
    return str(row["key"])


def _content(line: dict[str, Any]) -> str:
    _ = line["attempt"]
    return json.dumps(line, sort_keys=True)


def merge_samples(out: Path, parts: Sequence[Path]) -> Merged:
    """Merge files of samples and the ledgers beside them; the parts stay as they are.

    A row, or a line of a ledger, that several parts have is written once. Memory holds 8 bytes a row.

    Args:
        out: the merged file. If it exists, it is the first part, so merging again changes nothing; it is replaced only
            when the merged file is complete.

    Raises:
        InputError: there is no part; a part is missing, named twice or ``out`` itself; a process is writing to one, or
            a batch of one is under way; a row is damaged; a ledger is damaged or lacks requests of its rows; two
            different rows have one key.
    """
    if not parts:
        raise InputError(f"--out {out}: no parts to merge; name the files that the shards wrote")
    resolved = [path.resolve() for path in parts]
    for path, real in zip(parts, resolved, strict=True):
        if not path.is_file() or path.suffix != ".jsonl":
            raise InputError(f"{path}: no such file of samples, which ends in .jsonl")
        if real == out.resolve() or resolved.count(real) > 1:
            raise InputError(f"{path}: named twice; leave it out once (what --out holds already is kept)")
    check_name(out)
    with ExitStack() as held:
        for path in (out, *parts):
            held.enter_context(locked(path))
        files = [out, *parts]
        for file in files:
            refuse_under_way(file)
        for file in files:
            check_ledger(file)
        return _merge(out, Lines(files), Lines([file.with_suffix(".ledger.jsonl") for file in files]))


def refuse_under_way(path: Path) -> None:
    """Refuse a part of which a batch is under way: its rows would go into the part, not into the merged file.

    Raises:
        InputError: one is.
    """
    if under_way := len(Journal(path.with_suffix(".batches.jsonl")).open):
        raise InputError(f"{path}: batches are under way ({under_way}); repeat the command that made them, then merge")


def check_ledger(path: Path) -> None:
    """Check the ledger beside a part: without its lines the merged file would have cost less than was spent.

    Raises:
        InputError: a row or a line is damaged, or the ledger lacks requests that rows were made from.
    """
    successes = array.array("Q")
    rows = Lines([path])
    rows.hashes(_key)
    for row in rows:
        successes.extend(int(attempt, 16) for attempt in row["attempts"])
    Ledger.of(path, successes, "take the file that the order wrote (merge first, then filter)")


def _merge(out: Path, rows: Lines, ledger: Lines) -> Merged:
    again = _again(rows, _key)
    ledger_again = _again(ledger, _content)
    cost, num_rows = Decimal(0), 0

    def kept() -> Iterator[dict[str, Any]]:
        nonlocal cost, num_rows
        for i, row in enumerate(rows):
            if not again[i]:
                cost += Decimal(str(row["cost"]))
                num_rows += 1
                yield row

    # Write both files before either replaces an older one. The ledger replaces its own first: after a kill in between,
    # money counts as possibly spent, never as not spent.
    with writing(out) as aside, writing(out.with_suffix(".ledger.jsonl")) as ledger_aside:
        save_jsonl(aside, kept())
        save_jsonl(ledger_aside, (line for i, line in enumerate(ledger) if not ledger_again[i]))
    return Merged(num_rows, int(again.sum()), cost)


def _again(rows: Lines, name_of: Callable[[dict[str, Any]], str]) -> np.ndarray:
    """[N] whether a row repeats an earlier one.

    Raises:
        InputError: an earlier row has the same name and other content.
    """
    found = np.zeros(int(rows.ends[-1]), bool)
    for earlier, later in repeated(rows.hashes(name_of)).tolist():
        one, other = rows[earlier], rows[later]
        if one == other:
            found[later] = True
        elif name_of(one) == name_of(other):
            raise InputError(
                f"{rows.where(later)}: key {name_of(other)} stands at {rows.where(earlier)} with other content; "
                "these are no parts of one order: merge them one without the other"
            )
    return found

"""Problem: question, answer and split; and tables of problems that are read from JSON Lines files."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, overload

import numpy as np
from rich.progress import track

from kpod_lightning.data.tables import Table
from kpod_lightning.distributed.ranks import is_first
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.keys import repeated

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Choice:
    label: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One question with its gold answer; ``kind`` is number, choice or yes_no."""

    id: str
    question: str
    answer: str
    kind: str
    split: str
    choices: tuple[Choice, ...] = ()
    rationale: str | None = None

    @property
    def text(self) -> str:
        """What the student is shown: the question and, where there are some, its choices."""
        if not self.choices:
            return self.question
        return f"{self.question} Answer Choices: " + " ".join(f"({c.label}) {c.text}" for c in self.choices)


def question_hash(problem: Problem) -> str:
    """16 hex digits that name a question: whitespace normalised, lower case, with the texts of its choices."""
    text = " ".join([problem.question, *(choice.text for choice in problem.choices)])
    return hashlib.sha256(" ".join(text.lower().split()).encode()).hexdigest()[:16]


def _problem(row: Mapping[str, Any], where: Callable[[], str], kind: str, split: str) -> Problem:
    for name in ("id", "question", "answer"):
        value = row.get(name)
        if value is None or not str(value).strip():
            raise InputError(f"{where()}: problem {row.get('id', '?')} has no {name}; complete it or take the line out")
    try:
        choices = tuple(Choice(label=c["label"], text=c["text"]) for c in row.get("choices") or ())
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{where()}: problem {row['id']}: choices are a list of objects with label and text"
        ) from error
    return Problem(
        id=str(row["id"]),
        question=str(row["question"]),
        answer=str(row["answer"]).strip(),
        kind=kind,
        split=split,
        choices=choices,
        rationale=row.get("rationale") or None,
    )


class ProblemTable(Sequence[Problem]):
    """Problems of a file, parsed on access: a train set may be larger than the memory.

    Args:
        rows: of the file.
        fields: our field name -> the file's, where they differ.
        positions: which of the rows; all of them by default.
    """

    def __init__(
        self, rows: Table, fields: Mapping[str, str], kind: str, split: str, positions: range | None = None
    ) -> None:
        self.rows, self.fields, self.kind, self.split = rows, fields, kind, split
        self.positions = range(len(rows)) if positions is None else positions

    def __len__(self) -> int:
        return len(self.positions)

    def where(self, position: int) -> str:
        return self.rows.place(self.positions[position])

    @overload
    def __getitem__(self, position: int) -> Problem: ...
    @overload
    def __getitem__(self, position: slice) -> "ProblemTable": ...
    def __getitem__(self, position: int | slice) -> "Problem | ProblemTable":
        """
        Raises:
            InputError: a field is missing, or has no value.
        """
        if isinstance(position, slice):
            return ProblemTable(self.rows, self.fields, self.kind, self.split, self.positions[position])
        row = self.rows[self.positions[position]]
        missing = [theirs for theirs in self.fields.values() if theirs not in row]
        if missing:
            raise InputError(
                f"{self.where(position)}: no field {missing[0]}, which data.fields names; there are {', '.join(row)}"
            )
        ours = {**row, **{name: row[theirs] for name, theirs in self.fields.items()}} if self.fields else row
        return _problem(ours, lambda: self.where(position), self.kind, self.split)

    def __iter__(self) -> Iterator[Problem]:
        return (self[i] for i in range(len(self)))


def contents_of(problems: Sequence[Problem]) -> Any:
    """Contents of the problems for a fingerprint: hash and range of their file, or the problems themselves."""
    if isinstance(problems, ProblemTable):
        return problems.rows.sha256, [problems.positions.start, problems.positions.stop]
    return [asdict(problem) for problem in problems]


def check(tables: Sequence[ProblemTable]) -> None:
    """Parse every problem once and compare ids.

    Raises:
        InputError: a problem cannot be used, or has the id of an earlier one.
    """
    ends = np.cumsum([0, *(len(table) for table in tables)])
    quiet = ends[-1] < 200_000 or not is_first()
    every = (problem for table in tables for problem in table)
    seen = track(every, "reading problems", total=float(ends[-1]), transient=True, disable=bool(quiet))
    hashes = np.fromiter((hash(problem.id) for problem in seen), np.int64, count=int(ends[-1]))

    def place(position: int) -> tuple[ProblemTable, int]:
        which = int(np.searchsorted(ends, position, "right")) - 1
        return tables[which], position - int(ends[which])

    for earlier, later in repeated(hashes):
        (table, i), (first, j) = place(later), place(earlier)
        if table[i].id == first[j].id:
            raise InputError(
                f"{table.where(i)}: id {table[i].id} stands at {first.where(j)} already; ids are unique, and with "
                "data.dataset=own data.fields.id=row makes them so"
            )

"""Problem: question, answer and split; and tables of problems that are read from JSON Lines files."""

import array
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, overload

import numpy as np

from kpod_lightning.data.answers import gold_answer
from kpod_lightning.data.tables import Table
from kpod_lightning.distributed.console import console
from kpod_lightning.distributed.progress import shown as progress
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.keys import repeated
from kpod_lightning.store.records import id_of, optional_text, text_of

SPLITS = ("train", "validation", "test")

READING = "gold-1"
"""Name of how records are read: another one makes other problems of the same file."""

MOST_LEFT_OUT = 0.05
"""Largest share of a split that is left out for want of a gold answer; where there are more, the kind is wrong."""

NUM_REASONS = 3
"""Reasons that are said, the most frequent first."""


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
    def labels(self) -> tuple[str, ...]:
        """Labels of the choices, in their order."""
        return tuple(choice.label for choice in self.choices)

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


class GoldError(InputError):
    """A problem whose gold answer its kind cannot mean: nothing could be graded by it."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}; mend the answer, take the record out or set data.kind")
        self.place, self.reason = place, reason


def problem_of(row: Mapping[str, Any], place: str, kind: str, split: str) -> Problem:
    """A problem from a record with our fields. Its answer is in the spelling that is taught and compared.

    Args:
        place: where the record stands, for messages.

    Raises:
        InputError: a field is missing or of the wrong type, or a label of the choices stands twice.
        GoldError: the kind cannot mean the answer.
    """
    name, question = id_of(row, "id", place), text_of(row, "question", place)
    if "answer" not in row:
        raise InputError(f"{place}: no field answer; there are {', '.join(map(str, row))}")
    rationale = optional_text(row, "rationale", place)
    choices = _choices(row.get("choices"), place)
    answer = row["answer"]
    if answer is None or (isinstance(answer, str) and not answer.strip()):
        raise GoldError(place, "there is no answer")
    try:
        gold = gold_answer(answer, kind, {choice.label: choice.text for choice in choices} or None)
    except ValueError as error:
        raise GoldError(place, str(error)) from error
    return Problem(
        id=name, question=question, answer=gold, kind=kind, split=split, choices=choices, rationale=rationale
    )


def _choices(value: Any, place: str) -> tuple[Choice, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InputError(f"{place}: choices are a list of objects with label and text, not {str(value)[:60]}")
    found = tuple(Choice(label=_part(item, "label", place), text=_part(item, "text", place)) for item in value)
    labels = [choice.label.casefold() for choice in found]
    if len(set(labels)) < len(labels):
        raise InputError(f"{place}: two choices have one label; the labels are {', '.join(c.label for c in found)}")
    return found


def _part(choice: Mapping[str, Any], name: str, place: str) -> str:
    """Label or text of a choice; a number is written out."""
    value = choice.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return text_of(choice, name, f"{place}, a choice").strip()


class ProblemTable(Sequence[Problem]):
    """Problems of a file, parsed on access: a train set may be larger than the memory.

    Args:
        rows: of the file.
        fields: our field name -> the file's, where they differ.
        positions: which of the rows; all of them by default.
    """

    def __init__(
        self,
        rows: Table,
        fields: Mapping[str, str],
        kind: str,
        split: str,
        positions: range | np.ndarray | None = None,
    ) -> None:
        self.rows, self.fields, self.kind, self.split = rows, fields, kind, split
        self.positions = range(len(rows)) if positions is None else positions

    def __len__(self) -> int:
        return len(self.positions)

    def where(self, position: int) -> str:
        return self.rows.place(int(self.positions[position]))

    @overload
    def __getitem__(self, position: int) -> Problem: ...
    @overload
    def __getitem__(self, position: slice) -> "ProblemTable": ...
    def __getitem__(self, position: int | slice) -> "Problem | ProblemTable":
        """
        Raises:
            InputError: a field is missing, or has a value of the wrong type.
            GoldError: the gold answer cannot be meant by the kind.
        """
        if isinstance(position, slice):
            return ProblemTable(self.rows, self.fields, self.kind, self.split, self.positions[position])
        row = self.rows[int(self.positions[position])]
        place = self.where(position)
        missing = [theirs for theirs in self.fields.values() if theirs not in row]
        if missing:
            raise InputError(
                f"{place}: no field {missing[0]}, which data.fields names; there are {', '.join(map(str, row))}"
            )
        ours = {**row, **{name: row[theirs] for name, theirs in self.fields.items()}} if self.fields else row
        return problem_of(ours, place, self.kind, self.split)

    def __iter__(self) -> Iterator[Problem]:
        return (self[i] for i in range(len(self)))


def contents_of(problems: Sequence[Problem]) -> Any:
    """Contents of the problems for a fingerprint: their file and how it is read, or the problems themselves."""
    if not isinstance(problems, ProblemTable):
        return [READING, [asdict(problem) for problem in problems]]
    at = problems.positions
    chosen = [at.start, at.stop, at.step] if isinstance(at, range) else hashlib.sha256(at.tobytes()).hexdigest()
    return [READING, problems.rows.sha256, problems.kind, sorted(problems.fields.items()), chosen]


def check(tables: Sequence[ProblemTable], *, strict: bool = False) -> None:
    """Parse every problem once, compare ids, and leave out of the tables what has no gold answer to grade by.

    What is left out is said once, with the first place of each reason.

    Args:
        strict: leave none out, for splits of a published size.

    Raises:
        InputError: a problem cannot be used, or has the id of an earlier one; more than ``MOST_LEFT_OUT`` of a table,
            or all of it, would be left out.
    """
    total = sum(map(len, tables))
    every = ((which, i) for which, table in enumerate(tables) for i in range(len(table)))
    hashes = array.array("q")
    refused: list[dict[int, GoldError]] = [{} for _ in tables]
    for which, i in progress(every, "reading problems", total, few=200_000):
        try:
            hashes.append(hash(tables[which][i].id))
        except GoldError as error:
            if strict:
                raise
            refused[which][i] = error
    for table, errors in zip(tables, refused, strict=True):
        if errors:
            leave_out(table, errors)
    ends = np.cumsum([0, *(len(table) for table in tables)])

    def place(position: int) -> tuple[ProblemTable, int]:
        which = int(np.searchsorted(ends, position, "right")) - 1
        return tables[which], position - int(ends[which])

    for earlier, later in repeated(np.array(hashes, np.int64)):
        (table, i), (first, j) = place(later), place(earlier)
        if table[i].id == first[j].id:
            raise InputError(
                f"{table.where(i)}: id {table[i].id} stands at {first.where(j)} already; ids are unique, and with "
                "data.dataset=own data.fields.id=row makes them so"
            )


_ANSWER = re.compile(r"^answer is .*?, (?=not|neither|which|the)|\([^)]*\)")
"""What differs between two reasons of one kind: the answer, and what was found in it."""


def leave_out(table: ProblemTable, errors: Mapping[int, GoldError]) -> None:
    """Take problems that cannot be graded out of a table, and say so once, with the first place of each reason.

    Args:
        errors: by position in the table; there is one at least.

    Raises:
        InputError: there are more than ``MOST_LEFT_OUT`` of the table.
    """
    reasons: dict[str, list[GoldError]] = {}
    for error in errors.values():
        reasons.setdefault(_ANSWER.sub("", error.reason), []).append(error)
    most = sorted(reasons.values(), key=len, reverse=True)[:NUM_REASONS]
    said = "; ".join(f"{len(alike)} as at {alike[0].place}: {alike[0].reason}" for alike in most)
    what = f"{len(errors)} of {len(table)} {table.split} problems have no gold answer of kind {table.kind} ({said})"
    if len(errors) > MOST_LEFT_OUT * len(table):
        first = next(iter(errors.values()))
        raise InputError(f"{first.place}: {first.reason}; {what}: mend the answers or set data.kind")
    table.positions = np.delete(np.asarray(table.positions), list(errors))
    console.print(f"{what}: they are left out", soft_wrap=True)

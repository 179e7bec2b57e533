"""Rationale: the teacher's text, its steps and its answer; which rationales are kept; the versioned template."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any, overload

import numpy as np

from kpod_lightning.data.answers import answers_equal, extract_answer
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.steps import split_steps
from kpod_lightning.data.template import without_answer_tail
from kpod_lightning.store.json_lines import JsonLines

SELECTION = "select-4"
"""Name of the filter and of the step rules together: another one makes another selection of the same rationales."""


@dataclass(frozen=True, kw_only=True)
class Rationale:
    """One teacher text for one problem; its key everywhere is ``(problem.id, sample)``."""

    problem: Problem
    text: str
    sample: int = 0
    teacher: str = "human"
    licence: str | None = None
    """Licence or terms of the teacher's text, where the file states them."""
    steps: tuple[tuple[int, int], ...] = ()
    predicted: str | None = None
    """The answer that it reaches: before it is selected the file's; then None where only right ones were kept, or where
    none can be read."""
    correct: bool | None = None
    """The file's verdict, where it has one."""
    wrong: "Rationale | None" = None
    """A rationale of the same problem that reaches another answer, which its problem then has; see ``data.wrong``."""

    @property
    def key(self) -> tuple[str, int]:
        return self.problem.id, self.sample


@dataclass
class Counts:
    """What a selection kept, and what it left out."""

    num_problems: int = 0
    num_read: int = 0
    num_wrong: int = 0
    num_unread: int = 0
    """Rationales left out as they state no answer that can be read: they may be right."""
    num_duplicate: int = 0
    num_missing: int = 0
    """Problems without any rationale."""
    num_without: int = 0
    """Problems without a right rationale."""
    num_kept: int = 0
    origins: dict[str, int] = field(default_factory=dict)
    """Of those kept, by teacher and licence or terms."""

    def named(self) -> dict[str, int]:
        """The numbers by the names that the report gives them."""
        return {
            "problems": self.num_problems,
            "rationales read": self.num_read,
            "of them wrong": self.num_wrong,
            "of them without an answer": self.num_unread,
            "of them duplicates": self.num_duplicate,
            "problems without any": self.num_missing,
            "problems without a right one": self.num_without,
            "kept": self.num_kept,
        }


MOST_LOST = 0.3
"""Share of the problems without a kept rationale above which there is a warning."""


MOST_TOO_LONG = 0.05
"""Share of the kept rationales that are left out as too long above which there is a warning."""

TOO_LONG = "longer than student.max_length"
"""Name that the report gives to the number of those rationales."""


def sentence_on_losses(counts: Mapping[str, int]) -> str | None:
    """A warning where many problems have lost every rationale, with the setting that the most frequent cause names.

    Args:
        counts: by the names that the report gives them; one that is missing is 0.
    """
    total, lost = counts.get("problems", 0), counts.get("problems without a right one", 0)
    if lost <= MOST_LOST * total:
        return None
    missing, unread, wrong = (
        counts.get(name, 0) for name in ("problems without any", "of them without an answer", "of them wrong")
    )
    causes = {
        f"{missing} problems have no rationale at all: take another rationales.teacher": missing,
        f"{unread} rationales state no answer that can be read: set data.kind to what the answers are, "
        "rationales.verdict=recorded to take the file's own verdict, or rationales.correct_only=false to keep "
        "them": unread,
        f"{wrong} rationales reach another answer than the gold one: take another rationales.teacher, or "
        "rationales.correct_only=false to keep them": wrong,
    }
    return (
        f"warning: {lost} of {total} problems are left without a rationale; "
        f"{max(causes, key=lambda cause: causes[cause])}"
    )


def sentence_on_lengths(counts: Mapping[str, int]) -> str | None:
    """A warning where many rationales are left out as too long.

    Args:
        counts: by the names that the report gives them; one that is missing is 0.
    """
    too_long, kept = counts.get(TOO_LONG, 0), counts.get("kept", 0)
    if too_long <= MOST_TOO_LONG * kept:
        return None
    return f"warning: {too_long} of {kept} rationales are left out as they are {TOO_LONG}; raise it"


def predicted_answer(rationale: Rationale, verdict: str) -> str | None:
    """The answer that a rationale reaches; None: it states none that can be read.

    Args:
        verdict: text reads it off the rationale | recorded takes the file's.
    """
    if verdict == "recorded":
        return rationale.predicted
    problem = rationale.problem
    return extract_answer(rationale.text, kind=problem.kind, variant="flexible", labels=problem.labels)


def judge(rationale: Rationale, verdict: str) -> bool | None:
    """Whether a rationale reaches the gold answer; None: it states no answer that can be read.

    Args:
        verdict: text | recorded, see ``rationales.verdict``.
    """
    problem, predicted = rationale.problem, predicted_answer(rationale, verdict)
    if verdict == "recorded":
        if rationale.correct or (rationale.correct is False and predicted is not None):
            return rationale.correct
        if rationale.correct is False:
            return None
    return None if predicted is None else answers_equal(predicted, problem.answer, problem.kind)


Group = tuple[Problem, Sequence[Rationale]]
"""A problem and its candidates."""


def select_rationales(
    groups: Iterable[Group],
    counts: Counts,
    *,
    correct_only: bool = True,
    num_per_problem: int = 1,
    step_rule: str = "sentence",
    seed: int = 0,
    verdict: str = "text",
) -> Iterator[Rationale]:
    """Filter by answer, drop duplicates, keep K a problem, cut the answer tail, split the steps.

    With ``num_per_problem = 1`` one of the remaining ones is chosen by ``(seed, problem id)``, so that the choice for
    one problem does not depend on the others.

    Args:
        counts: are counted up.
        verdict: what says whether a rationale is right, see ``judge``.
    """
    for problem, candidates in groups:
        counts.num_problems += 1
        counts.num_missing += not candidates
        kept: dict[str, Rationale] = {}
        for candidate in candidates:
            counts.num_read += 1
            right = judge(candidate, verdict) if correct_only else True
            if not right:
                counts.num_wrong += right is False
                counts.num_unread += right is None
                continue
            text = without_answer_tail(candidate.text)
            words = " ".join(text.split())
            if not words:
                counts.num_unread += 1
            elif words in kept:
                counts.num_duplicate += 1
            else:
                predicted = None if correct_only else predicted_answer(candidate, verdict)
                steps = tuple(split_steps(text, step_rule))
                kept[words] = replace(candidate, text=text, steps=steps, predicted=predicted)
        chosen = list(kept.values())
        if not chosen:
            counts.num_without += 1
        elif num_per_problem == 1:
            chosen = [random.Random(f"{seed}/{problem.id}").choice(chosen)]
        counts.num_kept += len(chosen[:num_per_problem])
        for rationale in chosen[:num_per_problem]:
            origin = rationale.teacher + (f", {rationale.licence}" if rationale.licence else "")
            counts.origins[origin] = counts.origins.get(origin, 0) + 1
        yield from chosen[:num_per_problem]


def as_row(rationale: Rationale) -> dict[str, Any]:
    """Its line in ``rationales.jsonl``."""
    return {
        "problem_id": rationale.problem.id,
        "sample": rationale.sample,
        "teacher": rationale.teacher,
        "rationale": rationale.text,
        "steps": rationale.steps,
        **({} if rationale.predicted is None else {"predicted_answer": rationale.predicted}),
        **({} if rationale.licence is None else {"licence": rationale.licence}),
    }


def wrong_of(rationale: Rationale, row: dict[str, Any]) -> Rationale:
    """The right rationale with the wrong one of its row beside it, where the row has one."""
    if row["rationale"] is None:
        return rationale
    return replace(
        rationale,
        wrong=Rationale(
            problem=replace(rationale.problem, answer=row["answer"]),
            text=row["rationale"],
            sample=row["wrong_sample"],
            teacher=row["teacher"],
            steps=tuple((start, end) for start, end in row["steps"]),
        ),
    )


class RationaleTable:
    """The kept rationales of a run, read when they are asked for.

    Args:
        rows: of ``rationales.jsonl``.
        problems: that they are for, in the same order.
        wrong: rows of ``wrong.jsonl``, one for each; None where no wrong rationales stand beside them.
    """

    def __init__(self, rows: JsonLines, problems: Iterable[Problem], wrong: JsonLines | None = None) -> None:
        self.rows, self.problems, self.wrong = rows, problems, wrong

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Rationale]:
        problems = iter(self.problems)
        problem = next(problems)
        beside = repeat(None) if self.wrong is None else iter(self.wrong)
        for row, wrong in zip(self.rows, beside, strict=self.wrong is not None):
            while problem.id != row["problem_id"]:
                problem = next(problems)
            rationale = Rationale(
                problem=problem,
                text=row["rationale"],
                sample=row["sample"],
                teacher=row["teacher"],
                licence=row.get("licence"),
                predicted=row.get("predicted_answer"),
                steps=tuple((start, end) for start, end in row["steps"]),
            )
            yield rationale if wrong is None else wrong_of(rationale, wrong)


class Texts(Sequence[str]):
    """Some of the rationales' texts, each read when it is asked for.

    Args:
        positions: rows of ``rationales.jsonl``.
    """

    def __init__(self, rows: JsonLines, positions: np.ndarray) -> None:
        self.rows, self.positions = rows, positions

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> list[str]: ...
    def __getitem__(self, position: int | slice) -> str | list[str]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        return str(self.rows[int(self.positions[position])]["rationale"])

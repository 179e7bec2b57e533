"""Grading of generated texts: one record per problem, and accuracy with its interval."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kpod_lightning.data.answers import READINGS, answers_equal, extract_answer
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.template import TEMPLATE
from kpod_lightning.evaluation.generate import Output
from kpod_lightning.evaluation.statistics import wilson_interval
from kpod_lightning.store.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Share of problems answered right, in [0, 1], with its 95 % Wilson interval."""

    num_right: int
    num_problems: int
    num_unparsable: int
    num_at_limit: int

    @property
    def value(self) -> float:
        return self.num_right / self.num_problems

    @property
    def num_wrong(self) -> int:
        """Problems with an answer that is not the gold one; those without an answer are counted apart."""
        return self.num_problems - self.num_right - self.num_unparsable

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.num_right, self.num_problems)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{100 * self.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}] "
            f"({self.num_right} of {self.num_problems}; {self.num_unparsable} without an answer, "
            f"{100 * self.num_unparsable / self.num_problems:.1f} %)"
        )


def majority(answers: Sequence[str | None]) -> int:
    """Position of the first sample that gives the most frequent answer; samples without one have no vote."""
    votes = Counter(answer for answer in answers if answer is not None)
    return list(answers).index(votes.most_common(1)[0][0]) if votes else 0


def record_of(problem: Problem, samples: Sequence[Output], *, variant: str = "flexible") -> dict[str, Any]:
    """The record of one problem; several samples are decided by majority (maj@k)."""
    answers = [
        extract_answer(sample.text, kind=problem.kind, variant=variant, labels=problem.labels) for sample in samples
    ]
    chosen = majority(answers)
    record: dict[str, Any] = {
        "problem_id": problem.id,
        "question": problem.text,
        "answer": problem.answer,
        "text": samples[chosen].text,
        "predicted": answers[chosen],
        "right": answers_equal(answers[chosen], problem.answer, problem.kind),
        "num_tokens": samples[chosen].num_tokens,
        "at_limit": samples[chosen].at_limit,
        "template": TEMPLATE,
        "extractor": READINGS.get(variant, variant),
    }
    if len(samples) > 1:
        record["samples"] = [sample.text for sample in samples]
    return record


def grade(
    problems: Sequence[Problem], outputs: dict[str, list[Output]], *, variant: str = "flexible"
) -> list[dict[str, Any]]:
    """One record a problem, in the order of the problems.

    Raises:
        InputError: a problem occurs twice or has no output: an accuracy over other problems would look right.
    """
    if len({problem.id for problem in problems}) != len(problems) or len(problems) != len(outputs):
        raise InputError(f"{len(problems)} problems but {len(outputs)} distinct outputs: every problem counts once")
    return [record_of(problem, outputs[problem.id], variant=variant) for problem in problems]


def accuracy(records: Sequence[dict[str, Any]]) -> Accuracy:
    """Accuracy over records; an unparsable output counts as wrong."""
    return Accuracy(
        num_right=sum(record["right"] for record in records),
        num_problems=len(records),
        num_unparsable=sum(record["predicted"] is None for record in records),
        num_at_limit=sum(record["at_limit"] for record in records),
    )

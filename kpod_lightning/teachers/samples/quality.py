"""Judges the rows of a file of samples: refused, truncated, contradictory, wrong, near-duplicate or kept."""

import array
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import track

from kpod_lightning.data.answers import answers_equal, extract_answer
from kpod_lightning.data.diversity import gram_set, jaccard
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.statements import PHRASE
from kpod_lightning.data.thoughts import thought_and_rest
from kpod_lightning.distributed.ranks import is_first
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import JsonLines
from kpod_lightning.store.row_index import Row, RowIndex
from kpod_lightning.teachers.samples.fields import attempt_of, check_judged
from kpod_lightning.teachers.writing import EXTRACTOR, REFUSED

VERDICTS = ("refused", "truncated", "contradictory", "wrong", "near-duplicate", "kept")
"""In order of precedence."""

THRESHOLD = 0.8
"""Jaccard similarity from which a rationale is a near-duplicate."""

_FIELDS = (
    *("problem_id", "rationale", "sample", "teacher", "key", "finish_reason", "prompt", "model", "licence"),
    *("cost", "latency", "usage", "attempts"),
)

_DENIED = re.compile(r"\s*not\b", re.IGNORECASE)


@dataclass(frozen=True)
class Verdict:
    """The verdict on one row.

    ``name``: one of ``VERDICTS``. ``right``: the text is whole and ends with the gold answer, even if it is
    contradictory or a near-duplicate. ``like``: position of the earlier row that a near-duplicate resembles.
    """

    name: str
    predicted: str | None
    right: bool
    like: int | None = None


def stated_answers(text: str, kind: str, labels: Sequence[str] | None = None) -> list[str]:
    """The answer behind each answer phrase of a text ("the answer is ...").

    Phrases between <think> tags do not count, nor do denials ("the answer is not 5").
    """
    said = thought_and_rest(text)[1]
    phrases = list(PHRASE.finditer(said))
    ends = [*(phrase.start() for phrase in phrases[1:]), len(said)]
    found = [
        extract_answer(said[phrase.start() : end], kind, "strict", labels)
        for phrase, end in zip(phrases, ends, strict=False)
        if not _DENIED.match(said, phrase.end())
    ]
    return [answer for answer in found if answer is not None]


def is_contradictory(row: Row, kind: str, labels: Sequence[str] | None = None) -> bool:
    """Whether the rationale states different answers, or another one than the reply to the separate answer call."""
    answers = stated_answers(row["rationale"], kind, labels)
    if row.get("answer_call") is not None:
        apart = extract_answer(f"The answer is {row['answer_call']}", kind, EXTRACTOR, labels)
        answers += [] if apart is None else [apart]
    return any(not answers_equal(answer, answers[-1], kind) for answer in answers[:-1])


def verdicts(rows: Sequence[Row], problem: Problem, threshold: float = THRESHOLD) -> list[Verdict]:
    """The verdict on each sample of one problem; the first of these that applies:

    - refused: by a content filter, because the prompt is too long, or because there is no text;
    - truncated: the reply reached its limit of tokens, in the thinking or after it, or has no natural end;
    - contradictory: the text states different answers, or another one than the reply to the separate answer call;
    - wrong: the answer that the extractor ``flexible`` reads is not the gold answer;
    - near-duplicate: Jaccard similarity of word 3-grams with an earlier kept sample is at least ``threshold``; texts
      of fewer than 3 words are compared as a whole;
    - kept.

    Args:
        rows: in the order that decides which of two near-duplicates is kept.
    """
    found: list[Verdict] = []
    kept: list[tuple[int, set[tuple[str, ...]]]] = []
    for position, row in enumerate(rows):
        text, reason, like = row["rationale"], row["finish_reason"], None
        predicted = extract_answer(text, problem.kind, EXTRACTOR, problem.labels)
        right = answers_equal(predicted, problem.answer, problem.kind)
        if reason in REFUSED or (not text.strip() and reason != "length"):
            name, right = "refused", False
        elif reason != "stop":
            name, right = "truncated", False
        elif is_contradictory(row, problem.kind, problem.labels):
            name = "contradictory"
        elif not right:
            name = "wrong"
        else:
            grams = gram_set(text)
            like = next((earlier for earlier, others in kept if jaccard(grams, others) >= threshold), None)
            name = "kept" if like is None else "near-duplicate"
            if like is None:
                kept.append((position, grams))
        found.append(Verdict(name, predicted, right, like))
    return found


class SampleRows:
    """The rows of a file of samples, by problem; memory holds an index of them and the names of their attempts.

    Args:
        path: of the file.
        problems: that it may be for.

    Raises:
        InputError: the file is missing or has no row; a row is damaged, is no sample, or is for another problem.
    """

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        self.path, self.problems = path, problems
        self.rows = JsonLines(path, may_be_torn=True)
        self.num_rows = len(self.rows)
        if not self.num_rows:
            raise InputError(f"{path}: no sample is in it yet; order some with kpod rationales ... --out {path}")
        self.attempts = array.array("Q")
        """Names of the attempts that rows were made from, as numbers."""
        self._index = RowIndex(self.rows, self._checked())
        if (i := self._index.unknown(problem.id for problem in problems)) is not None:
            raise InputError(
                f"{path}:{i + 1}: sample of unknown problem {self.rows[i]['problem_id']}; "
                "the file belongs to another dataset or split"
            )

    def _checked(self) -> Iterator[str]:
        """The problem id of each row; ``attempts`` gets the row's attempts."""
        for number, row in enumerate(self._watched(self.rows, "reading samples"), start=1):
            lacking = next((name for name in _FIELDS if name not in row), None)
            place = f"{self.path}:{number}"
            if lacking:
                raise InputError(f"{place}: no field {lacking}: no row of a file of samples")
            check_judged(row, place)
            self.attempts.extend(attempt_of(attempt, place) for attempt in row["attempts"])
            yield row["problem_id"]

    def _watched(self, some: Any, what: str) -> Any:
        return track(some, what, transient=True, disable=self.num_rows < 200_000 or not is_first())

    def judged(self, threshold: float = THRESHOLD) -> Iterator[tuple[Problem, list[Row], list[Verdict]]]:
        """Each problem with its samples, sorted by their index, then key, and so independent of who wrote first.

        Args:
            threshold: of near-duplicates.
        """
        for problem in self._watched(self.problems, "judging samples"):
            found = [row for _, row in self._index.group(problem.id)]
            found.sort(key=lambda row: (row["sample"], row["key"]))
            yield problem, found, verdicts(found, problem, threshold)

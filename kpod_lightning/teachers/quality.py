"""What a file of samples is worth: a verdict on every row, figures of the whole, and the rows that are kept."""

import array
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from kpod_lightning.answers import PHRASE, answers_equal, extract_answer
from kpod_lightning.errors import InputError
from kpod_lightning.files import writing
from kpod_lightning.json_lines import JsonLines
from kpod_lightning.keys import Positions
from kpod_lightning.problems import Problem
from kpod_lightning.ranks import is_first
from kpod_lightning.rationales import split_steps
from kpod_lightning.statistics import wilson_interval
from kpod_lightning.teachers.sample_file import Ledger
from kpod_lightning.teachers.writing import EXTRACTOR, thought_and_rest

VERDICTS = ("refused", "truncated", "contradictory", "wrong", "near-duplicate", "kept")
"""In order of precedence."""
THRESHOLD = 0.8
"""Jaccard similarity from which a rationale is a near-duplicate."""
NUM_DISTINCT = 10_000
"""Right rationales that distinct-n is of: the first ones, in the order of the problems."""

_FIELDS = (
    *("problem_id", "rationale", "sample", "teacher", "key", "finish_reason", "prompt", "model", "licence"),
    *("cost", "latency", "usage", "attempts"),
)
_WRITTEN = ("teacher", "licence", "key", "model", "prompt", "finish_reason")
_DENIED = re.compile(r"\s*not\b", re.IGNORECASE)
_NUM_BINS = 40

Row = dict[str, Any]


def num_whole(rows: JsonLines) -> int:
    """Rows of a file but for a last one that a kill has left without its end, which counts as not written.

    Raises:
        InputError: the last row is broken in another way.
    """
    try:
        _ = rows[-1:]
    except InputError:
        with rows.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) == b"\n":
                raise
        return len(rows) - 1
    return len(rows)


@dataclass(frozen=True)
class Verdict:
    """What becomes of a row.

    ``name``: one of ``VERDICTS``. ``right``: its text is whole and ends with the gold answer, whatever else is wrong
    with it. ``like``: position of the earlier row that a near-duplicate resembles.
    """

    name: str
    predicted: str | None
    right: bool
    like: int | None = None


def stated_answers(text: str, kind: str) -> list[str]:
    """The answers behind each answer phrase of a text.

    What is tried between <think> tags is no statement, nor is what an answer is said not to be.
    """
    said = thought_and_rest(text)[1]
    phrases = list(PHRASE.finditer(said))
    ends = [*(phrase.start() for phrase in phrases[1:]), len(said)]
    found = [
        extract_answer(said[phrase.start() : end], kind, "strict")
        for phrase, end in zip(phrases, ends, strict=False)
        if not _DENIED.match(said, phrase.end())
    ]
    return [answer for answer in found if answer is not None]


def is_contradictory(row: Row, kind: str) -> bool:
    """Whether the rationale states different answers, or another one than the teacher gave when asked for it apart."""
    answers = stated_answers(row["rationale"], kind)
    if row.get("answer_call") is not None:
        apart = extract_answer(f"The answer is {row['answer_call']}", kind, EXTRACTOR)
        answers += [] if apart is None else [apart]
    return any(not answers_equal(answer, answers[-1], kind) for answer in answers[:-1])


def n_grams(text: str, n: int) -> list[tuple[str, ...]]:
    """Of the words of a text in small letters, words being what stands between blanks; none where it has fewer."""
    words = text.lower().split()
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def _grams(text: str) -> set[tuple[str, ...]]:
    return set(n_grams(text, 3)) or {tuple(text.lower().split())}


def jaccard(one: set[Any], other: set[Any]) -> float:
    """Share of what two sets have in common of all that they have; neither is empty."""
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def verdicts(rows: Sequence[Row], problem: Problem, threshold: float = THRESHOLD) -> list[Verdict]:
    """What becomes of each sample of one problem; the first that applies:

    - refused: by a content filter, for the length of the prompt, or there is no text;
    - truncated: the reply ran into its limit, if only within what was thought;
    - contradictory: the text states different answers, or another one than the answer that was asked for apart;
    - wrong: the answer, read again as ``flexible``, is not the gold one;
    - near-duplicate: Jaccard similarity of word 3-grams with an earlier kept one is at least ``threshold``; texts of
      fewer than 3 words are compared as a whole;
    - kept.

    Args:
        rows: in the order that decides which of two near-duplicates is kept.
    """
    found: list[Verdict] = []
    kept: list[tuple[int, set[tuple[str, ...]]]] = []
    for position, row in enumerate(rows):
        text, reason, like = row["rationale"], row["finish_reason"], None
        predicted = extract_answer(text, problem.kind, EXTRACTOR)
        right = answers_equal(predicted, problem.answer, problem.kind)
        if reason in ("content_filter", "prompt_too_long") or (not text.strip() and reason != "length"):
            name, right = "refused", False
        elif reason == "length":
            name, right = "truncated", False
        elif is_contradictory(row, problem.kind):
            name = "contradictory"
        elif not right:
            name = "wrong"
        else:
            grams = _grams(text)
            like = next((earlier for earlier, others in kept if jaccard(grams, others) >= threshold), None)
            name = "kept" if like is None else "near-duplicate"
            if like is None:
                kept.append((position, grams))
        found.append(Verdict(name, predicted, right, like))
    return found


class SampleRows:
    """The rows of a file of samples, by problem; read when they are asked for.

    Held are a few numbers a row.

    Args:
        path: of the file.
        problems: that it may be for.

    Raises:
        InputError: no such file, no row in it, a broken one, one that is no sample, one of another problem.
    """

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        self.path, self.problems, self.rows = path, problems, JsonLines(path)
        self.num_rows = num_whole(self.rows)
        if not self.num_rows:
            raise InputError(f"{path}: no sample is in it yet; order some with kpod rationales ... --out {path}")
        names, attempts = array.array("q"), array.array("Q")
        for i in self._watched(range(self.num_rows), "reading samples"):
            row = self.rows[i]
            lacking = next((name for name in _FIELDS if name not in row), None)
            if lacking or not isinstance(row["rationale"], str):
                raise InputError(f"{path}:{i + 1}: no field {lacking or 'rationale'}: no row of a file of samples")
            names.append(hash(row["problem_id"]))
            attempts.extend(int(attempt, 16) for attempt in row["attempts"])
        self.attempts = attempts
        of_problem = Positions(problem.id for problem in problems).first(np.array(names, np.int64))
        for i in np.flatnonzero(of_problem < 0).tolist():
            self._refuse(i)
        self._order = np.argsort(of_problem, kind="stable")
        self._starts = np.searchsorted(of_problem[self._order], np.arange(len(problems) + 1))

    def _watched(self, some: Any, what: str) -> Any:
        return track(some, what, transient=True, disable=self.num_rows < 200_000 or not is_first())

    def _refuse(self, i: int) -> None:
        raise InputError(
            f"{self.path}:{i + 1}: sample of unknown problem {self.rows[i]['problem_id']}; "
            "the file belongs to another dataset or split"
        )

    def judged(self, threshold: float = THRESHOLD) -> Iterator[tuple[Problem, list[Row], list[Verdict]]]:
        """Each problem with its samples, in the order of their index (then key), whatever order they came in.

        Args:
            threshold: of near-duplicates.
        """
        watched = self._watched(range(len(self.problems)), "judging samples")
        for position, problem in zip(watched, self.problems, strict=True):
            found = []
            for i in self._order[self._starts[position] : self._starts[position + 1]].tolist():
                found.append(self.rows[i])
                if found[-1]["problem_id"] != problem.id:  # another name with the same hash
                    self._refuse(i)
            found.sort(key=lambda row: (row["sample"], row["key"]))
            yield problem, found, verdicts(found, problem, threshold)


@dataclass(frozen=True)
class Distribution:
    """Of whole numbers: mean, 5, 50 and 95 % quantiles, and a histogram [B] with its edges [B + 1]."""

    mean: float
    quantiles: tuple[float, float, float]
    counts: tuple[int, ...]
    edges: tuple[int, ...]

    @classmethod
    def of(cls, values: np.ndarray) -> "Distribution | None":
        """None where there are no values."""
        if not len(values):
            return None
        low, high = int(values.min()), int(values.max())
        width = -(-(high - low + 1) // _NUM_BINS)
        edges = np.arange(low, high + width + 1, width)
        counts, _ = np.histogram(values, edges)
        q5, q50, q95 = np.quantile(values, (0.05, 0.5, 0.95)).tolist()
        return cls(float(values.mean()), (q5, q50, q95), tuple(counts.tolist()), tuple(edges.tolist()))


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Figures of a file of samples. Money in US dollars, latency in seconds."""

    num_rows: int
    num_asked: int
    """Problems that there are; ``num_problems`` of them have a row, ``num_covered`` a right one."""
    num_problems: int
    num_covered: int
    verdicts: dict[str, int]
    """Rows by verdict, all of ``VERDICTS``."""
    num_right: int
    """Rows whose text is whole and ends with the gold answer; contradictory ones and near-duplicates may be among
    them."""
    tokens: Distribution | None
    """Of the reply, of rows that were not refused."""
    steps: Distribution | None
    """Sentences of the rationale, of rows that were not refused and have a text."""
    distinct: dict[int, float]
    """distinct-n for n = 1, 2, 3: different n-grams of words over all of them, in the first ``NUM_DISTINCT`` right
    rationales, counted by a hash of 64 bits, so that memory is bounded. It falls with the number of rationales:
    compare files of like size."""
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal
    """Of the rows."""
    cost_in_vain: Decimal
    """Of requests that came to nothing, by the ledger."""
    cost_unknown: Decimal
    """At most, of requests of whose end nothing is known, or whether they were billed, by the ledger."""
    latency: float
    finish_reasons: dict[str, int]
    teachers: dict[str, int]
    models: dict[str, int]
    prompts: dict[str, int]
    licences: dict[str, int]
    num_written: int | None = None
    """Rows that ``filter_samples`` wrote: those kept, or at most so many of a problem."""

    @property
    def num_kept(self) -> int:
        return self.verdicts["kept"]

    @property
    def right_share(self) -> float:
        """Of all rows: what was refused or truncated is wrong."""
        return self.num_right / self.num_rows

    @property
    def right_interval(self) -> tuple[float, float]:
        """Wilson's, 95 %."""
        return wilson_interval(self.num_right, self.num_rows)

    @property
    def coverage(self) -> float:
        """Share of all problems with a right sample."""
        return self.num_covered / self.num_asked

    @property
    def cost_total(self) -> Decimal:
        """Of rows and of what came to nothing, as far as it is known."""
        return self.cost + self.cost_in_vain

    @property
    def cost_per_right(self) -> Decimal | None:
        """Share of ``cost_total``."""
        return self.cost_total / self.num_right if self.num_right else None

    @property
    def cost_per_kept(self) -> Decimal | None:
        """Share of ``cost_total``."""
        return self.cost_total / self.num_kept if self.num_kept else None


@dataclass
class Tally:
    """Counts samples, a problem at a time."""

    num_problems: int = 0
    num_covered: int = 0
    num_right: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: Decimal = Decimal(0)
    latency: float = 0.0
    names: dict[str, Counter[str]] = field(
        default_factory=lambda: {
            name: Counter() for name in ("verdict", "finish_reason", "teacher", "model", "prompt", "licence")
        }
    )
    _tokens: "array.array[int]" = field(default_factory=lambda: array.array("q"))
    _steps: "array.array[int]" = field(default_factory=lambda: array.array("q"))
    _grams: dict[int, "array.array[int]"] = field(default_factory=lambda: {n: array.array("q") for n in (1, 2, 3)})

    def add(self, rows: Sequence[Row], judged: Sequence[Verdict]) -> None:
        """The samples of one problem with their verdicts."""
        self.num_problems += bool(rows)
        self.num_covered += any(verdict.right for verdict in judged)
        for row, verdict in zip(rows, judged, strict=True):
            usage, text = row["usage"], row["rationale"]
            self.prompt_tokens += usage["prompt_tokens"]
            self.completion_tokens += usage["completion_tokens"]
            self.cost += Decimal(str(row["cost"]))
            self.latency += row["latency"]
            for name, counter in self.names.items():
                counter[verdict.name if name == "verdict" else str(row[name] or "not stated")] += 1
            if verdict.name != "refused":
                self._tokens.append(usage["completion_tokens"])
                if text.strip():
                    self._steps.append(len(split_steps(text)))
            if verdict.right and self.num_right < NUM_DISTINCT:
                for n, hashes in self._grams.items():
                    hashes.extend(map(hash, n_grams(text, n)))
            self.num_right += verdict.right

    def statistics(self, samples: SampleRows, num_written: int | None = None) -> Statistics:
        """Of the whole file, all of whose problems were added."""
        counters = {f"{name}s": dict(counter.most_common()) for name, counter in self.names.items()}
        counters["verdicts"] = {name: self.names["verdict"][name] for name in VERDICTS}
        path = samples.path.with_suffix(".ledger.jsonl")
        ledger = Ledger.read(path, samples.attempts) if path.is_file() else Ledger()
        return Statistics(
            num_rows=samples.num_rows,
            num_asked=len(samples.problems),
            num_problems=self.num_problems,
            num_covered=self.num_covered,
            num_right=self.num_right,
            tokens=Distribution.of(np.array(self._tokens, np.int64)),
            steps=Distribution.of(np.array(self._steps, np.int64)),
            distinct={n: len(np.unique(hashes)) / len(hashes) for n, hashes in self._grams.items() if len(hashes)},
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cost=self.cost,
            cost_in_vain=ledger.in_vain,
            cost_unknown=sum(ledger.open.values(), Decimal(0)),
            latency=self.latency / samples.num_rows,
            num_written=num_written,
            **counters,
        )


def filter_samples(
    path: Path,
    problems: Sequence[Problem],
    out: Path,
    *,
    threshold: float = THRESHOLD,
    most: int | None = None,
) -> Statistics:
    """Write the kept samples of a file, in the order of the problems, numbered 0, 1, ... within each.

    The file is one of recorded rationales: rationales.source=recorded, rationales.teacher=OUT.

    Args:
        out: is replaced when all is written.
        threshold: similarity from which a sample is a near-duplicate, in (0, 1].
        most: kept samples of a problem that are written, the first ones; all by default.

    Raises:
        InputError: as ``SampleRows``; and ``out`` is a file that was paid for.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"--near {threshold:g}: a share in (0, 1]; 1 leaves out only what has the same 3-grams")
    if most is not None and most < 1:
        raise InputError(f"--most {most}: at least 1 rationale of a problem")
    if out.resolve() == path.resolve() or out.with_suffix(".ledger.jsonl").exists():
        raise InputError(f"{out} holds samples that were paid for, which filtering would replace: take another --out")
    samples, tally, num_written = SampleRows(path, problems), Tally(), 0
    with writing(out) as aside, aside.open("w", encoding="utf-8") as file:
        for problem, rows, judged in samples.judged(threshold):
            tally.add(rows, judged)
            pairs = [pair for pair in zip(rows, judged, strict=True) if pair[1].name == "kept"][:most]
            for number, (row, verdict) in enumerate(pairs):
                written = {
                    "problem_id": problem.id,
                    "sample": number,
                    "rationale": row["rationale"],
                    "predicted_answer": verdict.predicted,
                    **{name: row[name] for name in _WRITTEN},
                }
                file.write(json.dumps(written, ensure_ascii=False) + "\n")
            num_written += len(pairs)
        found = tally.statistics(samples, num_written)
    return found

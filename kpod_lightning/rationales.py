"""Rationale: the teacher's text, its steps and its answer; which rationales are kept; the versioned template."""

import array
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import numpy as np
from rich.progress import track

from kpod_lightning.answers import answers_equal, extract_answer
from kpod_lightning.errors import InputError
from kpod_lightning.json_lines import JsonLines
from kpod_lightning.keys import Positions
from kpod_lightning.problems import Problem
from kpod_lightning.ranks import is_first

TEMPLATE = "kpod-1"
"""Name of prompt, answer phrase and stop rule together; it stands in every record."""
SELECTION = "select-1"
"""Name of the filter and of the step rules together: another one makes another selection of the same rationales."""

# fmt: off
ABBREVIATIONS = frozenset((
    "mr", "mrs", "ms", "dr", "prof", "st", "mt", "jr", "sr", "no", "vs", "etc", "approx", "dept", "est", "fig", "inc",
    "ltd", "co", "e.g", "i.e", "a.m", "p.m", "u.s", "u.k", "oz", "lb", "lbs", "ft", "in", "hr", "hrs", "min", "sec",
    "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec",
))
# These end sentences too: they are abbreviations only where a number or a small letter follows.
ABBREVIATIONS_BEFORE_NUMBER = frozenset((
    "no", "oz", "lb", "lbs", "ft", "in", "hr", "hrs", "min", "sec", "est", "co", "inc", "ltd", "etc", "a.m", "p.m",
    "u.s", "u.k",
))
# fmt: on

_SENTENCE_MARK = re.compile(r"[.!?]+[\"')\]”’*]*(?=\s|$)")
_LIST_MARKER = re.compile(r"\s*(?:step\s+)?(?:\d{1,3}|[A-Za-z])[.)]$", re.IGNORECASE)
_ANSWER_TAIL = re.compile(
    r"(?:^|(?<=[\s.!?]))(?:(?:therefore|so|thus|hence)\s*,?\s*)?(?:the\s+)?(?:final\s+)?answer\s+is\b[^\n]*$",
    re.IGNORECASE,
)


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

    @property
    def key(self) -> tuple[str, int]:
        return self.problem.id, self.sample


@dataclass
class Counts:
    """What a selection kept, and what it left out."""

    num_problems: int = 0
    num_read: int = 0
    num_wrong: int = 0
    num_duplicate: int = 0
    num_without: int = 0
    """Problems without a right rationale."""
    num_kept: int = 0
    origins: dict[str, int] = field(default_factory=dict)
    """Of those kept, by teacher and licence or terms."""


def prompt_text(problem: Problem, method: str = "plain") -> str:
    """What the student is shown: ``Q: <x> A: Let's think step by step.`` (section 3.1 of the paper)."""
    question = " ".join(problem.text.split())
    return f"Q: {question} A:" + ("" if method == "answers_only" else " Let's think step by step.")


def answer_phrase(problem: Problem) -> str:
    """``Therefore, the answer is <y>``; weight 1 at every stage."""
    return f"Therefore, the answer is {problem.answer}"


def _ends_sentence(text: str, start: int, mark: re.Match[str]) -> bool:
    """Whether a mark of punctuation ends the sentence that began at ``start``."""
    if not mark.group().startswith(".") or mark.group().startswith(".."):
        return True
    before = text[start : mark.start()]
    word = re.split(r"[\s(\"']", before)[-1]
    if re.fullmatch(r"[A-Z]", word):  # an initial, as in J. Smith; "option A." ends a text or line
        return not re.match(r"\s+[A-Z]", text[mark.end() :]) or bool(re.search(r"(?:is|option|choice)\s+\S$", before))
    if _LIST_MARKER.fullmatch(before + "."):
        return False
    if word.lower() in ABBREVIATIONS_BEFORE_NUMBER:
        return not re.match(r"\s+(?:[\d$€£]|[a-z])", text[mark.end() :])
    return word.lower() not in ABBREVIATIONS


def split_steps(rationale: str, rule: str = "sentence") -> list[tuple[int, int]]:
    """Cut a rationale into steps.

    Args:
        rationale: the teacher's text.
        rule: ``sentence`` ends a step at . ! or ? before a blank or the end, but not inside a number, an
            abbreviation or an initial nor after a list marker, and at a newline; ``newline``; ``paragraph`` (an
            empty line); anything else is a regular expression that matches the end of a step.

    Returns:
        Character spans that tile the text: joined they give back exactly the teacher's text. Blanks belong to the
        step before them. An empty text has no step, and a text of blanks has one.

    Raises:
        InputError: the rule is no regular expression.
    """
    if not rationale:
        return []
    if rule == "sentence":
        ends, start = [], 0
        marks = sorted(
            [(m.end(), m) for m in _SENTENCE_MARK.finditer(rationale)]
            + [(m.end(), None) for m in re.finditer(r"\n", rationale)],
            key=lambda pair: pair[0],
        )
        for end, mark in marks:
            if mark is None or _ends_sentence(rationale, start, mark):
                ends.append(end)
                start = end
    else:
        pattern = {"newline": r"\n", "paragraph": r"\n[^\S\n]*\n"}.get(rule, rule)
        try:
            ends = [match.end() for match in re.finditer(pattern, rationale)]
        except re.error as error:
            raise InputError(f"rationales.step_rule={rule} is no regular expression: {error}") from error
    starts = [0]
    for end in ends:
        while end < len(rationale) and rationale[end].isspace():
            end += 1
        # A piece without a letter, a digit or a sign is no step of its own: it joins the step before or after it.
        if end < len(rationale) and rationale[starts[-1] : end].strip() and end > starts[-1]:
            starts.append(end)
    return list(zip(starts, [*starts[1:], len(rationale)], strict=True))


def without_answer_tail(text: str) -> str:
    """The text without its last sentence where that already states the answer in a phrase of the template's kind.

    The phrase is appended once by the template; a teacher that wrote it would teach it twice. A text which is
    nothing but that sentence stays as it is, or no rationale would be left.
    """
    stripped = text.rstrip()
    shorter = _ANSWER_TAIL.sub("", stripped).rstrip()
    return shorter if shorter else stripped


Group = tuple[Problem, Sequence[Rationale]]
"""A problem and its candidates."""


def written_along(problems: Iterable[Problem], teacher: str) -> Iterator[Group]:
    """The one rationale that each problem brings with it, or none."""
    for problem in problems:
        text = problem.rationale
        yield problem, [Rationale(problem=problem, text=text, teacher=teacher)] if text else []


class RecordedRationales:
    """A teacher's rationales from a JSONL file with ``problem_id`` and ``rationale`` (``sample``, ``teacher``).

    Held are four numbers a rationale.

    Args:
        rows: of the file.
        problems: of the whole train split.

    Raises:
        InputError: a broken line, a rationale for a problem that is not in the train split, a key twice.
    """

    def __init__(self, rows: JsonLines, problems: Sequence[Problem]) -> None:
        self.rows = rows
        self.name = rows.path.name.split(".")[0]
        names, samples = array.array("q"), array.array("q")
        quiet = len(rows) < 200_000 or not is_first()
        for number, row in enumerate(track(rows, "reading rationales", transient=True, disable=quiet), start=1):
            for name in ("problem_id", "rationale"):
                if not isinstance(row.get(name), str):
                    raise InputError(f"{rows.path}:{number}: no field {name}; a rationale has problem_id and rationale")
            names.append(hash(row["problem_id"]))
            samples.append(int(row.get("sample", 0)))
        known = Positions(problem.id for problem in problems)
        of_problem = known.first(np.array(names, np.int64))
        self._refuse_unknown(np.flatnonzero(of_problem < 0))
        numbers = np.array(samples, np.int64)
        self._order = np.lexsort((numbers, of_problem))
        self._starts = np.searchsorted(of_problem[self._order], np.arange(len(problems) + 1))
        self._refuse_repeated(of_problem[self._order], numbers[self._order])

    def _refuse_unknown(self, positions: np.ndarray) -> None:
        for i in positions.tolist():
            raise InputError(
                f"{self.rows.path}:{i + 1}: rationale for unknown problem {self.rows[i]['problem_id']}; "
                "the file belongs to another dataset or split"
            )

    def _refuse_repeated(self, of_problem: np.ndarray, samples: np.ndarray) -> None:
        same = (of_problem[1:] == of_problem[:-1]) & (samples[1:] == samples[:-1])
        for i in np.sort(self._order[1:][same]).tolist():
            name, sample = self.rows[i]["problem_id"], self.rows[i].get("sample", 0)
            raise InputError(
                f"{self.rows.path}:{i + 1}: sample {sample} of problem {name} stands here twice; number them"
            )

    def groups(self, problems: Iterable[Problem]) -> Iterator[Group]:
        """Candidates of each problem, as the file has them.

        Args:
            problems: the first ones of the split, or all.
        """
        for position, problem in enumerate(problems):
            found = []
            for i in np.sort(self._order[self._starts[position] : self._starts[position + 1]]).tolist():
                row = self.rows[i]
                if row["problem_id"] != problem.id:  # another name with the same hash
                    self._refuse_unknown(np.array([i]))
                found.append(
                    Rationale(
                        problem=problem,
                        text=row["rationale"],
                        sample=int(row.get("sample", 0)),
                        teacher=str(row.get("teacher", self.name)),
                        licence=row.get("licence"),
                    )
                )
            yield problem, found


def select_rationales(
    groups: Iterable[Group],
    counts: Counts,
    *,
    correct_only: bool = True,
    num_per_problem: int = 1,
    step_rule: str = "sentence",
    seed: int = 0,
) -> Iterator[Rationale]:
    """Filter by answer, drop duplicates, keep K a problem, cut the answer tail, split the steps.

    With ``num_per_problem = 1`` one of the remaining ones is chosen by ``(seed, problem id)``, so that the choice for
    one problem does not depend on the others.

    Args:
        counts: are counted up.
    """
    for problem, candidates in groups:
        counts.num_problems += 1
        kept: dict[str, Rationale] = {}
        for candidate in candidates:
            counts.num_read += 1
            predicted = extract_answer(candidate.text, kind=problem.kind, variant="flexible")
            if correct_only and not answers_equal(predicted, problem.answer, problem.kind):
                counts.num_wrong += 1
                continue
            text = without_answer_tail(candidate.text)
            words = " ".join(text.split())
            if not words:
                counts.num_wrong += 1
            elif words in kept:
                counts.num_duplicate += 1
            else:
                kept[words] = replace(candidate, text=text, steps=tuple(split_steps(text, step_rule)))
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
        **({} if rationale.licence is None else {"licence": rationale.licence}),
    }


class RationaleTable:
    """The kept rationales of a run, read when they are asked for.

    Args:
        rows: of ``rationales.jsonl``.
        problems: that they are for, in the same order.
    """

    def __init__(self, rows: JsonLines, problems: Iterable[Problem]) -> None:
        self.rows, self.problems = rows, problems

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Rationale]:
        problems = iter(self.problems)
        problem = next(problems)
        for row in self.rows:
            while problem.id != row["problem_id"]:
                problem = next(problems)
            yield Rationale(
                problem=problem,
                text=row["rationale"],
                sample=row["sample"],
                teacher=row["teacher"],
                licence=row.get("licence"),
                steps=tuple((start, end) for start, end in row["steps"]),
            )


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

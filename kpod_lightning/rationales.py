"""Rationale: the teacher's text, its steps and its answer; which rationales are kept; the versioned template."""

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kpod_lightning.answers import answers_equal, extract_answer
from kpod_lightning.errors import InputError
from kpod_lightning.problems import Problem, read_jsonl

TEMPLATE = "kpod-1"
"""Name of prompt, answer phrase and stop rule together; it stands in every record."""

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
    steps: tuple[tuple[int, int], ...] = ()

    @property
    def key(self) -> tuple[str, int]:
        return self.problem.id, self.sample


@dataclass
class Selection:
    """Rationales that are trained on, and what was left out."""

    rationales: list[Rationale] = field(default_factory=list)
    num_read: int = 0
    num_wrong: int = 0
    num_duplicate: int = 0
    problems_without: list[str] = field(default_factory=list)


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


def read_recorded(path: Path, problems: dict[str, Problem]) -> list[Rationale]:
    """Teacher rationales from a JSONL file with ``problem_id`` and ``rationale`` (``sample``, ``teacher``).

    Raises:
        InputError: a broken line, a rationale for a problem that is not in the train split, a key twice.
    """
    found, seen = [], set()
    for number, row in enumerate(read_jsonl(path), start=1):
        for name in ("problem_id", "rationale"):
            if not isinstance(row.get(name), str):
                raise InputError(f"{path}:{number}: no field {name}; a rationale has problem_id and rationale")
        if row["problem_id"] not in problems:
            raise InputError(
                f"{path}:{number}: rationale for unknown problem {row['problem_id']}; "
                "the file belongs to another dataset or split"
            )
        key = row["problem_id"], int(row.get("sample", 0))
        if key in seen:
            raise InputError(f"{path}:{number}: sample {key[1]} of problem {key[0]} stands here twice; number them")
        seen.add(key)
        found.append(
            Rationale(
                problem=problems[key[0]],
                text=row["rationale"],
                sample=key[1],
                teacher=str(row.get("teacher", path.name.split(".")[0])),
            )
        )
    return found


def select_rationales(
    candidates: Sequence[Rationale],
    problems: Sequence[Problem],
    *,
    correct_only: bool = True,
    num_per_problem: int = 1,
    step_rule: str = "sentence",
    seed: int = 0,
) -> Selection:
    """Filter by answer, drop duplicates, keep K a problem, cut the answer tail, split the steps.

    With ``num_per_problem = 1`` one of the remaining ones is chosen by ``(seed, problem id)``, so that the choice for
    one problem does not depend on the others.
    """
    by_problem: dict[str, list[Rationale]] = defaultdict(list)
    wanted = {problem.id for problem in problems}
    result = Selection()
    for candidate in candidates:
        if candidate.problem.id not in wanted:
            continue
        result.num_read += 1
        problem = candidate.problem
        predicted = extract_answer(candidate.text, kind=problem.kind, variant="flexible")
        if correct_only and not answers_equal(predicted, problem.answer, problem.kind):
            result.num_wrong += 1
            continue
        text = without_answer_tail(candidate.text)
        if not text.strip():
            result.num_wrong += 1
            continue
        if any(" ".join(text.split()) == " ".join(kept.text.split()) for kept in by_problem[problem.id]):
            result.num_duplicate += 1
            continue
        by_problem[problem.id].append(
            Rationale(
                problem=problem,
                text=text,
                sample=candidate.sample,
                teacher=candidate.teacher,
                steps=tuple(split_steps(text, step_rule)),
            )
        )
    for problem in problems:
        kept = by_problem[problem.id]
        if not kept:
            result.problems_without.append(problem.id)
        elif num_per_problem == 1:
            result.rationales.append(random.Random(f"{seed}/{problem.id}").choice(kept))
        else:
            result.rationales += kept[:num_per_problem]
    return result

"""Wrong rationales beside right ones: a teacher's that reach another answer, or right ones with another last result.

Methods that learn from contrasts ask for them (``Method.wrong``). A wrong rationale is a ``Rationale`` whose problem
has the wrong answer, so that its text is made as any other's.
"""

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from kpod_lightning.data.answers import answers_equal
from kpod_lightning.data.numbers import numbers_in, value_of
from kpod_lightning.data.problems import Choice, Problem
from kpod_lightning.data.rationales import Group, Rationale, predicted_answer
from kpod_lightning.data.steps import split_steps
from kpod_lightning.data.template import without_answer_tail

WRONG = "wrong-2"
"""Name of how wrong rationales are chosen and made: another one makes others of the same right ones."""

_CORE = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")
_EQUALS = re.compile(r"[=≈]\s*[$€£¥₹]?\s*-?\s*$")
_CALCULATION = re.compile(r"[\d)\]}%]\s*[-+*/×÷·−x]\s*[($€£¥₹]*\s*[\d(\[{]")

# ---- Answers ----


def wrong_answer(problem: Problem, seed: int) -> str | None:
    """Another answer of the same form, by ``(seed, problem id)``; None where the problem has one choice alone.

    A number keeps its sign and its decimals, and lies at most a fifth of it, or three units of its last decimal, away.
    """
    rng = random.Random(f"{seed}/{problem.id}/wrong")
    if problem.kind == "yes_no":
        return "no" if problem.answer == "yes" else "yes"
    if problem.kind == "choice":
        labels = [label for label in problem.labels if label.casefold() != problem.answer.casefold()]
        return rng.choice(labels) if labels else None
    # The digits that change are those of the numerator, and the last ones of a ratio or time.
    found = list(re.finditer(r"\d+(?:\.\d+)?", problem.answer.partition("/")[0]))
    if not found:
        return None
    place = found[-1]
    while True:
        answer = problem.answer[: place.start()] + _moved(place[0], rng) + problem.answer[place.end() :]
        if not answers_equal(answer, problem.answer, "number"):
            return answer


def _moved(digits: str, rng: random.Random) -> str:
    """Another positive number with as many decimals."""
    whole, _, decimals = digits.partition(".")
    units = int(whole + decimals)
    step = rng.randint(1, max(3, units // 5))
    moved = units + (step if step >= units or rng.random() < 0.5 else -step)
    text = str(moved).zfill(len(decimals) + 1)
    return f"{text[: -len(decimals)]}.{text[-len(decimals) :]}" if decimals else text.zfill(len(whole))


# ---- Made of a right rationale ----


def made_wrong(rationale: Rationale, seed: int, step_rule: str = "sentence") -> Rationale | None:
    """The right rationale with another result: a wrong calculation, or the arguments given for another choice.

    Of a number, the last calculation that gives the answer gives the wrong one, which stands in all later mentions, and
    in those before any calculation, where the answer is stated first. Where no calculation gives it, all mentions are
    changed. A number that the question mentions, too, is changed behind the calculation alone, or in the last step that
    has it. Of a choice, its text and its label are those of another. None: the text does not mention the answer.
    """
    answer = wrong_answer(rationale.problem, seed)
    if answer is None:
        return None
    change = {"number": _with_number, "choice": _with_choice, "yes_no": _with_verdict}[rationale.problem.kind]
    text = change(rationale, answer)
    if text == rationale.text:
        return None
    problem = replace(rationale.problem, answer=answer)
    steps = tuple(split_steps(text, step_rule))
    return replace(rationale, problem=problem, text=text, teacher="made", licence=None, steps=steps)


def _with_number(rationale: Rationale, answer: str) -> str:
    text, gold = rationale.text, rationale.problem.answer

    def is_gold(value: str) -> bool:
        if value == gold or ("/" in value and "/" not in gold):  # 18/18 is a calculation, not the number 1
            return value == gold
        return value_of(value) is not None and value_of(value) == value_of(gold)

    mentions = [number for number in numbers_in(text) if is_gold(number.value)]
    results = [number.start for number in mentions if _is_result(text, number.start, number.end)]
    is_asked = any(is_gold(number.value) for number in numbers_in(rationale.problem.question))
    first = early = 0
    if results:
        first = results[-1]
        if not is_asked:  # nothing is calculated before the step with the first equals sign
            early = max((start for start, _ in rationale.steps if start <= text.find("=")), default=0)
    elif is_asked:
        last = mentions[-1].start if mentions else 0
        first = max((start for start, _ in rationale.steps if start <= last), default=0)
    for number in reversed(mentions):
        if number.start >= first or number.start < early:
            text = text[: number.start] + _rewritten(text[number.start : number.end], gold, answer) + text[number.end :]
    return text


def _is_result(text: str, start: int, end: int) -> bool:
    """Whether a number stands behind the equals sign of a calculation."""
    core = _CORE.search(text, start, end)
    equals = _EQUALS.search(text[: core.start() if core else start])
    if equals is None:
        return False
    line = re.split(r"\n|[.;:] ", text[: equals.start()].rstrip())[-1]
    return _CALCULATION.search(line) is not None


def _rewritten(mention: str, gold: str, answer: str) -> str:
    """A mention of the right number with the wrong one in its place: currency, sign and groups of digits stay."""
    core = _CORE.search(mention)
    if core is None or value_of(core[0].replace(",", "")) != _size(gold):
        return answer  # in words, with a scale, a fraction or a time
    digits = answer.removeprefix("-")
    if "," in core[0]:
        whole, point, decimals = digits.partition(".")
        digits = f"{int(whole):,}{point}{decimals}"
    return mention[: core.start()] + digits + mention[core.end() :]


def _size(number: str) -> Any:
    value = value_of(number)
    return None if value is None else abs(value)


def _with_choice(rationale: Rationale, answer: str) -> str:
    of = {choice.label.casefold(): choice for choice in rationale.problem.choices}
    right, wrong = of.get(rationale.problem.answer.casefold()), of[answer.casefold()]
    return rationale.text if right is None else _choice_for(rationale.text, right, wrong)


def _choice_for(text: str, right: Choice, wrong: Choice) -> str:
    labels = rf"\({re.escape(right.label)}\)"
    words = rf"(?<!\w){re.escape(right.text)}(?P<plural>(?:e?s)?)(?!\w)" if right.text else r"(?P<plural>(?!))"

    def other(found: re.Match[str]) -> str:
        if found["label"]:
            inside = found["label"][1:-1]
            return f"({wrong.label.lower() if inside.islower() else wrong.label})"
        begins = found[0][0].isupper() and not right.text[0].isupper()
        word = wrong.text + found["plural"]
        return word[:1].upper() + word[1:] if begins else word

    return re.sub(rf"(?P<label>{labels})|{words}", other, text, flags=re.IGNORECASE)


def _with_verdict(rationale: Rationale, answer: str) -> str:
    def other(found: re.Match[str]) -> str:
        return answer.capitalize() if found[0][0].isupper() else answer

    return re.sub(rf"\b{re.escape(rationale.problem.answer)}\b", other, rationale.text, flags=re.IGNORECASE)


# ---- Recorded ----


def recorded_wrong(
    problem: Problem, candidates: Sequence[Rationale], seed: int, *, step_rule: str = "sentence", verdict: str = "text"
) -> Rationale | None:
    """One of a teacher's rationales that reach another answer than the gold one, by ``(seed, problem id)``; or None.

    Those that state no answer that can be read are not among them.

    Args:
        verdict: what says which answer a rationale reaches, see ``rationales.verdict``.
    """
    wrong: dict[str, Rationale] = {}
    for candidate in candidates:
        predicted = predicted_answer(candidate, verdict)
        if predicted is None or answers_equal(predicted, problem.answer, problem.kind):
            continue
        if verdict == "recorded" and candidate.correct:
            continue
        text = without_answer_tail(candidate.text)
        if words := " ".join(text.split()):
            steps = tuple(split_steps(text, step_rule))
            reached = replace(problem, answer=predicted)
            wrong.setdefault(words, replace(candidate, problem=reached, text=text, steps=steps))
    return random.Random(f"{seed}/{problem.id}/wrong").choice(list(wrong.values())) if wrong else None


# ---- Rows of wrong.jsonl ----


def wrong_rows(
    rationales: Iterable[Rationale],
    groups: Iterable[Group] | None,
    seed: int,
    *,
    step_rule: str = "sentence",
    verdict: str = "text",
) -> Iterator[dict[str, Any]]:
    """A row for each right rationale, in their order: its wrong one, or null where there is none.

    Args:
        groups: problems with the teacher's candidates, in the same order; None: wrong ones are made.
    """
    candidates = iter(groups) if groups is not None else None
    at: str | None = None
    wrong: Rationale | None = None
    for rationale in rationales:
        if candidates is None:
            wrong = made_wrong(rationale, seed, step_rule)
        elif at != rationale.problem.id:
            at = rationale.problem.id
            problem, few = next(group for group in candidates if group[0].id == at)
            wrong = recorded_wrong(problem, few, seed, step_rule=step_rule, verdict=verdict)
        yield {
            "problem_id": rationale.problem.id,
            "sample": rationale.sample,
            "teacher": None if wrong is None else wrong.teacher,
            "wrong_sample": None if wrong is None else wrong.sample,
            "rationale": None if wrong is None else wrong.text,
            "steps": [] if wrong is None else wrong.steps,
            "answer": None if wrong is None else wrong.problem.answer,
        }

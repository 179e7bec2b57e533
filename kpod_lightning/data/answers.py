"""Answer extraction and equality, per kind of answer, in the published variants under their names."""

import math
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from kpod_lightning.config import DataConfig, EvaluationConfig
from kpod_lightning.data import published
from kpod_lightning.data.choices import LABELS, Labels, stated_verdict, verdict_anywhere
from kpod_lightning.data.numbers import Number, numbers_in, plain_text, value_of
from kpod_lightning.data.statements import before_next_question, is_denied_ahead, stated
from kpod_lightning.store.bounds import choices_of

KINDS = choices_of(DataConfig, "kind")

VARIANTS = choices_of(EvaluationConfig, "variant")

READINGS = {"strict": "strict-2", "flexible": "flexible-2"}
"""Names under which records tell how answers were read; another name means that other answers may be read."""

TOLERANCE = Fraction(1, 10**6)

_PUBLISHED = {
    ("mcc_kd", "number"): published.mcc_kd,
    ("mcc_kd_2023", "number"): published.mcc_kd_2023,
    ("fu", "number"): published.fu,
    ("mcc_kd", "choice"): published.mcc_kd_choice,
    ("mcc_kd_2023", "choice"): published.mcc_kd_2023_choice,
}

_LOOK_BACK = 32

_DENIES = re.compile(
    r"(?:\bnot|n't|\brather than|\binstead of|\bno longer)\s+(?:(?:equal to|just|simply|exactly|the)\s+)?[$€£¥({*-]*$",
    re.IGNORECASE,
)

_REASON = re.compile(r"\b(?:because|since)\b|,\s?(?:as|which|for)\b", re.IGNORECASE)

# Numbers behind these belong to a circumstance of the answer: "that after 3 days he has 15 left".
_ASIDE = re.compile(
    r"\b(?:after|within|during|every|per|each|if|when|before|until|day|week|month|year|step|question|problem|page|chapter"
    r"|grade|room|number|no\.)\s+(?:(?:the|a|first|another|all|these|those|next|last)\s+)?$"
    r"|\bbetween\s(?:\S{1,12}\sand\s)?$|\bfrom\s\S{1,12}\sto\s$|,\s(?:who|whose)\s[^,.;]{0,24}$",
    re.IGNORECASE,
)

_PERHAPS_ASIDE = re.compile(
    r"\b(?:(?:in|for|at|by|of|with|from|on|than|over)(?:\s+(?:the|all|these|those|his|her|their|its))?|the|these|those)"
    r"\s+[$€£¥]?$",
    re.IGNORECASE,
)

_OF_AMOUNT = re.compile(
    r"\b(?:total|sum|product|difference|average|mean|amount|value|cost|price|profit|rest|remainder|loss|length|area)\s+of"
    r"\s+[$€£¥]?$",
    re.IGNORECASE,
)

_VERB = re.compile(
    r"\b(?:is|are|was|were|equals?|makes|leaves|gives|totals)\s+(?:(?:about|exactly|only|just|a total of)\s+)?[$€£¥]?$",
    re.IGNORECASE,
)

_OPENING = re.compile(
    r"[\W_]*(?:(?:about|approximately|around|exactly|only|just|a total of)\b[\W_]*){0,3}", re.IGNORECASE
)

_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b")


def _distance(text: str, number: Number) -> int:
    """How far a number is from being what its clause says: -1 behind its verb, 0, or 1 and 2 in a circumstance."""
    before = text[max(0, number.start - _LOOK_BACK) : number.start]
    if _ASIDE.search(before) or _ORDINAL.match(text, number.end):
        return 2
    if _PERHAPS_ASIDE.search(before) and not _OF_AMOUNT.search(before):
        return 1
    return -1 if _VERB.search(before) else 0


def _is_denied(text: str, number: Number) -> bool:
    return _DENIES.search(text[max(0, number.start - _LOOK_BACK) : number.start]) is not None


def _nearest(text: str, numbers: Sequence[Number]) -> Number:
    """The first of those numbers that are nearest to what the clause says."""
    return min(numbers, key=lambda number: _distance(text, number))


def _one_of(text: str, numbers: Sequence[Number], start: int, end: int) -> str | None:
    """The answer in a statement: the first number after its last "=", else the one that its clause says."""
    numbers = [number for number in numbers if not _is_denied(text, number)]
    digits = [number for number in numbers if number.is_in_digits]
    reason = _REASON.search(text, start, end)
    if reason and (digits or numbers) and (digits or numbers)[0].start < reason.start():
        end = reason.start()
        numbers, digits = ([number for number in some if number.start < end] for some in (numbers, digits))
    equals = text.rfind("=", start, end)
    after = [number for number in numbers if number.start > equals >= 0]
    if after:
        return after[0].value
    some = digits or numbers
    if not some:
        return None
    opening = _OPENING.match(text, start, end)
    if opening and some[0].start <= opening.end():
        return some[0].value
    # "One of the 3 is left, so 3": what a clause concludes comes last.
    so = re.compile(r"\b(?:so|thus|therefore|hence)\b", re.IGNORECASE).search(text, some[0].start, end)
    concluded = [number for number in some if so and number.start > so.start()]
    return _nearest(text, concluded or some).value


def _last_of(text: str, digits: Sequence[Number]) -> str:
    """The answer of a text without a statement, in its last line or sentence with digits."""
    start = max((found.end() for found in _ENDS.finditer(text, 0, digits[-1].start + 1)), default=0)
    last = [number for number in digits if number.start >= start] or [digits[-1]]
    last = [number for number in last if not _is_denied(text, number)] or last
    equals = text.rfind("=", start)
    after = [number for number in last if number.start > equals >= 0]
    return after[0].value if after else last[-1].value


_ENDS = re.compile(r"(?<=[.!?])\s+|\n+|[。！？]")


def _number(text: str, variant: str) -> str | None:
    numbers = numbers_in(text)
    starts = [number.start for number in numbers]
    for start, end in stated(text):
        within = numbers[bisect_left(starts, start - 1) : bisect_left(starts, end)]
        answer = _one_of(text, within, start, end)
        if answer is not None:
            return answer
        if not is_denied_ahead(text, start):
            break
    if variant == "strict" or not numbers:
        return None
    digits = [number for number in numbers if number.is_in_digits]
    return _last_of(text, digits) if digits else numbers[-1].value


@lru_cache(maxsize=256)
def _labels(labels: tuple[str, ...] | None) -> Labels:
    return Labels(labels)


def _choice(text: str, variant: str, labels: Sequence[str] | None) -> str | None:
    finder = _labels(tuple(labels) if labels else None)
    for start, end in stated(text):
        answer = finder.stated(text, start, end)
        if answer is not None:
            return answer
        if not is_denied_ahead(text, start):
            break
    return None if variant == "strict" else finder.anywhere(text)


def _yes_no(text: str, variant: str) -> str | None:
    for start, end in stated(text):
        answer = stated_verdict(text, start, end)
        if answer is not None:
            return answer
        break
    return None if variant == "strict" else verdict_anywhere(text)


def extract_answer(
    text: str, kind: str = "number", variant: str = "strict", labels: Sequence[str] | None = None
) -> str | None:
    """Read the final answer off a text, without looking at the gold answer.

    A run-on into the template's next "Q:" is not read, nor is what a text denies ("not 12, but 15" is 15).

    Args:
        text: a rationale or a student's output.
        kind: number, choice or yes_no.
        variant: ``strict``: only behind the last answer phrase ("the answer is", "answer:", "####", ``\\boxed``);
            ``flexible``: else behind the last "=" of, or the last number in, the last sentence with digits;
            ``mcc_kd``, ``mcc_kd_2023``, ``fu``: the evaluators of MCC-KD and of Fu et al. as published, flaws included.
        labels: of the problem's choices, in any alphabet: ("A", "B"), ("1", "2"), ("α", "β"). None or none of
            them means A to G. Only ``strict`` and ``flexible`` look at them, and only for a choice.

    Returns:
        A plain number ("1450000", "2.5", "-3", "3/4"), a time or ratio ("4:15"), a label as the problem writes it,
        "yes" or "no"; None where there is none.

    Raises:
        ValueError: unknown kind or variant.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind} is none of {', '.join(KINDS)}")
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant} is none of {', '.join(VARIANTS)}")
    if (variant, kind) in _PUBLISHED:
        return _PUBLISHED[variant, kind](text)
    text = before_next_question(plain_text(text))
    if kind == "choice":
        return _choice(text, variant, labels)
    return _yes_no(text, variant) if kind == "yes_no" else _number(text, variant)


_PLAIN_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,14}")
"""A gold answer that stands as it is: most do, and the readers of numbers are slow."""


def _gold_number(answer: object) -> str:
    if type(answer) is str and _PLAIN_WHOLE.fullmatch(answer):
        return answer
    return _read_gold_number(answer)


def _read_gold_number(answer: object) -> str:
    if isinstance(answer, bool) or not isinstance(answer, int | float | str):
        raise ValueError(f"answer is {_shown(answer)}, not one number")
    if isinstance(answer, float) and not math.isfinite(answer):
        raise ValueError(f"answer is {answer}, not a finite number")
    text = plain_text(answer if isinstance(answer, str) else f"{Decimal(str(answer)):f}")
    if any(True for _ in stated(text)):
        found = _number(text, "strict")
        if found is None:
            raise ValueError(f"answer is {_shown(answer)}: no number stands behind its last answer phrase")
        values = [found]
    else:
        values = _values(text)
    if not values:
        raise ValueError(f"answer is {_shown(answer)}, which has no number; another data.kind may fit")
    if len(values) > 1:
        raise ValueError(
            f"answer is {_shown(answer)}, which has several numbers ({', '.join(values[:4])}); give one, "
            "or put it behind ####"
        )
    if ":" not in values[0] and value_of(values[0]) is None:
        raise ValueError(f"answer is {_shown(answer)}, which has no value")  # 1/0
    return values[0]


def _shown(answer: object) -> str:
    text = repr(answer) if not isinstance(answer, bool) else str(answer).lower()
    return text if len(text) <= 60 else f"{text[:57]}..."


def _gold_verdict(answer: object) -> str:
    word = str(answer).strip().strip(".!\"'").casefold() if isinstance(answer, bool | str) else ""
    meaning = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}.get(word)
    if meaning is None:
        raise ValueError(f"answer is {_shown(answer)}, not yes, no, true or false")
    return meaning


def _gold_label(answer: object, choices: Mapping[str, str] | None) -> str:
    if isinstance(answer, bool) or not isinstance(answer, int | str):
        raise ValueError(f"answer is {_shown(answer)}, not the label of a choice")
    texts = dict(choices) if choices else dict.fromkeys(LABELS, "")
    text = " ".join(plain_text(str(answer)).split())
    bare = re.sub(r"^[(\[]\s?(.+?)\s?[)\]]$|^(.+?)[.):]$", lambda found: found[1] or found[2], text)
    for written in (text, bare):
        same = [label for label in texts if plain_text(label).strip() == written]
        same = same or [label for label in texts if plain_text(label).strip().casefold() == written.casefold()]
        if len(same) == 1:
            return same[0]
    named = [
        label
        for label, option in texts.items()
        if option.strip()
        and _is_option(text.casefold(), label.casefold(), " ".join(plain_text(option).casefold().split()))
    ]
    if len(named) == 1:
        return named[0]
    if len(named) > 1:
        raise ValueError(
            f"answer is {_shown(answer)}, the text of several choices ({', '.join(named)}); give the label"
        )
    known = ", ".join(list(texts)[:10])
    way_out = "" if choices else "; a problem with other labels names its choices"
    raise ValueError(f"answer is {_shown(answer)}, neither a label ({known}) nor the text of a choice{way_out}")


def _is_option(answer: str, label: str, option: str) -> bool:
    """Whether an answer is the text of a choice, alone or behind its label: "basket", "(b) basket", "b. basket"."""
    option = " ".join(plain_text(option).casefold().split())
    return answer in (option, f"({label}) {option}", f"{label}) {option}", f"{label}. {option}", f"{label}: {option}")


def gold_answer(answer: object, kind: str, choices: Mapping[str, str] | None = None) -> str:
    """A gold answer as a file has it, in the one spelling that is taught and compared.

    Args:
        answer: as parsed from JSON, so perhaps a boolean or a number.
        kind: number, choice or yes_no.
        choices: text of each choice by its label; none of them means the labels A to G, without texts.

    Returns:
        A number ("7" of "3 + 4 = 7\\n#### 7"), a label of the choices (also where the answer is its text), "yes" or
        "no" (also of true and false).

    Raises:
        ValueError: the kind cannot mean this answer; the message says why and reads on behind the place in a file.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind} is none of {', '.join(KINDS)}")
    if kind == "number":
        return _gold_number(answer)
    return _gold_verdict(answer) if kind == "yes_no" else _gold_label(answer, choices)


def _values(text: str) -> list[str]:
    """Every number of a short answer; those in words only where none is in digits."""
    numbers = numbers_in(plain_text(text))
    digits = [number for number in numbers if number.is_in_digits]
    return [number.value for number in digits or numbers]


def _numbers_equal(one: str, other: str) -> bool:
    if ":" in one or ":" in other:  # ratios and times are compared part by part; 7:00 is 7
        parts, others = (number.removesuffix(":00").split(":") for number in (one, other))
        return len(parts) == len(others) and all(map(_numbers_equal, parts, others))
    value, gold = value_of(one), value_of(other)
    if value is None or gold is None:
        return one == other and "/" not in one
    return abs(value - gold) <= TOLERANCE * max(Fraction(1), abs(gold))


def answers_equal(predicted: str | None, gold: str, kind: str) -> bool:
    """Whether a predicted answer is the gold one; None is wrong.

    Numbers are compared as fractions, to 1e-6 of the gold value (of 1 where that is smaller), so that 0.75 equals 3/4
    and 33.333333 equals 100/3; texts of several numbers, ratios and times number by number; choices and yes/no by
    letter and word, true being yes.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind} is none of {', '.join(KINDS)}")
    if predicted is None:
        return False
    if kind != "number":
        words = {"true": "yes", "false": "no"} if kind == "yes_no" else {}
        one, other = (" ".join(answer.split()).casefold() for answer in (predicted, gold))
        return words.get(one, one) == words.get(other, other)
    golds = _values(gold.rpartition("####")[2]) or _values(gold)  # a gold answer may stand behind its working
    predictions = _values(predicted)
    return bool(golds) and len(golds) == len(predictions) and all(map(_numbers_equal, predictions, golds))

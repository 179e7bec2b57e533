"""Answer extraction and equality, per kind of answer, in the published variants under their names."""

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

from kpod_lightning.config import DataConfig, EvaluationConfig
from kpod_lightning.store.bounds import choices_of

KINDS = choices_of(DataConfig, "kind")

VARIANTS = choices_of(EvaluationConfig, "variant")

LABELS = tuple("ABCDEFG")
"""Labels of a choice where a problem names none."""

TOLERANCE = Fraction(1, 10**6)

# fmt: off
_UNITS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]

# fmt: on
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]

WORDS = {word: i for i, word in enumerate(_UNITS)} | {word: 10 * (i + 2) for i, word in enumerate(_TENS)}

_WORD = "|".join(sorted(WORDS, key=len, reverse=True))

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"

_NUMBER = re.compile(
    # _canonical tells a sign from a subtraction by the text before the minus.
    rf"(?P<sign>-\s?)?(?:[$€£¥]\s?(?P<minus>-\s?)?)?"
    rf"(?:(?P<whole>\d+)\s+(?P<mixed>\d+/\d+)|(?P<top>{_DIGITS})\s?/\s?(?P<bottom>\d+(?:\.\d+)?)(?![\d/])|(?P<plain>{_DIGITS}))"
    rf"|\b(?P<tens>{'|'.join(_TENS)})[- ](?P<ones>{'|'.join(_UNITS[1:10])})\b|\b(?P<word>{_WORD})\b",
    re.IGNORECASE,
)

# A minus behind a word, bracket or number, or behind a number and a blank, subtracts or makes a range: it is no sign.
_SUBTRACTS = re.compile(r"[\w.)\]%]$|[\d)\]%][ \t]+$")

PHRASE = re.compile(r"answer\s+is\b\s*:?|answer\s*:|####|\\boxed\s*(?=\{)|\bboxed\s*(?=\{)", re.IGNORECASE)

_SENTENCE_END = re.compile(r"(?<=[.!?])\s|\n|$")


def _normalise(text: str) -> str:
    """The text with one spelling for minus signs, fractions, separators of thousands, blanks and LaTeX commands."""
    text = re.sub(r"[−–](?=\s?[$€£]?\s?[\d.])", "-", text)
    text = re.sub(r"\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}", r"\1/\2", text)
    text = re.sub(r"\{,\}", ",", text)
    text = re.sub(r"(?<=\d)(?:\\[,;: !]|[\u2009\u202f\u00a0])(?=\d{3}(?!\d))", ",", text)
    text = re.sub(r"\\[,;:! ]|\\quad|\\text\s*\{[^}]*\}|[*_`]{2,}", " ", text)
    return text.replace("\\$", "$").replace("\\%", "%").replace("\u00a0", " ")


def _canonical(match: re.Match[str]) -> str:
    """A match of ``_NUMBER`` as a plain decimal string or a fraction."""
    part = match.groupdict()
    if part["tens"]:
        return str(WORDS[part["tens"].lower()] + WORDS[part["ones"].lower()])
    if part["word"]:
        return str(WORDS[part["word"].lower()])
    before = match.string[max(0, match.start() - 8) : match.start()]
    sign = "-" if part["minus"] or (part["sign"] and not _SUBTRACTS.search(before)) else ""
    if part["whole"]:
        top, bottom = (int(n) for n in part["mixed"].split("/"))
        return f"{sign}{int(part['whole']) * bottom + top}/{bottom}" if bottom else f"{sign}{part['whole']}"
    if part["top"]:
        return f"{sign}{_plain(part['top'])}/{_plain(part['bottom'])}"
    return sign + _plain(part["plain"])


def _plain(digits: str) -> str:
    digits = digits.replace(",", "")
    if "." in digits:
        whole, decimals = digits.split(".")
        digits = f"{whole or '0'}.{decimals}".rstrip("0").rstrip(".")
    whole, dot, decimals = digits.partition(".")
    return (whole.lstrip("0") or "0") + dot + decimals


def _numbers(text: str) -> list[re.Match[str]]:
    return list(_NUMBER.finditer(text))


def _in_digits(numbers: list[re.Match[str]]) -> list[re.Match[str]]:
    """Those of the numbers that are not spelt out in words."""
    return [match for match in numbers if not match["word"] and not match["tens"]]


def _box(text: str) -> str:
    """What stands in the braces at the start of ``text``, or ``text`` where there are none."""
    if not text.startswith("{"):
        return text
    depth = 0
    for i, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[1:i]
    return text[1:]


def _stated(text: str) -> str | None:
    """What follows the last answer phrase, to the end of its sentence."""
    phrases = list(PHRASE.finditer(text))
    if not phrases:
        return None
    rest = text[phrases[-1].end() :].lstrip()
    if rest.startswith("{"):
        return _box(rest)
    end = _SENTENCE_END.search(rest)
    return rest[: end.start()] if end else rest


def _one_of(stated: str) -> str | None:
    """The answer in a short statement: the first number after its last "=", else its first number."""
    if "=" in stated:
        after = _numbers(stated.rsplit("=", 1)[1])
        if after:
            return _canonical(after[0])
    numbers = _numbers(stated)
    digits = _in_digits(numbers)
    return _canonical((digits or numbers)[0]) if numbers else None


def _number(text: str, variant: str) -> str | None:
    text = _normalise(text)
    stated = _stated(text)
    if stated is not None and (answer := _one_of(stated)) is not None:
        return answer
    if variant == "strict":
        return None
    numbers = _numbers(text)
    digits = _in_digits(numbers)
    if not digits:
        return _canonical(numbers[-1]) if numbers else None
    # The last line or sentence with digits states the result: behind its last "=", else as its last number.
    start = 0
    for end in (m.end() for m in re.finditer(r"(?<=[.!?])\s+|\n+", text)):
        if any(match.start() >= end for match in digits):
            start = end
    last = text[start:]
    if "=" in last:
        after = _in_digits(_numbers(last.rsplit("=", 1)[1]))
        if after:
            return _canonical(after[0])
    return _canonical(_in_digits(_numbers(last))[-1])


_SIMPLE = re.compile(r"-?\d+(?:,\d{3})?(?:\.\d+)?")

_TO_TWELVE = {word: str(i) for i, word in enumerate(_UNITS[1:13], start=1)}


def _mcc_kd(text: str) -> str | None:
    """MCC-KD's current evaluator: per line the last number after each "therefore" or "so", the last line wins."""
    result = None
    for line in text.strip().split("\n"):
        for word, digit in _TO_TWELVE.items():
            line = re.sub(rf"\b{word}\b", digit, line, flags=re.IGNORECASE)
        numbers: list[str] = []
        for cue in ("[Tt]herefore", r"\b[Ss]o\b"):
            for piece in re.split(cue, line)[1:]:
                numbers += _SIMPLE.findall(piece)
        numbers = numbers or _SIMPLE.findall(line)
        if numbers:
            result = numbers[-1].replace(",", "").removesuffix(".0")
    return result


def _choice(text: str, variant: str) -> str | None:
    if variant in ("mcc_kd", "mcc_kd_2023"):
        last = text.strip().split("\n")[-1] if variant == "mcc_kd_2023" else text
        letters = re.findall(r"[A-G]", last) if variant == "mcc_kd_2023" else re.findall(r"\b[A-N]\b", last)
        return letters[-1] if letters else None
    stated = _stated(text)
    if stated is not None:
        # A lone "a" is an article unless it stands in brackets or alone.
        letter = re.search(
            r"\(\s*([A-Ga-g])\s*\)|^\W*([A-Ga-g])\W*$|\b([B-G])\b|\b(A)\b(?!\s+[a-z])|^\W*([A-Ga-g])[).:]", stated
        )
        if letter:
            return next(group for group in letter.groups() if group).upper()
    if variant == "strict":
        return None
    if alone := re.fullmatch(r"\W*([A-Ga-g])\W*", text):
        return alone[1].upper()
    letters = re.findall(r"\(\s*([A-Ga-g])\s*\)", text) or re.findall(r"\b([B-G]|A(?!\s+[a-z]))\b", text)
    return letters[-1].upper() if letters else None


def _yes_no(text: str, variant: str) -> str | None:
    stated = _stated(text)
    if stated is not None and (first := re.search(r"\b(yes|no|true|false)\b", stated, re.IGNORECASE)):
        word = first.group().lower()
    elif variant != "strict" and (every := re.findall(r"\b(yes|no|true|false)\b", text, re.IGNORECASE)):
        word = every[-1].lower()
    else:
        return None
    return {"true": "yes", "false": "no"}.get(word, word)


def extract_answer(
    text: str, kind: str = "number", variant: str = "strict", labels: Sequence[str] | None = None
) -> str | None:
    """Read the final answer off a text, without looking at the gold answer.

    Args:
        text: a rationale or a student's output.
        kind: number, choice or yes_no.
        labels: of the problem's choices, in any alphabet: ("A", "B"), ("1", "2"), ("α", "β"). None or none of
            them means A to G. Only ``strict`` and ``flexible`` look at them, and only for a choice.
        variant: ``strict``: only behind the last answer phrase ("the answer is", "answer:", "####", ``\\boxed``);
            ``flexible``: else behind the last "=" of, or the last number in, the last sentence with digits;
            ``mcc_kd``, ``mcc_kd_2023``, ``fu``: the evaluators of MCC-KD and of Fu et al. as published, flaws included.

    Returns:
        A plain number ("1450000", "2.5", "-3", "3/4"), a label as the problem writes it, "yes" or "no"; None where
        there is none.

    Raises:
        ValueError: unknown kind or variant.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind} is none of {', '.join(KINDS)}")
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant} is none of {', '.join(VARIANTS)}")
    if kind == "choice":
        return _choice(text, variant)
    if kind == "yes_no":
        return _yes_no(text, variant)
    if variant == "mcc_kd":
        return _mcc_kd(text)
    if variant == "mcc_kd_2023":
        numbers = _SIMPLE.findall(text.strip().split("\n")[-1])
        return numbers[-1] if numbers else None
    if variant == "fu":
        numbers = re.findall(r"\d+(?:\.\d+)?", text)
        return numbers[-1] if numbers else None
    return _number(text, variant)


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
    return str(answer).strip()


def _value(text: str) -> Fraction | None:
    match = _NUMBER.search(_normalise(text))
    if match is None:
        return None
    try:
        top, _, bottom = _canonical(match).partition("/")
        return Fraction(top) / Fraction(bottom or "1")
    except (ValueError, ZeroDivisionError):
        return None


def answers_equal(predicted: str | None, gold: str, kind: str) -> bool:
    """Whether a predicted answer is the gold one; None is wrong.

    Numbers are compared as fractions, to 1e-6 of the gold value (of 1 where that is smaller), so that 0.75 equals 3/4
    and 33.333333 equals 100/3; choices and yes/no by letter and word.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind} is none of {', '.join(KINDS)}")
    if predicted is None:
        return False
    if kind != "number":
        return predicted.strip().lower() == gold.strip().lower()
    one, other = _value(predicted), _value(gold)
    if one is None or other is None:
        return False
    return abs(one - other) <= TOLERANCE * max(Fraction(1), abs(other))

"""Numbers as people and models write them, in digits, words, LaTeX and Unicode: where they stand, and what they are."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

# fmt: off
_UNITS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]

_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]

WORDS = {word: i for i, word in enumerate(_UNITS)} | {word: 10 * (i + 2) for i, word in enumerate(_TENS)}

_POWERS = {
    "hundred": 2, "thousand": 3, "lakh": 5, "million": 6, "crore": 7, "billion": 9, "trillion": 12,
    "k": 3, "mn": 6, "m": 6, "bn": 9, "b": 9, "tn": 12, "t": 12,
    "百": 2, "千": 3, "万": 4, "萬": 4, "亿": 8, "億": 8,
}
"""Power of ten of a scale word or suffix."""
# fmt: on

_PARTS = {
    "half": 2,
    "halves": 2,
    "third": 3,
    "quarter": 4,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "eighth": 8,
    "tenth": 10,
}

_LARGEST_EXPONENT = 400
"""Powers beyond it are not worked out: a text of ten characters could name a number that fills the memory."""

# In digits, with or without groups: 1,450,000; 10,00,000; 1'450; 1 450; 1.234.567; 1.234,56; and decimals.
_DIGITS = (
    r"(?:\d{1,3}(?:\.\d{3}){1,12},\d{1,2}(?![\d,])|\d{1,3}(?:\.\d{3}){2,12}(?![\d.,]\d|\d)"
    r"|(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,2}(?:,\d{2}){1,8},\d{3}(?!\d)|\d{1,3}(?:'\d{3})+(?!\d)"
    r"|\d{1,3}(?:_\d{3})+(?!\d)|(?<![\d.,/])\d{1,3}(?:[ ]\d{3}){1,12}(?![\d/]|-[A-Za-z]|[ ]\d|,\d)|\d+)"
    r"(?:\.\d+)?|\.\d+)"
)

_SCALE = r"hundred|thousand|lakh|million|crore|billion|trillion"

_WORD = "|".join(sorted([*WORDS, *_SCALE.split("|")], key=len, reverse=True))

# Letters that a number can begin with, at the start of a word. Asking for one of them, or for a digit or a sign, makes
# the search three times as fast: all else is tried at few places.
_INITIALS = "".join(sorted({word[0] for word in (*WORDS, *_SCALE.split("|"), "minus", "negative", "a", "half")}))

_BEGINS = rf"(?:(?=[-$€£¥₹\d.])|\b(?=[{_INITIALS}]))"

_NUMBER = re.compile(
    rf"{_BEGINS}"
    r"(?P<sign>(?:-|\b(?:minus|negative)\b)\s?)?(?P<currency>[$€£¥₹]\s?(?P<minus>-\s?)?)?(?:"
    r"(?P<whole>\d+)(?:[ \t]{1,3}|[ ]and[ ])(?P<mixed>\d+/\d+)(?![\d/])"
    rf"|(?P<ratio>\d+(?:(?:[ ]:[ ]|:){_DIGITS})+)"
    rf"|(?P<top>(?<!\d/){_DIGITS})\s?/\s?(?P<bottom>{_DIGITS})(?![\d/])"
    rf"|(?P<plain>{_DIGITS})(?:[eE](?P<e>[+-]?\d{{1,9}})(?!\w)"
    r"|[ ]?[×x*·⋅][ ]?10[ ]?\^[ ]?\(?(?P<ten>[+-]?\d{1,9})\)?|\^\(?(?P<power>[+-]?\d{1,9})\)?)?)"
    rf"(?P<scale>(?:[ -]?(?:{_SCALE})\b){{1,3}}|[百千万萬亿億]|(?:k|mn|bn|tn|m|b|t)\b(?![ ](?:run|race)))?"
    rf"(?P<half>[ ]and[ ]a[ ]half\b(?:[ ](?P<half_scale>{_SCALE})\b)?)?"
    r"|(?P<spoken>\b(?:minus|negative)[ ])?(?:"
    rf"\b(?P<parts>{'|'.join(_UNITS[1:10])})[ -]"
    r"(?P<part>half|halves|thirds?|quarters?(?=[ ]of)|(?:four|fif|six|eigh|ten)ths?)\b"
    rf"|(?P<words>\b(?:a[ ](?={_SCALE}))?(?:{_WORD})(?:(?:[ -]|,?[ ]and[ ])(?:{_WORD})\b)*\b"
    rf"(?P<and_half>[ ]and[ ]a[ ]half\b(?:[ ](?P<and_scale>{_SCALE})\b)?)?)|\bhalf[ ]a[ ](?P<half_of>{_SCALE})\b)",
    re.IGNORECASE | re.ASCII,
)

_WORD_IN = re.compile(rf"\b(?:{_WORD}|and|a)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Number:
    """One number of a text.

    ``value`` is a plain decimal ("1450000", "-2.5"), a fraction ("3/4"), or a ratio or time as it is written ("4:15").
    """

    start: int
    end: int
    value: str
    is_in_digits: bool


_MINUS = "\u2212\u2010\u2011\ufe63\uff0d\u2796"

_INVISIBLE = "\u00ad\u200b\u200c\u200d\u2060\ufeff"


@cache
def _plain_character(character: str) -> str:
    if character in _MINUS:
        return "-"
    if character in _INVISIBLE:
        return ""
    if character in "\u2018\u2019\u02bc\u2032":
        return "'"
    if character in "\u2044\u2215":
        return "/"
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.digit(character))
    # Roman and circled numbers, superscripts and the rest would become digits that are no numbers of the text.
    return character if category in ("No", "Nl", "Lm") else unicodedata.normalize("NFKC", character)


def _without_unicode(text: str) -> str:
    text = re.sub(r"(?<=\d)[\u2009\u202f\u00a0\u2007\u2008](?=\d{3}(?!\d))", ",", text)
    text = re.sub(
        r"(?<=\d)[⁺⁻]?[⁰¹²³⁴-⁹]+",
        lambda found: "^" + unicodedata.normalize("NFKC", found[0]).replace("\u2212", "-"),
        text,
    )
    text = re.sub(
        r"(?P<whole>(?<=\d)[ ]?)?(?P<vulgar>[¼½¾⅐-⅞↉])",
        lambda found: (
            (" " if found["whole"] is not None else "")
            + unicodedata.normalize("NFKC", found["vulgar"]).replace("\u2044", "/")
        ),
        text,
    )
    text = re.sub(r"[–—](?=[$€£¥]?[\d.])", "-", text)
    return re.sub(r"[^\x00-\x7f]", lambda found: _plain_character(found[0]), text)


_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|operatorname|emph)\s*\{([^{}]*)\}")

_ROOT = re.compile(r"\\sqrt\s*(?:\[[^\]{}]{0,20}\])?\s*(?:\{[^{}]*\}|\d)")

_OPERAND = r"(?:\{\s{0,3}(-?[\d.,]+)\s{0,3}\}|(\d))"

_FRACTION = re.compile(rf"\\[dtc]?frac\s{{0,3}}{_OPERAND}\s{{0,3}}{_OPERAND}")

# fmt: off
_LATEX = [
    (re.compile(r"\{,\}|,\\!"), ","),
    (re.compile(r"(?<=\d)(?:\\[,;:! ]|\\thinspace\b[ ]?|~)(?=\d{3}(?!\d))"), ","),
    (re.compile(r"\\[,;:! ]|\\q?quad\b|\\(?:thinspace|left|right|displaystyle|bigl?|bigr)(?![A-Za-z])"), " "),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "×"),
    (re.compile(r"\\div(?![A-Za-z])"), "÷"),
    (re.compile(r"\\approx(?![A-Za-z])"), "≈"),
    (re.compile(r"\\pi(?![A-Za-z])"), "π"),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\^\s?\{\s?([+-]?\d+)\s?\}"), r"^\1"),
]
# fmt: on


def _without_latex(text: str) -> str:
    for _ in range(3):  # \textbf{\text{42}}
        text = _TEXT.sub(r" \1 ", text)
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    text = _ROOT.sub("√", re.sub(r"\\overline\s?\{\d+\}", "√", text))

    def fraction(found: re.Match[str]) -> str:
        top, bottom = found[1] or found[2], found[3] or found[4]
        is_mixed = found.start() > 0 and text[found.start() - 1].isdigit()
        return f"{' ' if is_mixed else ''}{top}/{bottom}"

    text = _FRACTION.sub(fraction, text)
    # A fraction of other things than numbers is no number, nor is one that stands in it.
    return re.sub(r"\\[dtc]?frac\s{0,3}\{[^{}]*\}\s{0,3}\{[^{}]*\}", "√", text)


def plain_text(text: str) -> str:
    """The text with one spelling for digits, minus signs, fractions, groups, blanks, powers and markup."""
    if not text.isascii():
        text = _without_unicode(text)
    if "\\" in text or "{" in text:
        text = _without_latex(text)
    text = re.sub(r"(?<=\d)\*\*(?=\d)", "^", text)
    text = re.sub(r"[*_`]{2,}", " ", text)
    return re.sub(r"-\s?\(\s?([\d.,/ ]{1,40})\)", r"-\1", text)


def _is_sign(text: str, start: int, end: int) -> bool:
    """Whether a minus at ``start``, before a number at ``end``, is its sign: no subtraction, range, dash or bullet."""
    before = text[max(0, start - 16) : start]
    if re.search(r"[\w.)\]%}]\Z", before):
        return False
    if re.search(r"[\d)\]%}][ \t]+\Z", before):
        return False
    if end - start == 1:
        return True
    # With a blank behind it: "x = - 6" and "is - 6", but neither "apples - 6" nor a bullet at the start of a line.
    return (
        re.search(r"(?:[=:(\[{<>≈$+*/×]|\b(?:is|are|was|be|equals|to|gets?|gives|about))[ \t]*\Z", before) is not None
    )


def _speaks_of_sign(text: str, start: int, word: str) -> bool:
    """Whether "minus" or "negative" in front of a number is its sign: "10 minus 4" subtracts."""
    if word.lower().startswith("negative"):
        return True
    before = text[max(0, start - 16) : start]
    return not before.strip() or bool(
        re.search(r"(?:[=:(\[{,;]|\b(?:is|are|was|be|equals|to|gets?|gives|about|of))\s*\Z", before, re.IGNORECASE)
    )


def _plain(digits: str) -> str:
    """Digits with or without groups as a plain decimal."""
    if digits.isdecimal():
        return digits.lstrip("0") or "0"
    if re.fullmatch(r"\d{1,3}(?:\.\d{3})+,\d+", digits):
        digits = digits.replace(".", "").replace(",", ".")
    elif digits.count(".") > 1:
        digits = digits.replace(".", "")
    digits = re.sub(r"[,'_ ]", "", digits)
    whole, _, decimals = digits.partition(".")
    decimals = decimals.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{decimals}" if decimals else "")


def _shifted(plain: str, power: int) -> str:
    """A plain decimal times a power of ten."""
    if not power:
        return plain
    if abs(power) > _LARGEST_EXPONENT:
        return f"{plain}e{power}"
    whole, _, decimals = plain.partition(".")
    figures, point = whole + decimals, len(whole) + power
    figures = "0" * max(0, 1 - point) + figures + "0" * max(0, point - len(figures))
    point = max(point, 1)
    return _plain(f"{figures[:point]}.{figures[point:]}0")


def _power(plain: str, power: str) -> str:
    exponent = int(power)
    if plain == "10":
        return _shifted("1", exponent)
    if "." in plain or len(plain) > 6 or not 0 <= exponent <= _LARGEST_EXPONENT // len(plain):
        return f"{plain}^{power}"
    return str(int(plain) ** exponent)


def _of_fraction(value: Fraction) -> str:
    for power in range(7):
        if 10**power % value.denominator == 0:
            return _shifted(str(value.numerator * 10**power // value.denominator), -power)
    return f"{value.numerator}/{value.denominator}"


def _power_of(scale: str | None, has_currency: bool) -> int | None:
    """Power of ten of the scale words behind a number; None where there is no scale but a unit."""
    words = re.split(r"[ -]+", scale.strip(" -").lower()) if scale else []
    # 5m are metres, and 5 t tonnes; $5m are millions.
    if words and words[0] in ("m", "b", "t") and not has_currency:
        return None
    return sum(_POWERS[word] for word in words)


def _in_digits(found: re.Match[str]) -> Number:
    part, text = found.groupdict(), found.string
    end = found.end()
    if part["ratio"]:
        return Number(found.start("ratio"), end, part["ratio"].replace(" : ", ":"), is_in_digits=True)
    sign = ""
    if part["minus"]:
        sign = "-"
    elif part["sign"]:
        start = found.start("sign")
        is_symbol = part["sign"].startswith("-")
        is_sign = _is_sign(text, start, found.end("sign")) if is_symbol else _speaks_of_sign(text, start, part["sign"])
        sign = "-" if is_sign else ""
    power = _power_of(part["scale"], part["currency"] is not None)
    if power is None:
        end, power = found.start("scale"), 0
    if part["whole"]:
        top, bottom = (_plain(n) for n in part["mixed"].split("/"))
        too_long = len(part["whole"]) + len(top) + len(bottom) > _LARGEST_EXPONENT
        if bottom == "0" or too_long:
            value = _plain(part["whole"])
        else:
            value = f"{int(part['whole']) * int(bottom) + int(top)}/{bottom}"
    elif part["top"]:
        value = f"{_shifted(_plain(part['top']), power)}/{_plain(part['bottom'])}"
    elif part["power"]:
        value = _shifted_or_not(_power(_plain(part["plain"]), part["power"]), power)
    else:
        value = _shifted(_plain(part["plain"]), power + int(part["e"] or part["ten"] or 0))
    if part["half"] and value.isdigit() and len(value) < _LARGEST_EXPONENT:
        if part["half_scale"]:
            value = _shifted(f"{value}.5", _POWERS[part["half_scale"].lower()])
        else:
            value = f"{value}.5" if not power else _of_fraction(Fraction(value) + Fraction(10**power, 2))
    return Number(found.start(), end, sign + value if value != "0" else value, is_in_digits=True)


def _shifted_or_not(value: str, power: int) -> str:
    return _shifted(value, power) if value.isdigit() and power else value


def _in_words(found: re.Match[str]) -> Iterator[Number]:
    """The numbers of a run of number words: "two hundred and five" is one, "five and six" are two."""
    base = found.start("words")
    words = found["words"].removesuffix(found["and_half"] or "")
    begins_with_article = words[:2].lower() == "a "
    total = current = start = end = 0
    last, scale, is_joined = "", 99, False

    def number(has_half: bool) -> Number:
        value = f"{total + current}.5" if has_half else str(total + current)
        if has_half and found["and_scale"]:
            value = _shifted(value, _POWERS[found["and_scale"].lower()])
        return Number(start, end, value, is_in_digits=False)

    for token in _WORD_IN.finditer(words):
        word = token[0].lower()
        if word in ("and", "a"):
            is_joined = word == "and"
            start = start if last else base + token.start()
            continue
        power = _POWERS.get(word)
        if last and power == 2 and 0 < current < 100 and last != "hundred" and not is_joined:
            current *= 100
        elif last and power and power > 2 and current and power < scale and not is_joined:
            total, current, scale = total + current * 10**power, 0, power
        elif last and power is None and _continues(word, last, current, is_joined):
            current += WORDS[word]
        else:
            if last:
                yield number(has_half=False)
            is_article = not last and start == base and begins_with_article
            if power is not None and not is_article:  # "several hundred" is no number
                total = current = 0
                last, start, scale, is_joined = "", base + token.end(), 99, False
                continue
            start = start if is_article else base + token.start()
            total, current, scale = 0, WORDS.get(word, 0), 99
            if power is not None:
                total, current = (10**power, 0) if power > 2 else (0, 100)
                scale = power if power > 2 else 99
        last, is_joined, end = word, False, base + token.end()
    if last:
        yield number(has_half=found["and_half"] is not None)


def _continues(word: str, last: str, current: int, is_joined: bool) -> bool:
    """Whether a word of a number from 0 to 99 adds to the number that ends with ``last``."""
    if last in _TENS:
        return word in _UNITS[1:10] and not is_joined
    if last == "hundred":
        return word != "zero"
    return last in _POWERS and current == 0 and word != "zero"


_ROOT_OR_POWER = re.compile(r"√[ ({]*$|\^[({+-]?$")

_ROOT_OR_PI = re.compile(r"[ .]?[√π]")


def numbers_in(text: str) -> list[Number]:
    """The numbers of a text, in order; one beside a root or pi is none.

    Args:
        text: of ``plain_text``.
    """
    numbers: list[Number] = []
    for found in _NUMBER.finditer(text):
        before, after = text[max(0, found.start() - 3) : found.start()], text[found.end() : found.end() + 2]
        if _ROOT_OR_POWER.search(before) or _ROOT_OR_PI.match(after):
            continue
        if found["words"]:
            several = list(_in_words(found))
        elif found["half_of"]:
            value = _shifted("0.5", _POWERS[found["half_of"].lower()])
            several = [Number(found.start(), found.end(), value, is_in_digits=False)]
        elif found["part"]:
            bottom = _PARTS[found["part"].lower().removesuffix("s") if found["part"].lower() != "halves" else "half"]
            value = f"{WORDS[found['parts'].lower()]}/{bottom}"
            several = [Number(found.start(), found.end(), value, is_in_digits=False)]
        else:
            several = [_in_digits(found)]
        if found["spoken"] and several and _speaks_of_sign(text, found.start(), found["spoken"]):
            first = several[0]
            several[0] = Number(found.start(), first.end, f"-{first.value}", is_in_digits=False)
        numbers += several
    return numbers


def value_of(number: str) -> Fraction | None:
    """The value of a plain decimal or a fraction; None of a ratio, a division by 0 or a power that is too large."""
    top, _, bottom = number.partition("/")
    if "e" in number:  # a power that was too large
        return None
    try:
        return Fraction(top) / Fraction(bottom or "1")
    except (ValueError, ZeroDivisionError):
        return None

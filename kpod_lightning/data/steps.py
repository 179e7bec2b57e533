"""Cuts a rationale into its steps, as character spans that tile the text; and the n-grams of a text."""

import re
from collections.abc import Iterable, Iterator

from kpod_lightning.store.errors import InputError

# fmt: off
ABBREVIATIONS = frozenset((
    "mr", "mrs", "ms", "mx", "messrs", "dr", "prof", "rev", "hon", "gen", "col", "capt", "sgt", "lt", "sen", "gov",
    "st", "mt", "jr", "sr", "vs", "approx", "ca", "cf", "dept", "fig", "figs", "eq", "eqs", "viz", "resp", "incl",
    "excl", "e.g", "i.e", "w.r.t", "rs",
))
"""A stop behind one of these never ends a sentence."""

BEFORE_NUMBER = frozenset((
    "no", "nos", "est", "co", "corp", "inc", "ltd", "etc", "al", "avg", "max", "min", "pp", "pg", "ch", "vol", "ex",
    "ave", "blvd", "rd", "hwy", "a.m", "p.m", "b.c", "a.d", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep",
    "sept", "oct", "nov", "dec", "tue", "tues", "thu", "thur", "thurs", "fri",
))
"""These end sentences too: they are abbreviations only where a number, a small letter or an operator follows."""

UNITS = frozenset((
    "oz", "lb", "lbs", "ft", "in", "yd", "yds", "mi", "gal", "qt", "pt", "tbsp", "tsp", "km", "m", "cm", "mm", "kg",
    "g", "mg", "l", "ml", "hr", "hrs", "h", "min", "mins", "sec", "secs", "s", "wk", "wks", "mo", "mos", "yr", "yrs",
    "pc", "pcs", "pkg", "doz", "sq",
))
"""As ``BEFORE_NUMBER``, but before a number only behind one: "5 ft. 3 in.", not "He went in. 5 came out"."""

BEFORE_NAME = frozenset(("u.s", "u.k", "u.n", "e.u", "u.s.a", "d.c", "ph.d", "m.d", "b.a", "b.s", "m.a", "m.s"))
"""As an initial: abbreviations unless the word behind them opens a sentence."""

OPENERS = frozenset((
    "a", "after", "all", "also", "although", "an", "and", "as", "at", "because", "before", "both", "but", "by", "each",
    "every", "finally", "first", "for", "from", "hence", "her", "here", "his", "how", "however", "i", "if", "in", "it",
    "its", "let", "my", "next", "no", "not", "now", "of", "on", "one", "only", "or", "our", "since", "so", "some",
    "that", "the", "their", "then", "there", "therefore", "these", "they", "this", "those", "thus", "to", "two", "we",
    "what", "when", "where", "which", "while", "who", "with", "yes", "you", "your", "he", "she",
))
"""Words that begin a sentence and are no names."""
# fmt: on

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"

_CLOSERS = "\"')\\]”’»*_」』）］】》"

# A run of stops with what closes behind it. The look-behind keeps a search from starting anew within a run.
_MARK = re.compile(
    rf"(?<![.!?…])(?P<stops>[.!?…]+)[{_CLOSERS}]*(?=\s|$|[A-Z][a-z’']|[AI]\s|[{_CJK}])"
    rf"|(?P<wide>[。！？｡．।॥؟۔]+)[{_CLOSERS}]*|\n"
)

_LIST_MARKER = re.compile(
    r"[\s*#>•_(-]*(?:step\s+)?(?:\d{1,3}(?:\.\d{1,3}){0,3}|[a-z]|[ivx]{1,4})", re.IGNORECASE | re.ASCII
)

_LOOK_BACK = 40
"""Most characters before a stop that are looked at: no abbreviation or list marker is longer."""

_WORD_BEFORE = re.compile(r"[\s(\[\"'“‘*]")

_INITIAL = re.compile(r"[A-Z]")

_INITIALS = re.compile(r"[A-Z]|(?:[A-Za-z]\.)+[A-Za-z]")

# In front of a letter that is no initial: "option A." and "vitamin C." end a sentence.
_NAMES_A_LETTER = re.compile(r"\b(?:is|option|choice|answer|vitamin|point|and|or)\s+\S$")

_BEHIND_NUMBER = re.compile(r"\d\s*(?:[a-z]+\.?\s+)?\S+$")

_NO_BLANK = re.compile(r"\S")

_GOES_ON = re.compile(r"\s+(?:[\d$€£¥]|[a-z]|[=+*/×÷<>≈,;:&%-])")

_NEXT_WORD = re.compile(r"\s+[\"'“‘(\[*]*([A-Za-z]+)")

_CAPITAL = re.compile(r"[A-Z\"'“‘(\[*]")

_OPERATOR = re.compile(r"[a-z=+*/×÷<>≈-]")

_QUOTE = re.compile(r"[\"'”’»]")

# What a step consists of: anything but blanks and punctuation.
_CONTENT = re.compile(r"[^\s!-/:-@\[-`{-~。！？…—–]")


def _after_blanks(text: str, position: int) -> int:
    """Position of the first character from ``position`` on that is no blank."""
    found = _NO_BLANK.search(text, position)
    return found.start() if found else len(text)


def _stop_ends(text: str, start: int, mark: re.Match[str]) -> bool:
    """Whether one stop ends the sentence that began at ``start``."""
    before = text[max(start, mark.start() - _LOOK_BACK) : mark.start()]
    word = _WORD_BEFORE.split(before)[-1]
    if len(before) < _LOOK_BACK and _LIST_MARKER.fullmatch(before):
        return False
    if _after_blanks(text, mark.end()) == mark.end() < len(text):  # "3.Then he", but not "J.Smith"
        return bool(word) and not _INITIALS.fullmatch(word)
    small, goes_on = word.lower(), _GOES_ON.match(text, mark.end())
    if _INITIAL.fullmatch(word) or small in BEFORE_NAME:
        following = _NEXT_WORD.match(text, mark.end())
        opens = following is None or following[1].lower() in OPENERS or _NAMES_A_LETTER.search(before)
        return bool(opens and not goes_on)
    if goes_on and small in UNITS and small not in BEFORE_NUMBER and goes_on.group()[-1].isdigit():
        return not _BEHIND_NUMBER.search(before)
    if small in BEFORE_NUMBER or small in UNITS:
        return not goes_on
    return small not in ABBREVIATIONS


def _ends_sentence(text: str, start: int, mark: re.Match[str]) -> bool:
    """Whether a mark of punctuation or a newline ends the sentence that began at ``start``."""
    stops = mark["stops"] or mark["wide"]
    if stops is None:  # a newline
        return True
    next_one = _after_blanks(text, mark.end())
    blanks, after = text[mark.end() : next_one], text[next_one : next_one + 1]
    if mark["wide"]:
        is_decimal = stops == "．" and not blanks and after.isdigit()
        is_quoted = mark.group()[-1] in "」』" and not blanks and after in ("と", "っ")  # a quotation in a sentence
        return not is_decimal and not is_quoted
    if "…" in stops or ".." in stops:  # an ellipsis ends a sentence only where another begins
        return not after or "\n" in blanks or bool(_CAPITAL.match(after))
    if stops == "!" and mark.start() and text[mark.start() - 1].isdigit():  # 3! is 6
        return not _OPERATOR.match(after)
    if _QUOTE.search(mark.group()) and after.islower():  # "Stop!" he said
        return False
    return stops != "." or _stop_ends(text, start, mark)


def _sentence_ends(text: str) -> Iterator[int]:
    start = 0
    for mark in _MARK.finditer(text):
        if _ends_sentence(text, start, mark):
            start = mark.end()
            yield start


def _tiles(text: str, ends: Iterable[int]) -> list[tuple[int, int]]:
    """Spans that tile the text, cut at the ends and the blanks behind them; looks at every character at most twice.

    A piece without a letter or digit is no step of its own: it joins the step after it, the last one that before it.
    """
    starts, looked, has_content = [0], 0, False
    for end in ends:
        if end < looked:
            continue  # within blanks that an earlier end took
        has_content = has_content or _CONTENT.search(text, looked, end) is not None
        looked = _after_blanks(text, end)
        if has_content and starts[-1] < looked < len(text):
            starts.append(looked)
            has_content = False
    if len(starts) > 1 and not has_content and not _CONTENT.search(text, max(looked, starts[-1])):
        starts.pop()
    return list(zip(starts, [*starts[1:], len(text)], strict=True))


def split_steps(rationale: str, rule: str = "sentence") -> list[tuple[int, int]]:
    """Cut a rationale into steps, in time that is linear in its length unless a rule of one's own is slow.

    Args:
        rationale: the teacher's text.
        rule: ``sentence`` ends a step at a newline, and at . ! ? or an ellipsis before a blank, the end or a capital,
            and at a Chinese or Japanese stop, but not inside a number, an abbreviation or an initial, nor after a list
            marker or where the sentence goes on; ``newline``; ``paragraph`` (an empty line); anything else is a
            regular expression that matches the end of a step.

    Returns:
        Character spans that tile the text: joined they give back exactly the teacher's text. Blanks belong to the
        step before them. An empty text has no step, and a text of blanks has one.

    Raises:
        InputError: the rule is no regular expression.
    """
    if not rationale:
        return []
    if rule == "sentence":
        return _tiles(rationale, _sentence_ends(rationale))
    pattern = {"newline": r"\n", "paragraph": r"\n[^\S\n]*\n"}.get(rule, rule)
    try:
        matches = re.finditer(pattern, rationale)
    except re.error as error:
        raise InputError(f"rationales.step_rule={rule} is no regular expression: {error}") from error
    return _tiles(rationale, (match.end() for match in matches))


def n_grams(text: str, n: int) -> list[tuple[str, ...]]:
    """Of the words of a text in small letters, words being what stands between blanks; none where it has fewer."""
    words = text.lower().split()
    return list(zip(*(words[i:] for i in range(n)), strict=False))

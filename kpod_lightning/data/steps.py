"""Cuts a rationale into its steps, as character spans that tile the text; and the n-grams of a text."""

import re

from kpod_lightning.store.errors import InputError

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


def n_grams(text: str, n: int) -> list[tuple[str, ...]]:
    """Of the words of a text in small letters, words being what stands between blanks; none where it has fewer."""
    words = text.lower().split()
    return list(zip(*(words[i:] for i in range(n)), strict=False))

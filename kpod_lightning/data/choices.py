"""Labels of choices and yes or no, read off a statement or a whole text; what is denied there is no answer."""

import re
from collections.abc import Sequence

from kpod_lightning.data.numbers import plain_text

LABELS = tuple("ABCDEFG")
"""Labels of a choice where a problem names none."""

# What may stand behind a letter that is meant as one and would else be an article: "A because it fits".
_BEHIND = r"(?=\s*(?:$|[^\w\s])|\s+(?:because|since|as|is|for|and|but|or|so|due|which|given|rather|not|would|fits)\b)"

_DENIES = re.compile(
    r"(?:\bnot|n't|\brather than|\binstead of|\bneither|\bnor|\bexcept|\bunlike|\brules? out|\bexcludes?|\bthan)\s+"
    r"(?:(?:the|be|just|simply)\s+)?(?:(?:option|choice|letter|answer)\s+)?[(\[\"']*$",
    re.IGNORECASE,
)

_NAMES = re.compile(r"\b(?:vitamins?|hepatitis|plan|type|grade|class|team)\s+$", re.IGNORECASE)

_WRONG = re.compile(
    r"[)\]\"']?\s+(?:(?:is|are|was)\s+(?:wrong|incorrect|not|false|out|ruled|impossible)|isn't|fails|can't|cannot)\b",
    re.IGNORECASE,
)

_ALSO_DENIED = re.compile(r"[\s)\]\"',]*(?:(?:or|nor|and)\b)?[\s(\[\"']*")


class Labels:
    """Finds the labels of one problem in texts."""

    def __init__(self, labels: Sequence[str] | None) -> None:
        self.of = {plain_text(label).strip(): label for label in (labels or LABELS)}
        self.of.pop("", None)
        folded = {label.casefold() for label in self.of}
        self._is_folded = len(folded) == len(self.of)
        any_of = "|".join(re.escape(label) for label in sorted(self.of, key=len, reverse=True)) or r"(?!)"
        flags = re.IGNORECASE if self._is_folded else 0
        self._whole = re.compile(rf"\W*({any_of})\W*", flags)
        self._bracketed = re.compile(rf"[(\[]\s{{0,3}}({any_of})\s{{0,3}}[)\]]", flags)
        self._first = re.compile(rf"\W{{0,9}}({any_of})(?:[).:\]](?!\d)|\s+(?=(?:because|since|as)\b)|\s+-\s)", flags)
        self._named = re.compile(rf"\b(?:option|choice|letter)\s+[(\[\"']?({any_of})(?!\w)", re.IGNORECASE)
        self._bare = re.compile(rf"(?<![\w.,'])({any_of})(?!\w|[.,]\d|'[a-z])" if self._is_latin else f"({any_of})")

    @property
    def _is_latin(self) -> bool:
        """Whether blanks stand between words of the labels' script."""
        return not any("\u3040" <= character <= "\u9fff" for label in self.of for character in label)

    def _label(self, written: str) -> str | None:
        if written in self.of:
            return self.of[written]
        return next((label for plain, label in self.of.items() if plain.casefold() == written.casefold()), None)

    def _is_word(self, text: str, found: re.Match[str], is_after_is: bool) -> bool:
        """Whether a bare label is the article "a", the pronoun "I" or part of a name such as vitamin C."""
        if _NAMES.search(text[max(0, found.start() - 12) : found.start()]):
            return True
        if found[1] not in ("A", "a", "I", "i"):
            return found[1].isdigit() and not is_after_is
        if re.compile(_BEHIND).match(text, found.end()):
            return False
        # "The answer is A basket": a capital within a sentence is no article.
        before = text[max(0, found.start() - 3) : found.start()].rstrip(" (\"'*")
        return not (found[1] == "A" and is_after_is and before[-1:].isalpha())

    def _affirmed(self, text: str, pattern: re.Pattern[str], start: int, end: int) -> list[re.Match[str]]:
        found, denied_to = [], None
        for match in pattern.finditer(text, start, end):
            before = text[max(0, match.start() - 40) : match.start(1)]
            also = denied_to is not None and _ALSO_DENIED.fullmatch(text, denied_to, match.start(1)) is not None
            if _WRONG.match(text, match.end(1), end):
                continue
            if also or _DENIES.search(before):
                denied_to = match.end(1)
            else:
                found.append(match)
        return found

    def stated(self, text: str, start: int, end: int) -> str | None:
        """The label that a statement gives: in brackets, alone or first before one within words."""
        if found := self._whole.fullmatch(text, start, end) or self._first.match(text, start, end):
            return self._label(found[1])
        for pattern in (self._bracketed, self._named):
            if affirmed := self._affirmed(text, pattern, start, end):
                return self._label(affirmed[0][1])
        is_after_is = re.search(r"\bis\s*$", text[max(0, start - 6) : start], re.IGNORECASE) is not None
        bare = [m for m in self._affirmed(text, self._bare, start, end) if not self._is_word(text, m, is_after_is)]
        return self._label(bare[0][1]) if bare else None

    def anywhere(self, text: str) -> str | None:
        """The label of a text without a statement: alone, or the last one in brackets, else the last in words."""
        if whole := self._whole.fullmatch(text):
            return self._label(whole[1])
        for pattern in (self._bracketed, self._named):
            if found := self._affirmed(text, pattern, 0, len(text)):
                return self._label(found[-1][1])
        bare = [m for m in self._affirmed(text, self._bare, 0, len(text)) if not self._is_word(text, m, False)]
        return self._label(bare[-1][1]) if bare else None


_VERDICT = re.compile(r"\b(?:yes|no|true|false|untrue)\b", re.IGNORECASE)

_EITHER = re.compile(r"\b(?:yes|no|true|false)\s*(?:or|/)\s*(?:yes|no|true|false)\b", re.IGNORECASE)

# A verdict stands before the end, a mark or one of these; before another word "no" and "true" belong to that word.
_AFTER_VERDICT = re.compile(
    r"[ \t]*(?:$|[^\w\s-]|-\s|\n|\s+-)|\s+(?:because|since|as|for|it|its|it's|they|he|she|we|you|i|this|that|that's"
    r"|these|those|there|there's|the|a|an|and|but|so|if|in|when|while|however|therefore|thus|hence|due|or|to|at|by|not|only|is|was"
    r"|then|now|given|overall|about|according|of|on|with|both|all|most|my|his|her|their|our)\b",
    re.IGNORECASE,
)

_IDIOM = re.compile(r"\s+(?:longer|more|one|doubt|matter|other|way|less|problem|need|reason)\b|\.\s?\d", re.IGNORECASE)

_NEGATES = re.compile(
    r"(?:\bnot|n't|\bnever|\bcannot|\bneither|\bnothing|\bhardly|\bfar from|\bwrong to)\s+"
    r"(?:(?:be|is|it|it's|this|that|the case|think|believe|say|hold|holds|being|about it|of (?:it|them|these)"
    r"|really|quite|always|entirely|actually|necessarily|strictly"
    r"|completely|exactly|generally|usually|simply|at all|a|the|claim|statement)\s+){0,6}[\"'*]*$",
    re.IGNORECASE,
)

_FLIPPED = {"yes": "no", "no": "yes"}


def _verdicts(text: str, start: int, end: int) -> list[tuple[int, str]]:
    """Position and meaning of each yes, no, true and false that is a verdict."""
    either = [(m.start(), m.end()) for m in _EITHER.finditer(text, start, end)]
    skipped = iter([*either, (end + 1, end + 1)])
    current = next(skipped)
    found = []
    for match in _VERDICT.finditer(text, start, end):
        while match.start() >= current[1] and current[0] <= end:
            current = next(skipped)
        if current[0] <= match.start() < current[1]:
            continue
        word = match.group().lower()
        if word in ("no", "true", "false") and not _AFTER_VERDICT.match(text, match.end(), end):
            continue
        if word == "no" and _IDIOM.match(text, match.end(), end):
            continue
        meaning = "yes" if word in ("yes", "true") else "no"
        if _NEGATES.search(text[max(start, match.start() - 40) : match.start()]):
            meaning = _FLIPPED[meaning]
        found.append((match.start(), meaning))
    return found


def stated_verdict(text: str, start: int, end: int) -> str | None:
    """The first verdict of a statement. At its start "no" is one before any word: "the answer is no dogs can fly"."""
    opening = re.compile(r"\W{0,9}(yes|no|true|false)\b", re.IGNORECASE).match(text, start, end)
    if opening and not _IDIOM.match(text, opening.end(), end) and not _EITHER.match(text, opening.start(1), end):
        return "yes" if opening[1].lower() in ("yes", "true") else "no"
    verdicts = _verdicts(text, start, end)
    return verdicts[0][1] if verdicts else None


def verdict_anywhere(text: str) -> str | None:
    """The verdict that a text opens with, else its last one."""
    verdicts = _verdicts(text, 0, len(text))
    if not verdicts:
        return None
    opens = not re.search(r"\w", text[: verdicts[0][0]])
    return verdicts[0][1] if opens else verdicts[-1][1]

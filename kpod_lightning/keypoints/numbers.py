"""Numbers: tokens over digits and arithmetic operators weigh more than the words between them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kpod_lightning.keypoints.marked import Marked, Span
from kpod_lightning.store.bounds import at_least, check


@dataclass(frozen=True, kw_only=True)
class NumbersSettings:
    """The block ``numbers:``: what tokens of a rationale weigh."""

    high: float = field(default=1.0, metadata=at_least(0))
    """Weight of a token over a digit or an arithmetic operator."""
    low: float = field(default=0.3, metadata=at_least(0))
    """Weight of every other token of the rationale. No paper states one. 0.3 is the mean that KPOD's budget gives
    (``weights.share``); at 0 a student never learns the words between the numbers."""

    def __post_init__(self) -> None:
        check(self, "numbers")


DIGIT = r"[\d²³¹¼-¾⅐-⅞]"
ARITHMETIC = re.compile(
    # A number, with what groups or parts its digits, and a per cent sign behind it.
    rf"{DIGIT}+(?:[.,:]{DIGIT}+)*(?:\s?%)?"
    # Signs that are an operator wherever they stand.
    r"|[+=×÷−√^±≈]"
    # Those that are also a hyphen, an emphasis, a bullet or a letter: between blanks, or between two numbers.
    r"|(?<=\S[ \t])[*/](?=[ \t]\S)"
    rf"|(?:(?<=[\d)\]%])|(?<=[\d)\]%]\s))(?:\*\*|[-–—*/xX·⋅∙])(?=\s?[-−$€£(\[]*{DIGIT})"
    # The sign of a negative number.
    rf"|(?<![\w)\]-])-(?=[$€£]?{DIGIT})"
)
"""Digits and arithmetic operators of a text."""


class Numbers(Marked):
    """Tokens over digits and arithmetic operators weigh more than the words between them."""

    Settings = NumbersSettings

    def spans(self, context: Any) -> Iterator[Sequence[Span]]:
        return ([match.span() for match in ARITHMETIC.finditer(text)] for text in context.texts)

"""Progress on anything that takes seconds, on the first rank: a bar on a terminal, elsewhere a line every minute."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.progress import track

from kpod_lightning.distributed.console import console, say
from kpod_lightning.distributed.ranks import is_first

T = TypeVar("T")

FEW = 2000
"""Rows that are done before a bar would be drawn."""

PERIOD = 60.0
"""Seconds between two lines of a log."""


class Pace:
    """Says every minute how much is done and how long the rest will take; nothing of what takes less than one.

    Args:
        what: is done, e.g. ``tokenising``.
        share: that was done before, in [0, 1].
    """

    def __init__(self, what: str, share: float = 0.0) -> None:
        self.what, self.first = what, share
        self.began = self.said = time.monotonic()

    def at(self, share: float, where: str) -> None:
        """Print a line if the last one is a minute old.

        Args:
            share: that is done now, in [0, 1].
            where: this is, e.g. ``row 20 of 80``.
        """
        now = time.monotonic()
        if now - self.said < PERIOD or not is_first() or console.is_terminal:
            return
        self.said = now
        line = f"{self.what}: {where}, {share:.0%} done"
        if share > self.first:
            line += f", about {duration((1 - share) * (now - self.began) / (share - self.first))} left"
        say(line)


def duration(seconds: float) -> str:
    """``40 s``, ``12 min`` or ``2 h 5 min``."""
    if round(seconds) < 60:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def told(rows: Iterable[T], what: str, number: int) -> Iterator[T]:
    """The rows, with a line every minute where there is no terminal.

    Args:
        number: how many rows there are.
    """
    pace = Pace(what)
    for done, row in enumerate(rows):
        pace.at(done / max(1, number), f"{done} of {number}")
        yield row


def shown(rows: Iterable[T], what: str, number: int, *, few: int = FEW, kept: bool = False) -> Iterable[T]:
    """The rows, with a bar on a terminal where there are many, and elsewhere with a line every minute.

    Args:
        number: how many rows there are.
        few: rows that are done before a bar would be drawn.
        kept: whether the bar, or in a log its last state, stays.
    """
    hidden = number < few or not is_first()
    return track(told(rows, what, number), what, number, console=console, transient=not kept, disable=hidden)

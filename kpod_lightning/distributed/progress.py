"""Progress on anything that takes seconds, on the first rank."""

from collections.abc import Iterable
from typing import TypeVar

from rich.progress import track

from kpod_lightning.distributed.console import console
from kpod_lightning.distributed.ranks import is_first

T = TypeVar("T")

FEW = 2000
"""Rows that are done before a bar would be drawn."""


def shown(rows: Iterable[T], what: str, number: int) -> Iterable[T]:
    """The rows, with a bar where there are many.

    Args:
        number: how many rows there are.
    """
    quiet = number < FEW or not is_first()
    return track(rows, description=what, total=number, console=console, transient=True, disable=quiet)

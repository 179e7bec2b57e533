"""Signals that ask a command to stop, caught from its first moment on: this file imports nothing slow.

A command goes through three times. While its files are imported, a signal is only noted. While it reads its settings,
a signal ends it, by an exception. While it works, a signal is noted again, and the work stops where nothing is lost
(preemption.py). A second Ctrl-C ends it at once; that is safe, as a kill is.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
"""SIGUSR1: what `kpod submit` has Slurm send before the time limit or a preemption. SIGTERM: what ends any process.
SIGINT: Ctrl-C."""

received: set[int] = set()
"""Numbers of the signals that came since the command began."""


class Ended(KeyboardInterrupt):
    """A signal ends the command. No library takes it for an error of its own.

    It is not KeyboardInterrupt itself: if that passes through an extension module that is being imported, Python kills
    itself by SIGINT when it ends, although the exception was caught.
    """


def note(number: int, _: Any) -> None:
    received.add(number)
    # A terminal sends Ctrl-C to every rank, and the process that started them passes it on: so ranks count it once.
    if number == signal.SIGINT and "RANK" not in os.environ:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def end(number: int, _: Any) -> None:
    note(number, None)
    for other in SIGNALS:
        if other != signal.SIGINT or "RANK" in os.environ:
            signal.signal(other, signal.SIG_IGN)  # the command is ending
    raise Ended


@contextmanager
def handled_by(handler: Callable[[int, Any], None]) -> Iterator[None]:
    earlier = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, before in earlier.items():
            # Python gives up its handlers while it ends: a late signal would turn a finished command into a failed one.
            late = before is note or number == signal.SIGUSR1
            signal.signal(number, signal.SIG_IGN if late else before)


def note_from_now_on() -> None:
    """Note signals until the command has begun."""
    for number in SIGNALS:
        signal.signal(number, note)


def is_command(name: str) -> bool:
    """Whether a module is imported to be the program: by ``python -m kpod_lightning`` or by the script ``kpod``.

    Args:
        name: ``__name__`` of the module.
    """
    return name == "__main__" or Path(sys.argv[0]).stem == "kpod"

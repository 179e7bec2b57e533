"""Entries of the cache: folders that runs beside each other share, each with the SHA-256 of its files."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kpod_lightning.store.digests import SUMS, holds, sums
from kpod_lightning.store.files import remove, writing
from kpod_lightning.store.locks import LEASE, one_writer
from kpod_lightning.store.reading import shown


def kept(entry: Path, say: Callable[[str], None]) -> bool:
    """Whether an entry is there, whole and as it was made. A damaged one is removed, so that it is made again.

    Args:
        entry: a folder that ``keeping`` made.
        say: told, in a line, of an entry that is removed.

    Raises:
        InputError: it cannot be read, or a damaged one cannot be removed.
    """
    if holds(entry):
        return True
    if not entry.exists():
        return False
    with one_writer(entry, _lock(entry), seconds=LEASE):
        if holds(entry):  # another process has made it again
            return True
        say(f"{shown(entry)} is damaged (other files, or others' SHA-256, than {SUMS} lists): it is made again")
        damaged = entry.with_name(f".{entry.name}.{secrets.token_hex(4)}.damaged")
        entry.replace(damaged)  # in one step, since others may look at it
        remove(damaged)
    return False


@contextmanager
def keeping(entry: Path) -> Iterator[Path]:
    """Make an entry aside, in a new folder; it gets its name once it is whole.

    Several processes may make the same entry at once; the first one's stays.

    Raises:
        InputError: it cannot be written.
    """
    with writing(entry, among_others=True) as aside:
        aside.mkdir()
        yield aside
        (aside / SUMS).write_bytes(sums(aside).encode("utf-8", "surrogateescape"))


def _lock(entry: Path) -> Path:
    return entry.with_name(f".{entry.name}.lock")

"""Entries of the cache: folders that runs beside each other share, each with the SHA-256 of its files."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kpod_lightning.store.digests import SUMS, holds, sums
from kpod_lightning.store.files import remove, unwritable, writing
from kpod_lightning.store.locks import LEASE, Busy, one_writer, writer_of
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


def may_make(entry: Path, held: ExitStack, maker: str) -> bool:
    """Whether this process is to make an entry, which others then wait for; False while another one makes it.

    Look for the entry again afterwards: the maker before may have finished in between.

    Args:
        held: what keeps the lock until the entry is made; a killed process loses it.
        maker: name of who makes it, for the line of those that wait.

    Raises:
        InputError: nothing can be written there.
    """
    lock = _making(entry)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(lock.parent, error) from error
    try:
        held.enter_context(one_writer(entry, lock, seconds=0.0, writer=maker))
    except Busy:
        return False
    return True


def maker_of(entry: Path) -> str:
    """The name of who makes an entry now."""
    return writer_of(_making(entry))


def _making(entry: Path) -> Path:
    return entry.with_name(f".{entry.name}.making")


def _lock(entry: Path) -> Path:
    return entry.with_name(f".{entry.name}.lock")

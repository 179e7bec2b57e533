"""One writer of a folder or file at a time; a second one is told who writes."""

import errno
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from kpod_lightning.store.errors import InputError
from kpod_lightning.store.reading import shown

BUSY = "is being written by"
"""What the line of a command says that found another writer."""

LEASE = 180.0
"""Seconds that a requeued job waits: a file server needs about 90 to see that the node of the killed one is dead."""


class Busy(InputError):
    """Another process holds the lock."""


def patience() -> float:
    """Seconds to wait for an earlier writer: none, but in a job that Slurm has put back into its queue."""
    return LEASE if os.environ.get("SLURM_RESTART_COUNT", "0") != "0" else 0.0


@contextmanager
def one_writer(target: Path, lock: Path, *, seconds: float | None = None, writer: str = "") -> Iterator[None]:
    """Hold the lock on what is written, until the end of the block or of the process, however it ends.

    The lock is the kernel's (flock), which a killed process cannot keep; forked workers do not inherit it. Where the
    file system has none, the lock is a file that names its holder: one of a dead process of this machine is taken
    over, one of another machine stays until it is deleted.

    Args:
        target: what is written; for the message.
        lock: file of the lock, in a folder that exists. Links are followed, so that all names of it are one lock.
        seconds: how long to wait for another writer; ``patience()`` by default.
        writer: a name that others read in the lock (``writer_of``).

    Raises:
        Busy: another process holds it.
        InputError: the file cannot be made.
    """
    path = lock.parent.resolve() / lock.name
    # Not a thread's but the process's: a file of samples is closed by another thread than opened it.
    held = FileLock(path, timeout=patience() if seconds is None else seconds, thread_local=False)
    try:
        with warnings.catch_warnings(action="ignore"):  # that there is no flock is said when it matters
            held.acquire()
    except Timeout as error:
        raise Busy(f"{shown(target)} {BUSY} {_holder(path)}: {_way_out(held, path)}") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{shown(path)}: a link where a lock is expected; remove it") from error
        raise InputError(
            f"{shown(path)}: {error.strerror or error}; permissions or space there, then repeat"
        ) from error
    try:
        if not isinstance(held, SoftFileLock):  # which writes the same by itself
            path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n{writer}\n", encoding="utf-8")
        yield
    finally:
        path.unlink(missing_ok=True)  # before the release: who waits sees that the file has lost its name
        held.release()


def is_held(lock: Path) -> bool:
    """Whether another process holds a lock now. A file that a killed one has left is removed."""
    if not lock.exists():
        return False
    try:
        with one_writer(lock, lock, seconds=0.0):
            return False
    except Busy:
        return True


def writer_of(lock: Path) -> str:
    """The name that the holder of a lock has given; where it gave none, e.g. without flock, the file to look at."""
    try:
        written = lock.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):  # it is just being made or removed
        written = []
    return written[2] if len(written) > 2 and written[2] else f"the process that holds {shown(lock)}"


def _holder(path: Path) -> str:
    """Who holds a lock, as the file says."""
    try:
        pid, host, *_ = path.read_text(encoding="utf-8").splitlines()
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(path.stat().st_mtime))
    except (OSError, ValueError):  # it is just being made or removed
        return "another process"
    return f"process {pid} on {host} since {since}"


def _way_out(held: object, path: Path) -> str:
    if isinstance(held, SoftFileLock):
        return f"wait for it or stop it; if it was killed on another machine, delete {shown(path)}"
    return "wait for it, or stop it"

"""SHA-256 of a file, and of a folder with all that lies in it."""

import hashlib
import os
from pathlib import Path
from typing import Any

from kpod_lightning.store.errors import InputError
from kpod_lightning.store.reading import opened, shown

SUMS = "SHA256SUMS"
"""File of a folder that lists the SHA-256 of the others, as ``sha256sum -c`` reads it."""


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes; of a folder, that of the names of its files and of their SHA-256.

    A folder never has the digest of a file. Links are followed; where a file lies tells nothing, nor does when it was
    written. About 1.5 GB a second: every byte is read, since a disk that flips one leaves size and time as they were.

    Raises:
        InputError: something cannot be read.
    """
    if not path.is_dir():
        with opened(path) as file:
            handle: Any = file  # a buffered reader, whose type says less
            return hashlib.file_digest(handle, "sha256").hexdigest()
    return hashlib.sha256(("folder\n" + sums(path)).encode("utf-8", "surrogateescape")).hexdigest()


def sums(folder: Path) -> str:
    """The lines of ``SHA256SUMS``: every other file of the folder, by name.

    Raises:
        InputError: something cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"{shown(Path(error.filename))}: cannot be read ({error.strerror})") from error

    found = [Path(place, name) for place, _, names in os.walk(folder, onerror=refuse) for name in names]
    return "".join(f"{digest(file)}  {file.relative_to(folder)}\n" for file in sorted(found) if file.name != SUMS)


def holds(folder: Path) -> bool:
    """Whether a folder has exactly the files that its ``SHA256SUMS`` lists, as they were.

    Raises:
        InputError: something cannot be read.
    """
    listed = folder / SUMS
    if not listed.is_file():
        return False
    with opened(listed) as file:
        return file.read() == sums(folder).encode("utf-8", "surrogateescape")

"""Files that exist whole or not at all."""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from kpod_lightning.store.errors import InputError

ASSETS = Path(str(files("kpod_lightning"))) / "assets"
"""Files that travel with the package: students, prompts, templates, split manifests, job scripts."""


@contextmanager
def writing(path: Path, *, among_others: bool = False) -> Iterator[Path]:
    """Write to a temporary path, fsync, rename: the file (or folder) exists whole or not at all.

    Args:
        path: of the file or folder.
        among_others: several processes may write ``path`` at once, so take a random temporary path; the last file
            stays, or the first folder. Without it, the one writer reuses the temporary path that a kill left behind.

    Raises:
        InputError: the disk is full or the folder cannot be written, or a folder has the name of the file; an older
            file stays as it is.
    """
    own = f".{secrets.token_hex(4)}" if among_others else ""
    aside = path.with_name(f".{path.name}{own}.part")
    try:
        if aside.is_dir():
            shutil.rmtree(aside)
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        for file in [aside] if aside.is_file() else [f for f in aside.rglob("*") if f.is_file()]:
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        if path.is_dir() and not aside.is_dir():  # e.g. --out FOLDER, where a file is meant: all in it would be lost
            raise InputError(f"{path}: a folder, where a file is to be written; name the file")
        if path.is_dir() and not among_others:
            shutil.rmtree(path)
        try:
            aside.replace(path)
        except OSError:
            if not (among_others and path.is_dir()):
                raise
            shutil.rmtree(aside)  # another run was faster, and its folder may be in use
        sync_names(path.parent)
    except (OSError, InputError) as error:
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)
        if isinstance(error, InputError):
            raise
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> InputError:
    """The line for a file that could not be written, e.g. because the disk is full."""
    return InputError(f"{path}: {error.strerror or error}; free space or permissions there, then repeat")


@contextmanager
def appending(path: Path) -> Iterator[None]:
    """For writes to a file that grows, which may end with half a row.

    Raises:
        InputError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


def sync_names(folder: Path) -> None:
    """Have the disk keep the names of a folder's files, so that a renaming outlives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there. Of a link, the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with writing(path) as aside:
        aside.write_text(text, encoding="utf-8")


def copy(source: Path, target: Path, *, among_others: bool = False) -> None:
    """Copy a file, or a folder with all that is in it."""
    with writing(target, among_others=among_others) as aside:
        if source.is_dir():
            shutil.copytree(source, aside)
        else:
            shutil.copyfile(source, aside)


def fingerprint(*parts: Any) -> str:
    """SHA-256 of settings and of the fingerprints of inputs."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

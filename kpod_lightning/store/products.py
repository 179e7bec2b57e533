"""Files and folders written where a user says: one replaces only what this project wrote there and nobody changed."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kpod_lightning.store.digests import digest
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import write_text, writing
from kpod_lightning.store.locks import one_writer
from kpod_lightning.store.reading import read_object, shown


@contextmanager
def product(path: Path, kind: str) -> Iterator[Path]:
    """Write a file or folder that a user has named, aside; at the end of the block it gets its name.

    Beside it a hidden file, ``.NAME.kpod.json``, keeps its kind and SHA-256, by which the next one knows that it may
    replace it.

    Args:
        kind: of what is written, e.g. ``student``; one of another kind is not replaced.

    Raises:
        InputError: something else lies there, another process writes it, or nothing can be written there.
    """
    path = Path(os.path.abspath(path))
    refuse_others(path, kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{shown(path)}: cannot be written ({error.strerror}); take another --out") from error
    with one_writer(path, path.with_name(f".{path.name}.lock")):
        refuse_others(path, kind)
        with writing(path) as aside:
            yield aside
            made = digest(aside)
            refuse_others(path, kind)  # it may have been changed meanwhile
            # Both are known: a process that is killed before the file has its name leaves the earlier one.
            write_text(_record(path), json.dumps({"kind": kind, "sha256": [made, *_known(path, kind)[:1]]}) + "\n")


def refuse_others(path: Path, kind: str) -> None:
    """Refuse to write a product where something else lies.

    Raises:
        InputError: a link, a device, the folder one works in or one around it, a run folder, a file or folder that
            this project has not written or that was changed since.
    """
    name = shown(path)
    if not path.name:
        raise InputError(f"{name}: the root of the file system, where a product is to be written; take another --out")
    if path.is_symlink():
        raise InputError(f"{name}: a link; write the path that it leads to, or take another --out")
    try:
        exists = os.path.lexists(path)
        real = path.resolve()
    except (OSError, RuntimeError) as error:
        raise InputError(f"{name}: cannot be written ({error}); take another --out") from error
    if not exists:
        return
    if any(place.resolve().is_relative_to(real) for place in (Path.cwd(), Path.home())):
        raise InputError(f"{name}: holds the current or the home folder and is not replaced; take another --out")
    if path.is_dir():
        if not any(path.iterdir()):
            return
        if (path / "config.yaml").exists() and (path / "provenance.json").exists():
            raise InputError(f"{name}: a run folder, which nothing replaces; take another --out")
    elif not path.is_file():
        raise InputError(f"{name}: a device or a pipe; take another --out")
    elif not path.stat().st_size:
        return
    if digest(path) not in _known(path, kind):
        raise InputError(
            f"{name} is there, and is no unchanged {kind} that kpod wrote: move it away, or take another --out"
        )


def _record(path: Path) -> Path:
    return path.with_name(f".{path.name}.kpod.json")


def _known(path: Path, kind: str) -> list[str]:
    """SHA-256 of the product that lies at ``path``; of two, where one was about to replace the other."""
    record = _record(path)
    if not record.is_file():
        return []
    content: dict[str, Any] = read_object(record)
    known = content.get("sha256")
    return [str(one) for one in known] if content.get("kind") == kind and isinstance(known, list) else []

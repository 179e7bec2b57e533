"""provenance.json of a run folder: what each artefact was made from, its SHA-256, and numbers for the report."""

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kpod_lightning.store.digests import digest
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import write_text
from kpod_lightning.store.reading import kind_of, read_object, shown

LAYOUT = 2
"""Number of the way in which artefacts are named and fingerprinted; 1 had a flat package and a fixed list of arrows."""

PACKAGES = ("kpod_lightning", "torch", "lightning", "transformers", "tokenizers", "peft", "numpy")

NAME = "provenance.json"
OWN = "provenance_sha256"
"""Key of the SHA-256 of all the others."""

VALUES = {"versions": str, "artefacts": str, "sha256": str, "counts": int, "origins": int}
"""Objects in it, with the type of their values."""

WAY_OUT = "restore it; or delete it, and the run's command makes everything in the folder again"


def new_provenance() -> dict[str, Any]:
    """Of a run in which nothing has been made yet."""
    return {
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "layout": LAYOUT,
        "artefacts": {},
        "sha256": {},
    }


def _own_sha256(content: dict[str, Any]) -> str:
    others = {name: value for name, value in content.items() if name != OWN}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()


def read_provenance(folder: Path) -> dict[str, Any] | None:
    """What ``write_provenance`` wrote; None where there is none. ``artefacts`` and ``sha256`` are always there.

    Raises:
        InputError: it is damaged: broken, of other content than was written, or something has another type.
    """
    path = folder / NAME
    if not path.exists() and not path.is_symlink():
        return None
    try:
        content = read_object(path)
    except InputError as error:
        raise InputError(f"{error}; {WAY_OUT}") from error
    for name, kind in VALUES.items():
        found = content.setdefault(name, {}) if name in ("artefacts", "sha256") else content.get(name, {})
        if not isinstance(found, dict) or not all(type(value) is kind for value in found.values()):
            raise InputError(f"{shown(path)}: {name} is no object of {kind.__name__} values; {WAY_OUT}")
    outside = [name for name in content["artefacts"] if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:  # artefacts are removed by name
        raise InputError(f"{shown(path)}: the artefact {outside[0]} lies outside of the run folder; {WAY_OUT}")
    layout = content.setdefault("layout", 1)
    if type(layout) is not int:
        raise InputError(f"{shown(path)}: layout is a number, not a {kind_of(layout)}; {WAY_OUT}")
    if OWN in content and content[OWN] != _own_sha256(content):
        raise InputError(f"{shown(path)}: damaged, its content is not what was written; {WAY_OUT}")
    return content


def write_provenance(folder: Path, content: dict[str, Any]) -> None:
    write_text(folder / NAME, json.dumps(content | {OWN: _own_sha256(content)}, indent=2) + "\n")


def is_damaged(folder: Path, provenance: dict[str, Any], name: str) -> bool:
    """Whether a file or folder of the run is not what the run wrote: torn, flipped, or another run's.

    One without a SHA-256, of an earlier version, is taken as it is.

    Raises:
        InputError: it is missing, or cannot be read.
    """
    known = provenance["sha256"].get(name)
    return known is not None and digest(folder / name) != known


def refuse_damaged(folder: Path, provenance: dict[str, Any], name: str) -> None:
    """Stop where an artefact is not what the run wrote.

    Raises:
        InputError: it is not, is missing, or cannot be read.
    """
    if is_damaged(folder, provenance, name):
        raise InputError(
            f"{shown(folder / name)}: damaged or replaced, its SHA-256 is not that of what the run wrote: restore it, "
            f"or repeat the run's command with --redo, which makes {name} again"
        )

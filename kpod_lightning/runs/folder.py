"""The run folder: artefacts, fingerprints, atomic writes. What is missing is what is done."""

import json
import platform
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import yaml

from kpod_lightning.config import RunConfig, differences, that_matter, to_dict
from kpod_lightning.data.rationales import Counts
from kpod_lightning.distributed.preemption import stop_if_asked
from kpod_lightning.distributed.ranks import first_rank
from kpod_lightning.methods.base import load_experiment
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import copy, write_text, writing
from kpod_lightning.store.json_lines import load_jsonl
from kpod_lightning.store.locks import one_writer
from kpod_lightning.store.reading import shown

T = TypeVar("T")


LAYOUT = 2
"""Number of the way in which artefacts are named and fingerprinted; 1 had a flat package and a fixed list of arrows."""

LOCK = ".lock"
"""File of a run folder that is there while a process writes in it."""
LEFT_BY_A_KILL = {LOCK, ".config.yaml.part"}
"""What a folder holds whose first process was killed before it had written anything."""


@dataclass(frozen=True)
class Run:
    """A run folder and the settings that it was made with."""

    folder: Path
    config: RunConfig
    redo: bool = False

    @property
    def provenance_path(self) -> Path:
        return self.folder / "provenance.json"

    @cached_property
    def provenance(self) -> dict[str, Any]:
        if self.provenance_path.is_file():
            return json.loads(self.provenance_path.read_text(encoding="utf-8")) | {"layout": LAYOUT}
        names = ("kpod_lightning", "torch", "lightning", "transformers", "tokenizers", "peft", "numpy")
        return {
            "python": platform.python_version(),
            "versions": {name: version(name) for name in names},
            "layout": LAYOUT,
            "artefacts": {},
        }

    def cache(self, inputs: str) -> Path:
        """Where runs beside this one share what was made from the same inputs."""
        return self.folder.parent / ".cache" / inputs

    def artefact(
        self, name: str, inputs: str, make: Callable[[], T], save: Callable[[Path, T], Any], *, shared: bool = False
    ) -> bool:
        """Make ``folder/name`` unless it is there with the fingerprint ``inputs``. Returns whether it was made.

        A shared file is kept under its fingerprint in ``.cache`` beside the run folders, and taken from there by
        every run with the same inputs.

        Args:
            make: the content; every rank calls it.
            save: writes the content to a path aside, from where it is renamed; rank 0 alone calls it.

        Raises:
            InputError: it was made from other inputs; only ``redo`` replaces it.
            Preempted: it is made, and the run was asked to stop.
        """
        path = self.folder / name
        kept = self.cache(inputs) / path.name

        def there() -> str:
            made_from = self.provenance["artefacts"].get(name)
            if path.exists() and made_from == inputs:
                return "here"
            if path.exists() and made_from is not None and not self.redo:
                raise InputError(
                    f"{path} was made from other problems, rationales or another student, which have changed since: "
                    "take another --run, or --redo to make again what depends on them"
                )
            return "kept" if shared and kept.is_file() else "nowhere"

        found = first_rank(there)
        if found == "here":
            return False
        content = make() if found == "nowhere" else None

        def write() -> None:
            if found == "kept":
                copy(kept, path)
            else:
                with writing(path) as aside:
                    save(aside, content)  # type: ignore[arg-type]
                if shared:
                    copy(path, kept, among_others=True)
            self.provenance["artefacts"][name] = inputs
            self.write_provenance()

        first_rank(write)
        stop_if_asked()
        return True

    def forget_others(self, wanted: Collection[str]) -> None:
        """Remove artefacts that the settings no longer ask for."""

        def remove() -> None:
            others = [name for name in self.provenance["artefacts"] if name not in wanted]
            for name in others:
                del self.provenance["artefacts"][name]
                path = self.folder / name
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            if others:
                self.write_provenance()

        first_rank(remove)

    def count(self, counts: Counts | dict[str, int]) -> None:
        """Keep numbers for the report; they are written with the next artefact."""
        if isinstance(counts, Counts):
            self.provenance["origins"] = counts.origins
            counts = counts.named()
        self.provenance.setdefault("counts", {}).update(counts)

    def write_provenance(self) -> None:
        write_text(self.provenance_path, json.dumps(self.provenance, indent=2) + "\n")

    def records(self, name: str) -> list[dict[str, Any]]:
        """Graded outputs: ``test-before``, ``test``, ``validation`` or an out-of-distribution set."""
        return load_jsonl(self.folder / "predictions" / f"{name}.jsonl")

    @property
    def metrics(self) -> list[dict[str, Any]]:
        path = self.folder / "metrics.jsonl"
        return load_jsonl(path) if path.is_file() else []


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Be the one writer of a run folder, which is made where there is none.

    Raises:
        InputError: another process writes there, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead to each other
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{shown(folder)}: cannot be a run folder ({reason}); take another --run") from error
    with one_writer(folder, folder / LOCK):
        yield


def changed_settings(folder: Path, config: RunConfig) -> list[str]:
    """In what these settings differ from those that the folder was made with, where it is a run folder."""
    path = folder / "config.yaml"
    if not path.is_file():
        return []
    return differences(that_matter(to_dict(config)), that_matter(yaml.safe_load(path.read_text(encoding="utf-8"))))


def open_run(folder: Path, config: RunConfig, *, redo: bool = False) -> Run:
    """Make the folder, or continue it where it was made with the same settings.

    Raises:
        InputError: it was made with other settings, which are listed; or it is something else's folder.
    """
    path = folder / "config.yaml"
    settings = to_dict(config)
    if path.is_file():
        if not redo:
            refuse_other_layout(folder)
        changed = changed_settings(folder, config)
        if changed and not redo:
            raise InputError(
                f"{folder} was made with other settings ({'; '.join(changed)}): "
                "take another --run, or --redo to make again what depends on them"
            )
        if not changed:
            return Run(folder, config, redo)
    elif folder.exists() and any(path.name not in LEFT_BY_A_KILL for path in folder.iterdir()):
        raise InputError(f"{folder} is not empty and no run folder: take another --run")
    write_text(path, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    return Run(folder, config, redo)


def refuse_other_layout(folder: Path) -> None:
    """Stop where a run folder was written by a version that named or made its artefacts otherwise.

    Raises:
        InputError: it was.
    """
    path = folder / "provenance.json"
    written = json.loads(path.read_text(encoding="utf-8")).get("layout", 1) if path.is_file() else LAYOUT
    if written != LAYOUT:
        raise InputError(
            f"{folder} has layout {written} of an earlier version, and this one writes layout {LAYOUT}: "
            "take another --run, or --redo to make it again"
        )


def load_run_config(folder: Path) -> RunConfig:
    """The settings that a run folder was made with, finished or not.

    Raises:
        InputError: it is no run folder.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise InputError(f"{folder}: no config.yaml, so no run folder")
    refuse_other_layout(folder)
    return load_experiment(path, [])


def load_run(path: str | Path) -> Run:
    """A finished run folder: settings, records, metrics; its student is ``load_student(run.folder / "student")``.

    Raises:
        InputError: there is no finished run.
    """
    folder = Path(path)
    config = load_run_config(folder)
    if not (folder / "report.html").is_file():
        raise InputError(f"{folder}: the run has not ended; repeat its command to continue it")
    return Run(folder, config)

"""The run folder: artefacts, fingerprints, atomic writes. What is missing is what is done."""

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import yaml

from kpod_lightning.config import RunConfig, differences, that_matter, to_dict
from kpod_lightning.data.rationales import Counts
from kpod_lightning.distributed.console import say
from kpod_lightning.distributed.preemption import stop_if_asked
from kpod_lightning.distributed.ranks import first_rank
from kpod_lightning.methods.base import load_experiment
from kpod_lightning.store.digests import digest
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import copy, remove, write_text, writing
from kpod_lightning.store.json_lines import load_jsonl
from kpod_lightning.store.kept import keeping, kept, maker_of, may_make
from kpod_lightning.store.locks import one_writer
from kpod_lightning.store.provenance import (
    LAYOUT,
    is_damaged,
    new_provenance,
    read_provenance,
    refuse_damaged,
    write_provenance,
)
from kpod_lightning.store.reading import read_yaml, shown

T = TypeVar("T")

CONFIG, REPORT = "config.yaml", "report.html"
BLOCKS = {"data", "student", "optim", "evaluation"}
"""Blocks of settings that every config.yaml of a run has; one of another program does not."""

LOOK, SILENCE = 0.25, 2.0
"""Seconds between two looks at what another run makes, and until a line says that it is waited for."""

LOCK = ".lock"
"""File of a run folder that is there while a process writes in it."""
LEFT_BY_A_KILL = {LOCK, f".{CONFIG}.part"}
"""What a folder holds whose first process was killed before it had written anything."""


@dataclass(frozen=True)
class Run:
    """A run folder and the settings that it was made with."""

    folder: Path
    config: RunConfig
    redo: bool = False

    @cached_property
    def provenance(self) -> dict[str, Any]:
        return (read_provenance(self.folder) or new_provenance()) | {"layout": LAYOUT}

    def cache(self, inputs: str) -> Path:
        """Where runs beside this one share what was made from the same inputs."""
        return self.folder.parent / ".cache" / inputs

    def artefact(
        self, name: str, inputs: str, make: Callable[[], T], save: Callable[[Path, T], Any], *, shared: bool = False
    ) -> bool:
        """Make ``folder/name`` unless it is there with the fingerprint ``inputs``. Returns whether it was made.

        What is there is read whole, and its SHA-256 compared. A shared file is kept under its fingerprint in
        ``.cache`` beside the run folders, and taken from there by every run with the same inputs; one run makes it,
        and those that need it meanwhile wait.

        Args:
            make: the content; every rank calls it.
            save: writes the content to a path aside, from where it is renamed; rank 0 alone calls it.

        Raises:
            InputError: it was made from other inputs, or is damaged; only ``redo`` replaces it.
            Preempted: it is made, and the run was asked to stop.
        """
        path = self.folder / name
        entry = self.cache(inputs) / "kept"
        with ExitStack() as making:  # rank 0 holds the lock of a shared file until it is kept
            found = self._found(name, inputs, making if shared else None)
            if found == "here":
                return False
            content = make() if found == "nowhere" else None

            def write() -> None:
                self._disown(name)
                if found == "kept":
                    copy(entry / path.name, path)
                else:
                    with writing(path) as aside:
                        save(aside, content)  # type: ignore[arg-type]
                    if shared:
                        with keeping(entry) as aside:
                            copy(path, aside / path.name)
                self.provenance["artefacts"][name] = inputs
                self.record(name)

            first_rank(write)
        stop_if_asked()
        return True

    def _found(self, name: str, inputs: str, making: ExitStack | None) -> str:
        """Where an artefact is: "here", "kept" in the cache, or "nowhere", so that this run is to make it.

        While another run makes the same shared one, it waits.

        Args:
            making: holds the lock of its maker; None for an artefact that is not shared.

        Raises:
            InputError: as ``artefact``.
            Preempted: the run was asked to stop while it waited.
        """
        entry = self.cache(inputs) / "kept"

        def there() -> str:
            if self._is_here(name, inputs):
                return "here"
            if making is None:
                return "nowhere"
            if kept(entry, say):
                return "kept"
            if not may_make(entry, making, self.folder.name):
                return "awaited"
            return "kept" if kept(entry, say) else "nowhere"  # its maker may have ended in between

        waits = 0
        while (found := first_rank(there)) == "awaited":
            stop_if_asked()
            if waits == round(SILENCE / LOOK):
                say(f"waits for {name}, which {maker_of(entry)} makes")
            waits += 1
            time.sleep(LOOK)
        return found

    def _is_here(self, name: str, inputs: str) -> bool:
        """Whether an artefact with this fingerprint lies in the folder.

        Raises:
            InputError: it was made from other inputs, or is damaged, and is not to be made again.
        """
        path = self.folder / name
        made_from = self.provenance["artefacts"].get(name)
        if not os.path.lexists(path) or made_from is None:
            return False
        if self.redo:
            return bool(made_from == inputs) and not is_damaged(self.folder, self.provenance, name)
        if made_from != inputs:
            raise InputError(
                f"{path} was made from other problems, rationales, token weights or another student, which "
                "have changed since: take another --run, or --redo to make again what depends on them"
            )
        refuse_damaged(self.folder, self.provenance, name)
        return True

    def forget_others(self, wanted: Collection[str]) -> None:
        """Remove artefacts that the settings no longer ask for."""
        first_rank(lambda: self.forget([name for name in self.provenance["artefacts"] if name not in wanted]))

    def forget(self, names: Collection[str]) -> None:
        """Remove artefacts."""
        for name in [name for name in names if name in self.provenance["artefacts"]]:
            self._disown(name)
            remove(self.folder / name)

    def _disown(self, name: str) -> None:
        """From here on an artefact is not there, whatever lies in its place: another one is about to be written.

        What is not what the run wrote gets another name, since it may be somebody's work.
        """
        path = self.folder / name
        if name not in self.provenance["artefacts"]:
            return
        if os.path.lexists(path) and is_damaged(self.folder, self.provenance, name):
            aside = free_name(path)
            path.replace(aside)
            say(f"{path} is not what this run wrote; it lies in {aside.name} now")
        del self.provenance["artefacts"][name]
        self.provenance["sha256"].pop(name, None)
        write_provenance(self.folder, self.provenance)

    def count(self, counts: Counts | dict[str, int]) -> None:
        """Keep numbers for the report; they are written with the next artefact."""
        if isinstance(counts, Counts):
            self.provenance["origins"] = counts.origins
            counts = counts.named()
        self.provenance.setdefault("counts", {}).update(counts)

    def record(self, name: str) -> None:
        """Write down the SHA-256 of what has just been made, and of the settings."""
        self.provenance["sha256"] |= {made: digest(self.folder / made) for made in (name, CONFIG)}
        write_provenance(self.folder, self.provenance)

    def checked(self, name: str) -> Path:
        """Path of an artefact that is read.

        Raises:
            InputError: it is missing, or not what the run wrote.
        """
        refuse_damaged(self.folder, self.provenance, name)
        return self.folder / name

    def check_all_but(self, name: str) -> None:
        """Check every artefact but one.

        Raises:
            InputError: one is missing, or not what the run wrote.
        """
        for other in self.provenance["artefacts"]:
            if other != name:
                self.checked(other)

    def records(self, name: str) -> list[dict[str, Any]]:
        """Graded outputs: ``test-before``, ``test``, ``validation`` or an out-of-distribution set.

        Raises:
            InputError: as ``checked``.
        """
        return load_jsonl(self.checked(f"predictions/{name}.jsonl"))

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


def free_name(path: Path) -> Path:
    """A name beside ``path`` that nothing has: NAME.damaged, NAME.damaged-2, ..."""
    number, aside = 1, path.with_name(f"{path.name}.damaged")
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{number}")
    return aside


def written_settings(folder: Path) -> dict[str, Any] | None:
    """The settings that a run folder was made with; None where it has none, or is no run folder.

    Raises:
        InputError: they are damaged.
    """
    path, provenance = folder / CONFIG, read_provenance(folder)
    if not os.path.lexists(path):
        return None
    way_out = "delete it, and the run's command writes it again; or take another --run"
    try:
        written = read_yaml(path)
    except InputError as error:
        if provenance is None:
            return None  # of another program, or nothing of this run has been made yet
        raise InputError(f"{error}; {way_out}") from error
    if provenance is not None and is_damaged(folder, provenance, CONFIG):
        raise InputError(f"{shown(path)}: damaged or changed, these are not the settings of this run: {way_out}")
    if isinstance(written, dict) and written.keys() >= BLOCKS:
        return written
    if provenance is not None:
        raise InputError(f"{shown(path)}: damaged, not the settings of a run: {way_out}")
    return None


def changed_settings(folder: Path, config: RunConfig) -> list[str]:
    """In what these settings differ from those that something in the folder was made with.

    Settings are fixed once an artefact stands: a start that failed before fixes none.

    Raises:
        InputError: the folder's settings or provenance.json are damaged.
    """
    provenance = read_provenance(folder)
    if provenance is None or not provenance["artefacts"]:
        return []
    written = written_settings(folder)
    return [] if written is None else differences(that_matter(to_dict(config)), that_matter(written))


def open_run(folder: Path, config: RunConfig, *, redo: bool = False) -> Run:
    """Make the folder, or continue it where it was made with the same settings.

    Raises:
        InputError: it was made with other settings, which are listed; it is damaged; or it is something else's folder.
    """
    path, provenance = folder / CONFIG, read_provenance(folder)
    if provenance is None and written_settings(folder) is None and folder.is_dir():
        if any(found.name not in LEFT_BY_A_KILL for found in folder.iterdir()):
            raise InputError(f"{folder} is not empty and no run folder: take another --run")
    elif not redo:
        refuse_other_layout(folder)
        written_settings(folder)  # damaged ones are said also where they fix nothing
        changed = changed_settings(folder, config)
        if changed:
            raise InputError(
                f"{folder} was made with other settings ({'; '.join(changed)}): "
                "take another --run, or --redo to make again what depends on them"
            )
    run = Run(folder, config, redo)
    if provenance is None or redo or not path.exists() or not provenance["artefacts"]:
        write_text(path, yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True))
        if provenance is not None:
            run.record(CONFIG)
    return run


def refuse_other_layout(folder: Path) -> None:
    """Stop where a run folder was written by a version that named or made its artefacts otherwise.

    Raises:
        InputError: it was.
    """
    provenance = read_provenance(folder)
    if provenance is not None and provenance["layout"] != LAYOUT:
        raise InputError(
            f"{folder} has layout {provenance['layout']} of another version, and this one writes layout {LAYOUT}: "
            "take another --run, or --redo to make it again"
        )


def load_run_config(folder: Path) -> RunConfig:
    """The settings that a run folder was made with, finished or not.

    Raises:
        InputError: it is no run folder, or its settings are damaged.
    """
    if not os.path.lexists(folder / CONFIG):
        raise InputError(f"{shown(folder)}: no {CONFIG}, so no run folder")
    refuse_other_layout(folder)
    if written_settings(folder) is None:
        raise InputError(f"{shown(folder / CONFIG)}: not the settings of a run, so no run folder")
    return load_experiment(folder / CONFIG, [])


def has_ended(folder: Path) -> bool:
    """Whether a run has ended: its report is the last thing that it writes."""
    return (folder / REPORT).is_file()


def load_run(path: str | Path) -> Run:
    """A finished run folder: settings, records, metrics; its student is ``load_student(run.folder / "student")``.

    Raises:
        InputError: there is no finished run, or something in it is damaged.
    """
    folder = Path(path)
    config = load_run_config(folder)
    if not has_ended(folder):
        raise InputError(f"{folder}: the run has not ended; repeat its command to continue it")
    return Run(folder, config)

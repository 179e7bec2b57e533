"""Arrow: how one artefact of a run folder is made, and from what; its fingerprint follows from the second."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from kpod_lightning.store.files import fingerprint


@dataclass(frozen=True, kw_only=True)
class Arrow:
    """One artefact: what it is made from, how it is made and saved.

    Args:
        verb: names the place on the command line: ``kpod VERB`` stops behind the last arrow of this verb.
        artefact: file or folder of the run folder; None where the result is only kept in the cache.
        settings: names of the settings that it depends on, e.g. ``weights`` (a whole block) or ``optim.precision``.
        needs: names of earlier artefacts, and of inputs such as ``problems/train``, that it is made from.
        also: further values that it depends on, e.g. the hash of a model's files.
        make: makes the content from a context (``methods.context.Context``); every rank calls it.
        save: writes the content to a path; rank 0 alone calls it.
        show: prints what there is to say once the artefact is there.
        shared: runs beside this one with the same fingerprint take the file from the cache.
        trains: the student's training depends on it.
        measures: it is made with the student that measures (``Context.measuring``), see ``schedule.measure_after``.
    """

    verb: str
    artefact: str | None
    make: Callable[[Any], Any]
    save: Callable[[Path, Any], Any] = lambda path, content: None
    settings: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    also: tuple[Any, ...] = ()
    show: Callable[[Any], None] | None = None
    shared: bool = False
    trains: bool = True
    measures: bool = False

    def fingerprint(self, config: Any, made: Mapping[str, str]) -> str:
        """SHA-256 of the settings' values, of what it needs and of what else it depends on.

        Args:
            config: the run's settings.
            made: fingerprints of the inputs and of earlier artefacts.
        """
        settings = {name: setting(config, name) for name in self.settings}
        return fingerprint(self.artefact, settings, {name: made[name] for name in self.needs}, self.also)


def setting(config: Any, name: str) -> Any:
    """The value of a setting by its dotted name; of a block a dictionary."""
    value = config
    for part in name.split("."):
        value = getattr(value, part)
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value

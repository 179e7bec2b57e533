"""Warm start: a student tuned plainly for a few epochs, from which all methods start or with which they measure."""

import shutil
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kpod_lightning.config import OptimConfig, RationalesConfig, RunConfig, measuring_epochs
from kpod_lightning.evaluation.prior import prior_arrow
from kpod_lightning.methods.base import MEASURING, WARM, Method, method_of
from kpod_lightning.store.artefacts import Arrow

if TYPE_CHECKING:
    from kpod_lightning.data.sources import Source
    from kpod_lightning.methods.context import Context

VERB = "warm"

OWN = {"steps": None, "tokens": None, "schedule": "constant", "decay_from": "start", "select": "last", "patience": None}
"""What ``optim`` says of a tuning, whatever it says of the training: its length is a number of epochs."""

NOT_READ = ("epochs", "checkpoint_every", *OWN)
"""Settings of ``optim`` that change nothing of a warm start, so that runs of other lengths share it."""


def arrows_before_training(config: RunConfig, method: Method, source: "Source | None" = None) -> list[Arrow]:
    """What is made before the student learns: the warm students, and the method's own artefacts, made with them.

    Args:
        source: where candidates of rationales come from; None: the arrows are to be named, not followed.
    """
    own, warm, epochs = method.arrows(), config.student.warm_epochs, measuring_epochs(config)
    own = [arrow for i, arrow in enumerate(own) if arrow not in own[:i]]  # two parts may ask for the same losses
    own = [*own, prior_arrow()]
    arrows = []
    if warm:
        arrows.append(warm_arrow(WARM, warm, config, source, trains=True))
        own = [replace(arrow, needs=(*arrow.needs, WARM)) for arrow in own]
    if epochs not in (0, warm) and any(arrow.measures for arrow in own):
        arrows.append(warm_arrow(MEASURING, epochs, config, source, trains=False))
        own = [replace(arrow, needs=(*arrow.needs, MEASURING)) if arrow.measures else arrow for arrow in own]
    return [*arrows, *own]


def warm_arrow(name: str, epochs: int, config: RunConfig, source: "Source | None", *, trains: bool) -> Arrow:
    """A student that was tuned plainly, as a Hugging Face folder with adapters merged.

    It depends on nothing of the method, nor on how many rationales the method takes of a problem: all methods of a
    comparison have the same one, which they share in the cache.

    Args:
        name: ``WARM`` or ``MEASURING``.
        source: as in ``arrows_before_training``.
        trains: the training starts from it.
    """
    from kpod_lightning.data.examples import ROW
    from kpod_lightning.data.rationales import SELECTION
    from kpod_lightning.data.template import TEMPLATE
    from kpod_lightning.data.tokens import TOKENS

    optim = tuple(f"optim.{field.name}" for field in fields(OptimConfig) if field.name not in NOT_READ)
    chosen = (f"rationales.{field.name}" for field in fields(RationalesConfig) if field.name != "num_per_problem")
    source = None if source is None else of_one(source, config)
    student = ("student.lora_rank", "student.lora_alpha", "student.max_length")
    return Arrow(
        verb=VERB,
        artefact=name,
        settings=("seed", *chosen, *student, *optim),
        needs=("problems/train", "student/before"),
        also=(epochs, SELECTION, TEMPLATE, TOKENS, ROW, None if source is None else source.contents),
        make=partial(warmed, name=name, epochs=epochs, source=source),
        save=save_warm,
        shared=True,
        trains=trains,
    )


def of_one(source: "Source", config: RunConfig) -> "Source":
    """The source of a run that takes one rationale of a problem."""
    from kpod_lightning.data.sources import Source, written_along

    if config.rationales.source != "generated":
        return source
    return Source(None, partial(written_along, teacher="generated"))


def warmed(context: "Context", name: str, epochs: int, source: "Source | None") -> tuple[Path, RunConfig]:
    """The checkpoint behind the last epoch, and the settings of the tuning.

    One whole rationale of each problem with its answer, all weights 1, from the student before distillation; the rate
    is ``optim.lr`` after its warm-up, without decay. With ``student.lora_rank`` it is adapters that are tuned.
    """
    from kpod_lightning.distributed.checkpoints import forget_other_checkpoints
    from kpod_lightning.methods.context import Context, RationaleTable, train_set_arrows
    from kpod_lightning.methods.training import tune
    from kpod_lightning.store.json_lines import JsonLines

    assert source is not None  # an arrow without one is only named
    config = plain_settings(context.config, epochs)
    method = method_of(config)
    fingerprints = dict(context.fingerprints)
    rationales, tokens = train_set_arrows(context.problems, source, method)
    for arrow in (rationales, tokens):
        fingerprints[arrow.artefact or arrow.verb] = arrow.fingerprint(config, fingerprints)
    plain = Context(config, context.folder, context.cache, method, context.problems, fingerprints)
    plain.rationales = RationaleTable(JsonLines(rationales.make(plain)), context.problems)
    checkpoints = context.folder / f"checkpoints-{name}"
    forget_other_checkpoints(checkpoints, context.fingerprints[name])
    context.say(f"tuning the student plainly ({'every method starts' if name == WARM else 'to measure'} with it):")
    return tune(plain, checkpoints), config


def plain_settings(config: RunConfig, epochs: int) -> RunConfig:
    """The settings of a run that tunes the student plainly, at a constant rate, on one rationale of each problem."""
    return replace(
        config,
        method="plain",
        rationales=replace(config.rationales, num_per_problem=1),
        student=replace(config.student, warm_epochs=0),
        schedule=replace(config.schedule, measure_after=None),
        optim=replace(config.optim, epochs=epochs, **OWN),  # type: ignore[arg-type]
        evaluation=replace(config.evaluation, every=1),
    )


def save_warm(path: Path, made: tuple[Path, Any]) -> None:
    from kpod_lightning.students.export import export_student

    checkpoint, config = made
    export_student(checkpoint, config.student, path)
    shutil.rmtree(checkpoint.parent)

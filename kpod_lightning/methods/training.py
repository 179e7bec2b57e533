"""The training of a run's student: data module, module and callbacks from the settings; it goes on where it stopped."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from kpod_lightning.config import OptimConfig, RunConfig
from kpod_lightning.data.budget import Budget
from kpod_lightning.data.datamodule import ExampleDataModule
from kpod_lightning.data.problems import Problem
from kpod_lightning.distributed.checkpoints import KeptCheckpoint, make_one_file, newest_checkpoint, read_meta
from kpod_lightning.distributed.harmless import without_harmless_warnings
from kpod_lightning.distributed.preemption import stopping_callback
from kpod_lightning.distributed.ranks import first_rank, world_size
from kpod_lightning.distributed.trainer import trainer_of
from kpod_lightning.methods.callbacks import (
    RANK,
    BestStudent,
    InsideEpochs,
    StopEarly,
    ValidateLastEpoch,
)
from kpod_lightning.methods.context import Context
from kpod_lightning.methods.module import KPODModule
from kpod_lightning.store.errors import InputError
from kpod_lightning.students.student import Student, add_lora


def micro_batches_a_step(optim: OptimConfig) -> int:
    """Micro-batches that a rank accumulates for one global batch."""
    rows_of_rank = -(-optim.batch_size // world_size())
    return -(-rows_of_rank // (optim.micro_batch_size or rows_of_rank))


def num_logged(checkpoint: Path) -> int:
    """Optimiser steps whose rows of metrics are whole where a training goes on from a checkpoint.

    A validation that was stopped is repeated, and its row is that of the last step.
    """
    entries = read_meta(checkpoint)
    return int(entries["global_step"]) - int(entries.get("validating", False))


def data_of(context: Context, student: Student, validation: Sequence[Problem]) -> ExampleDataModule:
    """The run's examples in the stages, weights and views of its method, which has begun."""
    config, optim, method = context.config, context.config.optim, context.method
    return ExampleDataModule(
        context.examples,
        encoder_decoder=student.encoder_decoder,
        pad_token_id=student.pad_token_id,
        eos_token_id=student.tokenizer.eos_token_id,
        batch_size=optim.batch_size,
        group_by_length=optim.group_by_length,
        seed=config.seed,
        num_workers=config.num_workers,
        stages=method.stages,
        token_weights=method.token_weights,
        draw=method.draw,
        apart=method.apart,
        views=method.views,
        loss_scale=optim.loss_scale,
        validation=validation,
        budget=Budget(steps=optim.steps, tokens=optim.tokens),
    )


def best_student(folder: Path) -> BestStudent:
    """Keeps the checkpoint of the best epoch in a folder."""
    return BestStudent(
        dirpath=folder,
        filename="best-{epoch}",
        monitor=RANK,
        mode="max",
        auto_insert_metric_name=False,
        enable_version_counter=False,
        save_on_train_epoch_end=False,
    )


def saving(config: RunConfig, folder: Path) -> list[Callback]:
    """What saves a training to go on from, and stops it.

    Args:
        folder: of the checkpoints.
    """
    # Lightning's save_last saves only where an epoch was the best so far, and only where there is a validation.
    last = KeptCheckpoint(dirpath=folder, filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
    callbacks: list[Callback] = [last, stopping_callback(folder / "step.ckpt")]
    if config.optim.checkpoint_every is not None:
        # Only the newest is kept: it is for going on, not for choosing.
        every = InsideEpochs(
            dirpath=folder,
            filename="step",
            every_n_train_steps=config.optim.checkpoint_every,
            enable_version_counter=False,
        )
        callbacks.append(every)
    return callbacks


def callbacks_of(config: RunConfig, folder: Path) -> list[Callback]:
    """What validates, saves to go on from, and stops a training.

    Args:
        folder: of the checkpoints.
    """
    callbacks: list[Callback] = [ValidateLastEpoch(config.evaluation.every), *saving(config, folder)]
    if config.optim.patience is not None:
        callbacks.append(
            StopEarly("validation/accuracy", mode="max", patience=config.optim.patience, check_on_train_epoch_end=False)
        )
    return callbacks


def train(
    context: Context,
    folder: Path,
    callbacks: Sequence[Callback],
    *,
    validation: Sequence[Problem] = (),
    loggers: Callable[[int], list[Logger]] = lambda num_steps: [],
    what: str = "training",
) -> None:
    """Train the context's student by its method; from the newest checkpoint of the folder, if there is one.

    Args:
        folder: of the checkpoints, which the callbacks write.
        validation: problems that are asked after epochs; none: nothing is.
        loggers: of a training that goes on from so many optimiser steps.
        what: is done, for its progress.
    """
    config, optim, method = context.config, context.config.optim, context.method
    method.begin(context)
    student = context.student
    if config.student.lora_rank is not None:
        student = add_lora(student, config.student.lora_rank, config.student.lora_alpha, config.seed)
    module = KPODModule(
        student, optim, method=method, evaluation=config.evaluation, seed=config.seed, launch=config.launch
    )
    resume = first_rank(lambda: newest_checkpoint(folder))
    if resume is not None and config.launch.strategy != "fsdp" and first_rank(resume.is_dir):
        first_rank(partial(make_one_file, resume))
    trainer = trainer_of(
        config,
        what,
        callbacks,
        max_epochs=optim.epochs,
        accumulate_grad_batches=micro_batches_a_step(optim),
        gradient_clip_val=optim.clip_norm or None,
        check_val_every_n_epoch=config.evaluation.every,
        limit_val_batches=1.0 if validation else 0,
        logger=loggers(0 if resume is None else num_logged(resume)),
        default_root_dir=context.folder,
    )
    with without_harmless_warnings():
        trainer.fit(module, datamodule=data_of(context, student, validation), ckpt_path=resume, weights_only=True)


def tune(context: Context, folder: Path) -> Path:
    """Train without validation, resume where a training was interrupted; the checkpoint of the last epoch.

    Args:
        context: with the method's artefacts in its folder.
        folder: of the checkpoints.
    """
    train(context, folder, saving(context.config, folder), what="tuning")
    return folder / "last.ckpt"


def distil(context: Context, validation: Sequence[Problem], *, loggers: Callable[[int], list[Logger]]) -> Path:
    """Train, resume where a training was interrupted; the checkpoint of the epoch that ``optim.select`` names.

    Args:
        context: with the method's artefacts in its folder.
        loggers: of a training that goes on from so many optimiser steps.
    """
    folder = context.folder / "checkpoints"
    best = best_student(folder)
    train(context, folder, [best, *callbacks_of(context.config, folder)], validation=validation, loggers=loggers)
    kept = "last.ckpt" if context.config.optim.select == "last" else best.best_model_path or "best-*.ckpt"
    chosen = folder / kept
    if not first_rank(chosen.exists):
        raise InputError(
            f"{chosen}: the checkpoint of the chosen epoch is missing: restore it, or delete {folder}, and the run's "
            "command trains again"
        )
    return chosen

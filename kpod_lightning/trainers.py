"""The Lightning trainer as every arrow uses it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L

from kpod_lightning.config import RunConfig

HARMLESS_WARNINGS = (
    ".*does not have many workers.*",  # collating is a list copy: one process feeds the student
    ".*Checkpoint directory .* exists and is not empty.*",  # a resume
    ".*checkpoint that ended before the epoch ended.*",  # our sampler starts where the epoch stopped
    ".*in eval mode at the start of training.*",  # the frozen block of the weight network
    "The `srun` command is available",  # a run on a login node or a workstation of a cluster, which is meant
    ".*LeafSpec.* is deprecated.*",  # Lightning 2.6 asks torch 2.13 the old way
)


@contextmanager
def without_harmless_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        for message in HARMLESS_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        yield


def trainer_of(config: RunConfig, **settings: Any) -> L.Trainer:
    """A trainer that builds its loaders anew for each epoch and leaves their order to our own samplers."""
    with without_harmless_warnings():
        return L.Trainer(
            accelerator="auto",
            devices=1,
            precision=config.optim.precision,  # type: ignore[arg-type]
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
            enable_model_summary=False,
            log_every_n_steps=1,  # only epochs are logged; this keeps Lightning from warning about short ones
            **settings,
        )

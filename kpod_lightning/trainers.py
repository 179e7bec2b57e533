"""The Lightning trainer as every arrow uses it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy

from kpod_lightning.checkpoints import put_in_place, remove
from kpod_lightning.config import RunConfig
from kpod_lightning.errors import InputError
from kpod_lightning.ranks import cluster_environment, devices_of, first_rank, world_size

HARMLESS_WARNINGS = (
    ".*does not have many workers.*",  # collating is a list copy: one process feeds the student
    ".*Checkpoint directory .* exists and is not empty.*",  # a resume
    ".*checkpoint that ended before the epoch ended.*",  # our sampler starts where the epoch stopped
    ".*in eval mode at the start of training.*",  # the frozen block of the weight network
    ".*recommended to use .self.log.*sync_dist=True.*",  # every rank has graded all validation problems
    ".*srun. command is available on your system but is not used.*",  # `kpod submit` uses it
    ".*LeafSpec.* is deprecated.*",  # Lightning 2.6 asks torch 2.13 the old way
)


@contextmanager
def without_harmless_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        for message in HARMLESS_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        yield


class ShardedStrategy(ModelParallelStrategy):
    """Writes a checkpoint, which is a folder, aside and then renames it: it is there whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        path = Path(self.broadcast(filepath))
        aside = path.with_name(f".{path.name}.part")
        first_rank(lambda: remove(aside))
        super().save_checkpoint(checkpoint, aside, storage_options)
        self.barrier()
        first_rank(lambda: put_in_place(aside, path))


def strategy_of(config: RunConfig, *, unused_parameters: bool = False) -> str | Strategy:
    """Lightning's strategy for ``launch``.

    Args:
        unused_parameters: some parameters have no part in some steps, which DDP has to look for.
    """
    if config.launch.cpu_offload and (config.launch.accelerator == "cpu" or not torch.cuda.is_available()):
        raise InputError("launch.cpu_offload=true keeps on the host what would be on GPUs, and there are none: drop it")
    if config.launch.strategy == "fsdp":
        return ShardedStrategy(data_parallel_size=world_size(), tensor_parallel_size=1)
    if world_size() == 1:
        return "auto"
    return DDPStrategy(find_unused_parameters=unused_parameters)


def trainer_of(config: RunConfig, *, unused_parameters: bool = False, **settings: Any) -> L.Trainer:
    """A trainer that builds its loaders anew for each epoch and leaves their order to our own samplers."""
    launch = config.launch
    with without_harmless_warnings():
        return L.Trainer(
            accelerator=launch.accelerator,
            devices=devices_of(launch),
            num_nodes=launch.num_nodes,
            strategy=strategy_of(config, unused_parameters=unused_parameters),
            plugins=[cluster_environment()],
            precision=config.optim.precision,  # type: ignore[arg-type]
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
            enable_model_summary=False,
            log_every_n_steps=1,  # only epochs are logged; this keeps Lightning from warning about short ones
            **settings,
        )

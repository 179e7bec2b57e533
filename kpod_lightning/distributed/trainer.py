"""The Lightning trainer as every arrow uses it."""

import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch.distributed.checkpoint.state_dict_saver import async_save

from kpod_lightning.config import RunConfig
from kpod_lightning.distributed.checkpoints import META, put_in_place, remove
from kpod_lightning.distributed.ranks import cluster_environment, devices_of, first_rank, is_first, world_size
from kpod_lightning.store.errors import InputError

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
    """Writes a checkpoint, which is a folder, while the training goes on, and renames it when it is whole.

    Training waits for the copy in the memory of the host alone; and for the writing where the next checkpoint begins,
    an older one is to be removed, or the training ends.
    """

    _being_written: "Future[Any] | None" = None
    _place: Callable[[], None] = staticmethod(lambda: None)
    _group: Any = None

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        self.finish_writing()
        path = Path(self.broadcast(filepath))
        aside = path.with_name(f".{path.name}.part")
        tensors = {"state_dict": checkpoint.pop("state_dict")}
        tensors |= {f"optimizer_{i}": state for i, state in enumerate(checkpoint.pop("optimizer_states", []))}

        def begin() -> None:
            remove(aside)
            aside.mkdir(parents=True)
            torch.save(checkpoint, aside / META)

        first_rank(begin)
        if self._group is None:
            # Apart from the training's: the two send at the same time, in no common order.
            self._group = torch.distributed.new_group(backend="gloo")
        self._place = partial(self._put_once, aside, path, threading.Lock())
        self._being_written = cast("Future[Any]", async_save(tensors, checkpoint_id=aside, process_group=self._group))
        self._being_written.add_done_callback(self._when_written)

    def _when_written(self, written: "Future[Any]") -> None:
        if written.exception() is None:  # else ``finish_writing`` raises it
            self._place()

    @staticmethod
    def _put_once(aside: Path, path: Path, lock: threading.Lock) -> None:
        """Rank 0 has heard of all others' parts when its own is done. Both its threads come here, in either order."""
        with lock:
            if is_first() and aside.exists():
                put_in_place(aside, path)

    def finish_writing(self) -> None:
        """Wait until the last checkpoint is in its place.

        Raises:
            CheckpointException: it could not be written.
        """
        if self._being_written is not None:
            self._being_written.result()
            self._being_written = None
            self._place()

    def remove_checkpoint(self, filepath: Any) -> None:
        self.finish_writing()
        super().remove_checkpoint(filepath)

    def teardown(self) -> None:
        self.finish_writing()
        super().teardown()


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

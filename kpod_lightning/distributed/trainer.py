"""The one place that makes Lightning trainers, and the strategy that writes sharded checkpoints."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch.distributed.checkpoint import CheckpointException, FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import async_save

from kpod_lightning.config import RunConfig
from kpod_lightning.distributed.bars import progress_of
from kpod_lightning.distributed.checkpoints import (
    INDEX,
    META,
    CheckpointFiles,
    add_digest,
    disk_errors,
    put_in_place,
    save,
)
from kpod_lightning.distributed.console import console
from kpod_lightning.distributed.harmless import without_harmless_warnings
from kpod_lightning.distributed.ranks import cluster_environment, devices_of, first_rank, is_first, world_size
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import remove, unwritable


class DigestWriter(FileSystemWriter):
    """Writes a rank's file of a sharded checkpoint, with its digest beside it."""

    def write_data(self, plan: Any, planner: Any) -> Any:
        with disk_errors():
            written = super().write_data(plan, planner)
            for name in {result.storage_data.relative_path for result in written.wait()}:
                add_digest(Path(self.path) / name)
        return written

    def finish(self, metadata: Any, results: Any) -> None:
        super().finish(metadata, results)
        add_digest(Path(self.path) / INDEX)
        add_digest(Path(self.path) / META)


class ShardedStrategy(ModelParallelStrategy):
    """Writes a checkpoint, which is a folder, in the background and renames it when it is complete.

    Training blocks only while tensors are copied to host memory. It waits for the disk before the next checkpoint,
    before deleting an old one, and at the end.
    """

    _being_written: "Future[Any] | None" = None
    _place: Callable[[], None] = staticmethod(lambda: None)
    _group: Any = None

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        self.finish_writing()
        path = self._path = Path(self.broadcast(filepath))
        aside = path.with_name(f".{path.name}.part")
        tensors = {"state_dict": checkpoint.pop("state_dict")}
        tensors |= {f"optimizer_{i}": state for i, state in enumerate(checkpoint.pop("optimizer_states", []))}

        def begin() -> None:
            remove(aside)
            save(checkpoint, aside / META)

        first_rank(begin)
        if self._group is None:
            # A group of its own: the training's collectives run at the same time, in an order that differs by rank.
            self._group = torch.distributed.new_group(backend="gloo")
        self._place = partial(self._put_once, aside, path, threading.Lock())
        self._being_written = cast(
            "Future[Any]", async_save(tensors, storage_writer=DigestWriter(aside), process_group=self._group)
        )
        self._being_written.add_done_callback(self._when_written)

    def _when_written(self, written: "Future[Any]") -> None:
        if written.exception() is None:  # ``finish_writing`` raises the others
            self._place()

    @staticmethod
    def _put_once(aside: Path, path: Path, lock: threading.Lock) -> None:
        """Rename the complete checkpoint, once: the writer's thread and ``finish_writing`` both call this.

        On rank 0 the write is done only when all ranks have written their parts.
        """
        with lock:
            if is_first() and aside.exists():
                put_in_place(aside, path)

    def finish_writing(self) -> None:
        """Wait until the last checkpoint is written and has its name.

        Raises:
            InputError: on every rank; the disk of one of them is full.
            CheckpointException: it could not be written for another reason.
        """
        if self._being_written is not None:
            try:
                self._being_written.result()
            except CheckpointException as error:
                for failure, _ in error.failures.values():
                    if isinstance(failure, OSError):
                        raise unwritable(self._path, failure) from error
                raise
            self._being_written = None
            self._place()

    def remove_checkpoint(self, filepath: Any) -> None:
        self.finish_writing()
        super().remove_checkpoint(filepath)

    def teardown(self) -> None:
        self.finish_writing()
        super().teardown()


class ReplicatedStrategy(DDPStrategy):
    """Writes a checkpoint on rank 0; if its disk is full, every rank ends with that error, and none waits for it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        first_rank(lambda: save(checkpoint, Path(filepath)), "a checkpoint")


def strategy_of(config: RunConfig, *, unused_parameters: bool = False) -> str | Strategy:
    """Lightning's strategy for ``launch``.

    Args:
        unused_parameters: whether some steps leave parameters without a gradient, which DDP then has to look for.
    """
    if config.launch.cpu_offload and (config.launch.accelerator == "cpu" or not torch.cuda.is_available()):
        raise InputError("launch.cpu_offload=true keeps on the host what would be on GPUs, and there are none: drop it")
    if config.launch.strategy == "fsdp":
        return ShardedStrategy(data_parallel_size=world_size(), tensor_parallel_size=1)
    if world_size() == 1:
        return "auto"
    return ReplicatedStrategy(find_unused_parameters=unused_parameters)


def trainer_of(
    config: RunConfig,
    what: str = "training",
    callbacks: Sequence[Callback] = (),
    *,
    unused_parameters: bool = False,
    enable_progress_bar: bool = True,
    **settings: Any,
) -> L.Trainer:
    """A trainer that builds its loaders anew for each epoch and leaves their order to our own samplers.

    Args:
        what: is done, for its progress.
        enable_progress_bar: where there is a terminal.
    """
    launch, bar = config.launch, enable_progress_bar and console.is_terminal
    files = [] if launch.strategy == "fsdp" else [CheckpointFiles()]
    with without_harmless_warnings():
        return L.Trainer(
            accelerator=launch.accelerator,
            devices=devices_of(launch),
            num_nodes=launch.num_nodes,
            strategy=strategy_of(config, unused_parameters=unused_parameters),
            plugins=[cluster_environment(), *files],
            precision=config.optim.precision,  # type: ignore[arg-type]
            num_sanity_val_steps=0,
            callbacks=[*callbacks, progress_of(what, bar=bar)],
            enable_progress_bar=bar,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
            enable_model_summary=False,
            log_every_n_steps=1,  # only epochs are logged, but Lightning warns if an epoch is shorter than this
            **settings,
        )

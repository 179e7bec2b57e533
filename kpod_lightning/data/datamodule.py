"""RationaleDataModule: a loader for the stage in hand.

The order of a whole epoch follows from (seed, epoch) alone; ranks and micro-batches slice it. So neither the number
of ranks nor of loader workers, nor a resume in the middle of an epoch, changes a batch.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from kpod_lightning.data.batches import FromStart, MicroBatch, MicroBatches, batches_done, global_batches
from kpod_lightning.data.example_table import lengths_of, num_asked
from kpod_lightning.data.examples import Example
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.views import IGNORE, Batch, View, collate, view
from kpod_lightning.store.errors import InputError


class ViewDataset(Dataset[Batch]):
    """Maps a micro-batch of positions to its padded batch at one stage: ``input_steps[i]`` is c_i.

    Nothing is made before it is asked for, so that the examples may be more than the memory holds.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        input_steps: Sequence[int],
        *,
        encoder_decoder: bool,
        pad_token_id: int,
        eos_token_id: int,
        token_weights: Sequence[Sequence[float]] | Sequence[np.ndarray] | None = None,
    ) -> None:
        self.examples = examples
        self.input_steps = input_steps
        self.encoder_decoder = encoder_decoder
        self.eos_token_id = eos_token_id
        self.token_weights = token_weights
        self.pad_token_id = pad_token_id

    def __len__(self) -> int:
        return len(self.examples)

    def view(self, i: int) -> View:
        return view(
            self.examples[i],
            int(self.input_steps[i]),
            encoder_decoder=self.encoder_decoder,
            eos_token_id=self.eos_token_id,
            # A row of an array at once: number by number it takes ten times as long.
            token_weights=None if self.token_weights is None else np.asarray(self.token_weights[i]).tolist(),
        )

    def divisor(self, positions: Sequence[int], loss_scale: str = "tokens") -> float:
        """What the summed loss of these examples is divided by (``OptimConfig.loss_scale``)."""
        if loss_scale == "sum":
            return 1.0
        if loss_scale == "tokens":
            return float(sum(num_asked(self.examples, i, int(self.input_steps[i])) for i in positions))
        views = [self.view(i) for i in positions]
        pairs = (pair for each in views for pair in zip(each.labels, each.weights, strict=True))
        return math.fsum(weight for label, weight in pairs if label != IGNORE)

    def __getitem__(self, micro_batch: MicroBatch) -> Batch:
        positions, divisor = micro_batch
        return collate(
            [self.view(i) for i in positions],
            [self.examples[i].key for i in positions],
            pad_token_id=self.pad_token_id,
            divisor=divisor,
        )


def _as_it_is(batch: Any) -> Any:
    return batch


class RationaleDataModule(L.LightningDataModule):
    """Teacher rationales as batches of the stage in hand.

    Args:
        examples: the train set's.
        input_steps: [num_stages + 1][num_examples] c_i(t); epoch e trains on row min(e, num_stages). None: no step
            is ever input, which is plain distillation.
        token_weights: per example [len(target_ids)]; None means 1.
        loss_scale: what the summed loss of a global batch is divided by, see ``OptimConfig``.
        validation: problems on which greedy generation picks the checkpoint.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        encoder_decoder: bool,
        pad_token_id: int,
        eos_token_id: int,
        batch_size: int,
        accumulate: int = 1,
        group_by_length: bool = False,
        seed: int = 0,
        num_workers: int = 0,
        input_steps: Sequence[Sequence[int]] | None = None,
        token_weights: Sequence[Sequence[float]] | Sequence[np.ndarray] | None = None,
        loss_scale: str = "tokens",
        validation: Sequence[Problem] = (),
    ) -> None:
        super().__init__()
        if not examples:
            raise InputError("no training example is left after filtering: look at rationales.* and student.max_length")
        self.examples = examples
        self.encoder_decoder = encoder_decoder
        self.pad_token_id = pad_token_id
        self.eos_token_id = eos_token_id
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.lengths = lengths_of(examples) if group_by_length else None
        self.seed = seed
        self.num_workers = num_workers
        self.input_steps = [[0] * len(examples)] if input_steps is None else input_steps
        self.token_weights = token_weights
        self.loss_scale = loss_scale
        self.validation = validation

    def stage_of(self, epoch: int) -> int:
        return min(epoch, len(self.input_steps) - 1)

    def dataset(self, epoch: int) -> ViewDataset:
        return ViewDataset(
            self.examples,
            self.input_steps[self.stage_of(epoch)],
            encoder_decoder=self.encoder_decoder,
            pad_token_id=self.pad_token_id,
            eos_token_id=self.eos_token_id,
            token_weights=self.token_weights,
        )

    def micro_batches(self, dataset: ViewDataset, epoch: int, rank: int = 0, world_size: int = 1) -> MicroBatches:
        """A rank's micro-batches of one epoch.

        Raises:
            InputError: a global batch is smaller than the number of parts that it is to be cut into.
        """
        return MicroBatches(
            global_batches(len(dataset), self.batch_size, self.seed, epoch, self.lengths),
            partial(dataset.divisor, loss_scale=self.loss_scale),
            accumulate=self.accumulate,
            rank=rank,
            world_size=world_size,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """One batch: the positions of all validation problems, which generation cuts by length."""
        batches: Any = [list(range(len(self.validation)))] if self.validation else []
        return DataLoader(batches, batch_size=None, collate_fn=_as_it_is)

    def train_dataloader(self) -> DataLoader[Batch]:
        """The loader of the current epoch, built anew for each (``reload_dataloaders_every_n_epochs=1``).

        Read here and not in an epoch hook, which comes after loader workers have fetched batches of the old stage.
        After a resume inside an epoch the batches that were done are left out.
        """
        assert self.trainer is not None
        epoch = self.trainer.current_epoch
        dataset = self.dataset(epoch)
        micro_batches = self.micro_batches(dataset, epoch, self.trainer.global_rank, self.trainer.world_size)
        sampler = FromStart(micro_batches, start=batches_done(self.trainer, len(micro_batches)))
        return DataLoader(
            dataset,
            sampler=sampler,  # yields whole micro-batches, so that no further batching takes place
            batch_size=None,
            num_workers=self.num_workers,
            generator=torch.Generator().manual_seed(0),  # else building an iterator draws from the global state
        )

"""Token losses: what a student that is not trained loses on every target token of whole rationales, on all ranks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from torch.utils.data import DataLoader

from kpod_lightning.config import LaunchConfig, RunConfig
from kpod_lightning.data.batches import batches_by_length
from kpod_lightning.data.example_table import lengths_of
from kpod_lightning.data.examples import Example
from kpod_lightning.data.views import IGNORE, Batch, collate, view
from kpod_lightning.distributed.predictions import PredictedRows, predicted
from kpod_lightning.distributed.ranks import share_of
from kpod_lightning.distributed.sharding import shard
from kpod_lightning.students.nll import losses
from kpod_lightning.students.student import Student

LEAST_SCORED = 16
"""Least examples of a batch of losses without gradients, which take little memory."""


class TokenLossModule(L.LightningModule):
    """``predict`` gives the loss of every target token under the student, which is not trained."""

    def __init__(self, student: Student, launch: LaunchConfig | None = None, precision: str = "32-true") -> None:
        super().__init__()
        self.student = student
        self.model = student.model.eval()
        self.launch = launch or LaunchConfig()
        self.precision = precision

    def configure_model(self) -> None:
        """Shard the student where the strategy does."""
        shard(self.model, self.model, self.device_mesh, self.launch, self.precision)

    def predict_step(self, batch: Batch, batch_idx: int) -> list[np.ndarray]:
        """Losses [n] of the targets of each example."""
        _, nll = losses(self.student, batch)
        counts = (batch.labels != IGNORE).sum(1).tolist()
        return [row.float().cpu().numpy() for row in nll.split(counts)]


def whole_batch(examples: Sequence[Example], student: Student) -> Batch:
    """Whole rationales (c = 0), padded."""
    eos = student.tokenizer.eos_token_id
    views = [view(e, 0, encoder_decoder=student.encoder_decoder, eos_token_id=eos) for e in examples]
    return collate(views, [e.key for e in examples], pad_token_id=student.pad_token_id, divisor=1)


def token_loss_loader(examples: Sequence[Example], student: Student, batches: Sequence[np.ndarray]) -> DataLoader[Any]:
    """Whole rationales, batched as given."""

    def batch(positions: Sequence[int]) -> Batch:
        return whole_batch([examples[i] for i in positions], student)

    return DataLoader(batches, batch_size=None, collate_fn=batch)  # type: ignore[arg-type]


def token_losses(config: RunConfig, student: Student, examples: Sequence[Example], folder: Path) -> PredictedRows:
    """[num_examples] rows [len(target_ids)] losses in nats; every rank calls it and can read all rows.

    Args:
        folder: for the ranks' rows, seen by all of them; emptied first. The caller deletes it.
    """
    batches = share_of(batches_by_length(lengths_of(examples), max(config.optim.batch_size, LEAST_SCORED)))
    loader = token_loss_loader(examples, student, batches)
    module = TokenLossModule(student, config.launch, config.optim.precision)
    return predicted(config, module, loader, batches, len(examples), folder)

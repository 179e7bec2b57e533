"""Progress of Lightning's loops: its bar on a terminal, with epochs counted from 1; elsewhere a line every minute."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, RichProgressBar

from kpod_lightning.distributed.progress import Pace


class Bar(RichProgressBar):
    """Lightning counts epochs from 0; people, and every other line of ours, from 1."""

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Epoch {current_epoch + 1}/{self.trainer.max_epochs}".ljust(len(self.validation_description))


class MinuteLines(Callback):
    """A line every minute on a training or a prediction, also while it validates.

    Args:
        what: is done, e.g. ``training``.
    """

    def __init__(self, what: str) -> None:
        self.pace = Pace(what)
        self.what = what

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.pace = Pace(self.what, share_trained(trainer, 0))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        where = f"batch {batch_idx + 1} of {trainer.num_training_batches}"
        self._train_at(trainer, batch_idx + 1, where)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        where = f"batch {batch_idx + 1} of {trainer.num_val_batches[dataloader_idx]} of the validation"
        self._train_at(trainer, int(trainer.num_training_batches), where)

    def _train_at(self, trainer: L.Trainer, num_batches: int, where: str) -> None:
        epoch = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
        self.pace.at(share_trained(trainer, num_batches), f"{epoch}, {where}")

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.pace = Pace(self.what)

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        number = trainer.num_predict_batches[dataloader_idx]
        self.pace.at((batch_idx + 1) / number, f"batch {batch_idx + 1} of {number}")


def share_trained(trainer: L.Trainer, num_batches: int) -> float:
    """Share of all epochs that is done after ``num_batches`` of the current one; validations count as nothing."""
    of_epoch = num_batches / trainer.num_training_batches if num_batches else 0.0
    return (trainer.current_epoch + of_epoch) / max(1, trainer.max_epochs or 1)


def progress_of(what: str, *, bar: bool) -> Callback:
    """The callback for a trainer: its bar, or lines without one."""
    return Bar(leave=False) if bar else MinuteLines(what)

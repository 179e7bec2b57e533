"""Which epoch's student is kept, and when a training stops: by validation accuracy once rationales were seen whole."""

from typing import Any

import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor

from kpod_lightning.distributed.checkpoints import KeptCheckpoint

RANK = "validation/rank"
"""What epochs are compared by, ``KPODModule`` logs it: accuracy, plus 1 where whole rationales had been taught."""


class InsideEpochs(KeptCheckpoint):
    """Not after an epoch's last batch: a training that resumed there would leave out its validation and its row."""

    def on_train_batch_end(self, trainer: Any, *others: Any) -> None:
        if not trainer.is_last_batch:
            super().on_train_batch_end(trainer, *others)


class BestStudent(KeptCheckpoint):
    """The student of the epoch with the best ``RANK``; of equal ones the later, which was trained longer."""

    def check_monitor_top_k(self, trainer: Any, current: Tensor | None = None) -> bool:
        if current is None or not self.best_k_models:
            return current is not None
        as_good = bool(torch.ge(current, self.best_k_models[self.kth_best_model_path]))
        return bool(trainer.strategy.reduce_boolean_decision(as_good))  # all ranks do the same


class StopEarly(EarlyStopping):
    """Counts only validations of students that have seen whole rationales: before that the accuracy says little."""

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if pl_module.has_seen_whole:
            super().on_validation_end(trainer, pl_module)


class ValidateLastEpoch(Callback):
    """The last epoch is validated, also where ``evaluation.every`` does not divide the epochs.

    Args:
        every: epochs between two validations otherwise.
    """

    def __init__(self, every: int) -> None:
        self.every = every

    def _set(self, trainer: Any) -> None:
        is_last = trainer.current_epoch + 1 == trainer.max_epochs
        trainer.check_val_every_n_epoch = 1 if is_last else self.every

    def on_train_start(self, trainer: Any, *_: Any) -> None:
        self._set(trainer)  # a training that goes on inside an epoch does not start that epoch again

    def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
        self._set(trainer)

"""The modules that train a student: plain distillation and KPOD."""

import math
import time
from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from kpod_lightning.config import EvaluationConfig, LaunchConfig, OptimConfig
from kpod_lightning.curricula.schedule import Schedule
from kpod_lightning.data.batches import seed_batch
from kpod_lightning.data.views import Batch
from kpod_lightning.distributed.ranks import summed
from kpod_lightning.distributed.sharding import recompute_activations, shard
from kpod_lightning.evaluation.generate import generate
from kpod_lightning.evaluation.grade import accuracy, grade
from kpod_lightning.students.nll import logits_and_targets, weighted_token_nll
from kpod_lightning.students.student import Student


def learning_rate_factor(step: int, num_steps: int, num_warmup: int, schedule: str) -> float:
    """Share of the peak rate at an optimiser step: linear warm-up, then ``schedule`` down to 0 at ``num_steps``."""
    if step < num_warmup:
        return (step + 1) / (num_warmup + 1)
    progress = (step - num_warmup) / max(1, num_steps - num_warmup)
    return {"constant": 1.0, "linear": 1.0 - progress, "cosine": 0.5 * (1.0 + math.cos(math.pi * progress))}[schedule]


class DistillationModule(L.LightningModule):
    """Trains a student on what the data module's stage asks of it.

    Args:
        student: model and tokenizer.
        optim: rates and schedule.
        num_steps: optimiser steps of the whole training, for the schedule of the rate.
        accumulate: micro-batches in one optimiser step on each rank.
    """

    def __init__(
        self,
        student: Student,
        optim: OptimConfig,
        *,
        num_steps: int,
        accumulate: int = 1,
        evaluation: EvaluationConfig | None = None,
        method: str = "plain",
        seed: int = 0,
        launch: LaunchConfig | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.model = student.model.train()  # registers the parameters; from_pretrained leaves dropout off
        self.launch = launch or LaunchConfig()
        if self.launch.activation_checkpointing:
            recompute_activations(self.model)
        self.optim = optim
        self.num_steps = num_steps
        self.accumulate = accumulate
        self.evaluation = evaluation or EvaluationConfig()
        self.method = method
        self.seed = seed
        # Of this rank since the last restart; no buffers, since DDP would overwrite them with those of rank 0.
        self.tokens_seen = 0
        self.epoch_nll = torch.zeros((), dtype=torch.float64)
        self.epoch_tokens = 0
        self._began = (0.0, 0.0)

    def configure_model(self) -> None:
        """Shard the student where the strategy does."""
        shard(self.model, self.model, self.device_mesh, self.launch, self.optim.precision, methods=["generate"])

    def sums(self) -> dict[str, float]:
        """Target tokens since the start, and nats and target tokens of this epoch, over all ranks."""
        seen, nll, tokens = summed([self.tokens_seen, float(self.epoch_nll), self.epoch_tokens])
        return {"tokens_seen": seen, "epoch_nll": nll, "epoch_tokens": tokens}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["sums"] = self.sums()
        checkpoint["accumulate"] = self.accumulate

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Another number of ranks may go on: the first one takes what all of them had, and each counts the global
        batches that were done in its own micro-batches."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["current"], progress["total"]):
            ready = counts["ready"]
            scaled = ready * self.accumulate // checkpoint["accumulate"]
            for name, count in counts.items():
                counts[name] = scaled - (ready - count)  # saved at a batch's end, it is not counted as completed
        if self.trainer.is_global_zero:
            sums = checkpoint["sums"]
            self.tokens_seen, self.epoch_tokens = int(sums["tokens_seen"]), int(sums["epoch_tokens"])
            self.epoch_nll = torch.tensor(sums["epoch_nll"], dtype=torch.float64)

    def on_train_epoch_start(self) -> None:
        self._began = (time.monotonic(), self.sums()["tokens_seen"])

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        seed_batch(self.seed, self.current_epoch, batch_idx, self.global_rank)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        logits, targets, weights = logits_and_targets(self.student, batch)
        total, _ = weighted_token_nll(logits, targets, weights)  # Eq. (15), summed over tokens
        if not torch.isfinite(total):
            raise FloatingPointError(
                f"loss is {total.item()} at epoch {self.current_epoch}, step {self.global_step}, examples "
                f"{', '.join(key[0] for key in batch.keys)}: lower optim.lr or use optim.precision=32-true"
            )
        num_targets = batch.num_targets
        self.tokens_seen += num_targets
        self.epoch_nll = self.epoch_nll + total.detach().double()
        self.epoch_tokens += num_targets
        # DDP averages gradients over ranks, Lightning over accumulated micro-batches. The data module knows the whole
        # global batch and what to divide by, so undoing the two averages needs no collective: two processes equal one.
        return total * (self.trainer.world_size * self.accumulate) / batch.divisor

    def epoch_metrics(self) -> dict[str, float]:
        """What is logged of an epoch when it ends."""
        began, seen = self._began
        sums = self.sums()
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        stage = datamodule.stage_of(self.current_epoch)
        steps = datamodule.input_steps[stage]
        return {
            "train/nats_per_token": sums["epoch_nll"] / max(1.0, sums["epoch_tokens"]),
            "train/tokens_seen": sums["tokens_seen"],
            "train/tokens_per_second": (sums["tokens_seen"] - seen) / max(1e-9, time.monotonic() - began),
            "train/stage": float(stage),
            "train/mean_input_steps": float(np.mean(steps)),
        }

    def on_train_epoch_end(self) -> None:
        found = self.epoch_metrics()
        validated = self.trainer.callback_metrics.get("validation/accuracy")
        asked = "" if validated is None else f", validation accuracy {100 * float(validated):.1f} %"
        # A log file shows no progress bar: one line an epoch says that it goes on.
        self.print(
            f"epoch {self.current_epoch + 1} of {self.trainer.max_epochs}: "
            f"{found['train/nats_per_token']:.3f} nats a token{asked}"
        )
        # To the loggers at once: what self.log keeps is written after the checkpoint, and a kill in between loses it.
        for logger in self.loggers:
            logger.log_metrics(found | {"epoch": self.current_epoch}, step=self.global_step - 1)
        self.epoch_nll = torch.zeros_like(self.epoch_nll)
        self.epoch_tokens = 0

    def validation_step(self, batch: Sequence[int], batch_idx: int) -> None:
        """Accuracy by greedy generation on the data module's validation problems."""
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        problems = [datamodule.validation[position] for position in batch]
        outputs = generate(
            problems,
            self.student,
            method=self.method,
            batch_size=self.evaluation.batch_size,
            max_new_tokens=self.evaluation.max_new_tokens,
        )
        result = accuracy(grade(problems, outputs, variant=self.evaluation.variant))
        low, high = result.interval
        self.log_dict(
            {
                "validation/accuracy": result.value,
                "validation/accuracy_low": low,
                "validation/accuracy_high": high,
                "validation/unparsable": result.num_unparsable / result.num_problems,
            },
            batch_size=1,
        )
        self.log("accuracy", result.value, prog_bar=True, logger=False, batch_size=1)

    def configure_optimizers(self) -> Any:
        family = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.optim.name]
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = family(trained, lr=self.optim.lr, weight_decay=self.optim.weight_decay)
        num_warmup = round(self.optim.warmup_fraction * self.num_steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: learning_rate_factor(step, self.num_steps, num_warmup, self.optim.schedule),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class KPODModule(DistillationModule):
    """Trains a student by Eq. (15): token weights and input steps come with the batches of the data module.

    The weights of the train set are read from a table; the weight network's own parameters lie beside it in
    ``weights.safetensors``. Without a schedule and weights this is plain distillation, Eq. (1).

    Args:
        schedule: whose stage, asked difficulty H(t) and budget D(t) are logged.
    """

    def __init__(
        self, student: Student, optim: OptimConfig, *, schedule: Schedule | None = None, **others: Any
    ) -> None:
        super().__init__(student, optim, **others)
        self.schedule = schedule

    def epoch_metrics(self) -> dict[str, float]:
        found = super().epoch_metrics()
        if self.schedule is None:
            return found
        stage = min(self.current_epoch, self.schedule.num_stages)
        return found | {
            "schedule/asked_nats": float(self.schedule.asked[stage]),
            "schedule/budget_nats": float(self.schedule.budgets[stage]),
        }

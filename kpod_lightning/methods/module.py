"""DistillationModule and KPODModule: Lightning modules that train a student by a method's loss."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, TypeVar

import lightning as L
import numpy as np
import torch
from torch import Tensor

from kpod_lightning.config import EvaluationConfig, LaunchConfig, OptimConfig, StudentConfig
from kpod_lightning.data.batches import seed_batch
from kpod_lightning.data.datamodule import StagedDataModule
from kpod_lightning.data.stages import Progress, Stages
from kpod_lightning.data.views import Batch
from kpod_lightning.distributed.preemption import stopping
from kpod_lightning.distributed.sharding import recompute_activations, shard
from kpod_lightning.distributed.sums import RankSums
from kpod_lightning.evaluation.generate import generate
from kpod_lightning.evaluation.grade import accuracy, grade
from kpod_lightning.methods.base import Method, method_of, run_settings
from kpod_lightning.methods.callbacks import RANK
from kpod_lightning.methods.kpod import KPOD
from kpod_lightning.store.errors import InputError
from kpod_lightning.students.forward import packs
from kpod_lightning.students.student import Student, add_lora, load_before

S = TypeVar("S")


def learning_rate_factor(
    step: float, num_steps: float, num_warmup: int, schedule: str, num_constant: float = 0
) -> float:
    """Share of the peak rate at an optimiser step: linear warm-up, then ``schedule`` down to 0 at ``num_steps``.

    Args:
        num_constant: steps before which the rate does not fall.
    """
    if step < num_warmup:
        return (step + 1) / (num_warmup + 1)
    start = max(num_warmup, num_constant)
    progress = max(0.0, step - start) / max(1, num_steps - start)
    return {"constant": 1.0, "linear": 1.0 - progress, "cosine": 0.5 * (1.0 + math.cos(math.pi * progress))}[schedule]


def settings_of(block: type[S], given: "S | Mapping[str, Any] | None") -> S:
    """A block of settings from itself, from the plain containers that a checkpoint holds, or from its defaults."""
    if given is None or isinstance(given, Mapping):
        return block(**(given or {}))
    return given


def learning_student(settings: StudentConfig, seed: int) -> Student:
    """The configured student as it starts to learn, with its adapters where it has any.

    Raises:
        InputError: it starts from a student that a run has tuned.
    """
    if settings.warm_epochs:
        raise InputError(
            f"student.warm_epochs={settings.warm_epochs} tunes the student in a run: give the module the student of "
            "that run, RationaleDataModule(run=FOLDER).context.student, or student.warm_epochs=0"
        )
    student = load_before(settings)
    if settings.lora_rank is None:
        return student
    return add_lora(student, settings.lora_rank, settings.lora_alpha, seed)


class DistillationModule(L.LightningModule):
    """Trains a student on the batches of a data module, by the loss of a method.

    Args:
        student: settings, from which ``configure_model`` builds the student; or a student that is loaded already,
            which no checkpoint can build again.
        optim: rates and schedule.
        method: gives loss and prompts: the name of one, or one that has begun (``Method.begin``).
        num_steps: optimiser steps of the whole training, for the schedule of the rate; None asks the trainer.
        evaluation: how validation problems are answered.
        seed: of dropout and of LoRA's first matrices.
        launch: how the student is spread over devices.
    """

    def __init__(
        self,
        student: Student | StudentConfig | None = None,
        optim: OptimConfig | None = None,
        *,
        method: Method | str = "plain",
        num_steps: int | None = None,
        evaluation: EvaluationConfig | None = None,
        seed: int = 0,
        launch: LaunchConfig | None = None,
    ) -> None:
        super().__init__()
        self.optim = settings_of(OptimConfig, optim)
        self.num_steps = num_steps
        self.evaluation = settings_of(EvaluationConfig, evaluation)
        self.method = method_of(run_settings(method)(seed=seed, method=method)) if isinstance(method, str) else method
        self.seed = seed
        self.launch = launch or LaunchConfig()
        self.student: Student
        if isinstance(student, Student):
            self.take(student)
        else:
            self.settings = settings_of(StudentConfig, student)
            # What load_from_checkpoint calls the constructor with, as plain containers, which every torch can read.
            self.save_hyperparameters(
                {
                    "student": asdict(self.settings),
                    "optim": asdict(self.optim),
                    "method": method if isinstance(method, str) else method.config.method,
                    "evaluation": asdict(self.evaluation),
                    "seed": seed,
                }
            )
        self.epoch_sums = RankSums("weighted", "mass", "squares", "nats", "tokens", *self.method.sums)
        self.all_tokens = RankSums("tokens")
        self._began = self._seconds = 0.0
        self._stage = 0

    def take(self, student: Student) -> None:
        """Train this student."""
        self.student = student
        self.model = student.model.train()  # registers the parameters; from_pretrained leaves dropout off
        self.packed = self.optim.packing is not False and packs(student, must=self.optim.packing is True)
        if self.launch.activation_checkpointing:
            recompute_activations(self.model)

    def configure_model(self) -> None:
        """Build the student, once, and shard it where the strategy does."""
        if "student" not in self.__dict__:
            self.take(learning_student(self.settings, self.seed))
        shard(self.model, self.model, self.device_mesh, self.launch, self.optim.precision, methods=["generate"])

    @property
    def staged(self) -> StagedDataModule | None:
        """The data module, where it is one of ours."""
        found = getattr(self.trainer, "datamodule", None)
        return found if isinstance(found, StagedDataModule) else None

    @property
    def stages_in_hand(self) -> Stages | None:
        """The stages that the data module follows; None where it knows none."""
        return None if self.staged is None else self.staged.stages

    @property
    def has_seen_whole(self) -> bool:
        """Whether the stage in hand teaches every rationale whole."""
        stages = self.stages_in_hand
        return stages is None or stages.is_whole(self._stage)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["sums"] = {"epoch": self.epoch_sums.compute(), "all": self.all_tokens.compute()}
        checkpoint["epoch_so_far"] = {"seconds": self.seconds(), "stage": self._stage}
        checkpoint["validating"] = self.trainer.validating  # the epoch's row is still to be logged
        checkpoint["accumulate"] = self.trainer.accumulate_grad_batches
        if (stages := self.stages_in_hand) is not None:
            checkpoint["curriculum"] = dict(stages.state_dict())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Another number of ranks may go on: the first one takes what all of them had, and each counts the global
        batches that were done in its own micro-batches."""
        self.configure_model()  # load_from_checkpoint wants the parameters that the checkpoint has
        if self._trainer is None:
            return
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["current"], progress["total"]):
            ready = counts["ready"]
            scaled = ready * self.trainer.accumulate_grad_batches // checkpoint["accumulate"]
            for name, count in counts.items():
                counts[name] = scaled - (ready - count)  # saved at a batch's end, it is not counted as completed
        nothing = dict.fromkeys(self.epoch_sums.names, 0.0)  # earlier versions had fewer sums
        self.epoch_sums.restore(nothing | checkpoint["sums"]["epoch"])
        self.all_tokens.restore(checkpoint["sums"]["all"])
        if (stages := self.stages_in_hand) is not None:
            stages.load_state_dict(checkpoint.get("curriculum", {}))
        so_far = checkpoint.get("epoch_so_far", {})  # earlier versions had none
        self._seconds, self._stage = so_far.get("seconds", 0.0), so_far.get("stage", 0)

    def on_fit_start(self) -> None:
        """Tell the data module whether to pack; refuse one whose batches are those of another method.

        Raises:
            InputError: they are.
        """
        if self.staged is not None:
            self.staged.dataset.packed = self.packed
        theirs = getattr(getattr(self.trainer, "datamodule", None), "method", None)
        if theirs is not None and type(theirs) is not type(self.method):
            raise InputError(
                f"the data module has method={theirs.config.method} and the module method={self.method.config.method}: "
                "give both the same one"
            )

    def seconds(self) -> float:
        """How long the epoch has taken so far, over all processes that had a part in it."""
        return self._seconds + time.monotonic() - self._began

    def on_train_start(self) -> None:
        self._began = time.monotonic()  # where a training goes on inside an epoch, the epoch does not start again

    def on_train_epoch_start(self) -> None:
        self._seconds, self._began = 0.0, time.monotonic()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        seed_batch(self.seed, self.current_epoch, batch_idx, self.global_rank)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        sums = self.method.loss(self.student, batch)
        total = sums.weighted  # Eq. (15), summed over tokens
        if not torch.isfinite(total):
            raise FloatingPointError(
                f"loss is {total.item()} at epoch {self.current_epoch + 1}, step {self.global_step + 1}, examples "
                f"{', '.join(key[0] for key in batch.keys)}: lower optim.lr or use optim.precision=32-true"
            )
        self._stage = batch.stage
        if (datamodule := self.staged) is not None:
            # Of the global batch, on every rank alike, once: so the place in a budget needs no collective.
            last = (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0
            datamodule.num_asked += batch.num_asked if last else 0
        num_targets = batch.num_targets
        of_batch = {"weighted": total.detach(), "mass": sums.mass, "squares": sums.squares, "nats": sums.nats}
        self.epoch_sums.update(**of_batch, tokens=num_targets, **sums.more)
        self.all_tokens.update(tokens=num_targets)
        # DDP averages gradients over ranks, Lightning over accumulated micro-batches. The data module knows the whole
        # global batch and what to divide by, so undoing the two averages needs no collective: two processes equal one.
        return total * (self.trainer.world_size * self.trainer.accumulate_grad_batches) / batch.divisor

    def epoch_metrics(self) -> dict[str, float]:
        """What is logged of an epoch when it ends."""
        epoch, seen = self.epoch_sums.compute(), self.all_tokens.compute()["tokens"]
        stages = self.stages_in_hand
        of_stage = {} if stages is None else stages.metrics(self._stage)
        if stages is None or type(stages).windows is Stages.windows:  # else another part than first steps is input
            steps = [0] if stages is None else stages.input_steps(self._stage)
            of_stage = {"train/mean_input_steps": float(np.mean(steps)), **of_stage}
        return {
            "train/nats_per_token": epoch["nats"] / max(1.0, epoch["tokens"]),
            "train/weighted_nats_per_token": epoch["weighted"] / max(1.0, epoch["tokens"]),
            "train/mean_weight": epoch["mass"] / max(1.0, epoch["tokens"]),
            "train/effective_share": epoch["mass"] ** 2 / max(1e-30, epoch["squares"] * epoch["tokens"]),
            **{f"train/{name}": epoch[name] / max(1.0, epoch["tokens"]) for name in self.method.sums},
            "train/tokens_seen": seen,
            "train/tokens_per_second": epoch["tokens"] / max(1e-9, self.seconds()),
            "train/stage": float(self._stage),
            **of_stage,
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
        self.epoch_sums.reset()
        with self.trainer.precision_plugin.val_step_context():  # as a validation computes
            self.method.curriculum.after_epoch(self.student, self.current_epoch)

    def validation_step(self, batch: Sequence[int], batch_idx: int) -> None:
        """Accuracy by greedy generation on the validation problems of the loader."""
        validation = self.trainer.val_dataloaders.dataset.problems  # type: ignore[union-attr]
        problems = [validation[position] for position in batch]
        outputs = generate(
            problems,
            self.student,
            prompt=self.method.prompt,
            batch_size=self.evaluation.batch_size,
            max_new_tokens=self.evaluation.max_new_tokens,
            own_decoding=self.evaluation.generation_config == "student",
            track=stopping,
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
        self.log(RANK, result.value + self.has_seen_whole, logger=False, batch_size=1)

    def num_optimizer_steps(self) -> int:
        """Of the whole training, for the schedule of the rate."""
        if self.num_steps is not None:
            return self.num_steps
        max_epochs = self.trainer.max_epochs
        if self.staged is not None and max_epochs is not None and self.trainer.max_steps == -1:
            return self.staged.num_optimizer_steps(max_epochs)
        return int(self.trainer.estimated_stepping_batches)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """A step at the schedule's rate times the method's factor for the epoch."""
        factor, groups = self.method.rate_factor(epoch), optimizer.param_groups
        rates = [group["lr"] for group in groups]
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * factor
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate

    def rate_factors(self) -> Callable[[int], float]:
        """Share of the peak rate from an optimiser step; where the budget is tokens, from the tokens so far."""
        optim, datamodule = self.optim, self.staged
        by_tokens = optim.tokens is not None and datamodule is not None
        before = Progress(epoch=0)
        if optim.decay_from == "whole" and datamodule is not None:
            before = datamodule.before_whole(optim.epochs)
        # Tokens are counted in batches of the mean size, so that a warm-up begins as one in steps does.
        of_batch = datamodule.num_targets() * datamodule.batch_size / len(datamodule.examples) if datamodule else 1.0
        num_steps = (optim.tokens or 0) / of_batch if by_tokens else optim.steps or self.num_optimizer_steps()
        num_constant = before.tokens / of_batch if by_tokens else before.step
        num_warmup = round(optim.warmup_fraction * num_steps)

        def factor(step: int) -> float:
            place = datamodule.num_asked / of_batch if by_tokens and datamodule is not None else step
            return learning_rate_factor(place, num_steps, num_warmup, optim.schedule, num_constant)

        return factor

    def configure_optimizers(self) -> Any:
        family = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.optim.name]
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        # One pass over all numbers of a parameter; under autocast Lightning then would refuse to clip the gradient.
        fused = not self.optim.precision.endswith("-mixed")
        optimizer = family(trained, lr=self.optim.lr, weight_decay=self.optim.weight_decay, fused=fused)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.rate_factors())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class KPODModule(DistillationModule):
    """Trains a student by KPOD: it wraps the student, the trained weight network and the schedule.

    Weights of the train set's tokens come with the batches, from a table, and so do input steps. Where the method has
    no learned weights and no schedule this is plain distillation, Eq. (1).
    """

    def __init__(
        self,
        student: Student | StudentConfig | None = None,
        optim: OptimConfig | None = None,
        *,
        method: Method | str = "kpod",
        num_steps: int | None = None,
        evaluation: EvaluationConfig | None = None,
        seed: int = 0,
        launch: LaunchConfig | None = None,
    ) -> None:
        super().__init__(
            student, optim, method=method, num_steps=num_steps, evaluation=evaluation, seed=seed, launch=launch
        )

    @cached_property
    def weight_network(self) -> torch.nn.Module | None:
        """The trained weight network, frozen, for rationales that the table has no weights of; None: none was learned.

        It is loaded when it is asked for, and is no part of checkpoints: it lies in ``weights.safetensors``.
        """
        if not isinstance(self.method, KPOD) or self.method.context is None:
            return None
        return self.method.weighting.network(self.method.context)

    @property
    def stages(self) -> Stages | None:
        """The schedule as the data module follows it; None before the method has begun."""
        return getattr(self.method, "stages", None)

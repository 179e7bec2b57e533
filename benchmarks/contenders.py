"""Who trains in the training section: this package, a bare loop, Hugging Face's Trainer and TRL, on the same examples.

A contender is a function that trains ``Task.epochs`` passes over the task's examples, in batches of BATCH_SIZE, with
AdamW, one cosine, float32 (bf16 on a GPU) and clipping at 1, and calls ``turn`` at the end of each.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from kpod_lightning.config import LaunchConfig, OptimConfig, RunConfig, WeightsConfig
from kpod_lightning.data.datamodule import ExampleDataModule
from kpod_lightning.data.examples import Example
from kpod_lightning.data.stages import InputSteps
from kpod_lightning.data.views import IGNORE
from kpod_lightning.distributed.trainer import trainer_of
from kpod_lightning.keypoints.base import Weighting
from kpod_lightning.methods.base import Method, method_of
from kpod_lightning.methods.module import KPODModule, learning_rate_factor
from kpod_lightning.students.student import Student

BATCH_SIZE, RATE, CLIP = 8, 5e-5, 1.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """What all contenders train on.

    ``examples`` come in the order that a sampler by length gives, in whole batches; whoever does not group by length
    takes them in an order of ``shuffled``. ``on_gpu`` trains in bf16; ``compiled`` by torch.compile; ``attention`` is
    what the student computes it with, by Hugging Face's name, None: its default.
    """

    examples: list[Example]
    epochs: int
    on_gpu: bool = False
    compiled: bool = False
    attention: str | None = None

    def shuffled(self, epoch: int) -> list[Example]:
        order = np.random.default_rng([0, epoch]).permutation(len(self.examples))
        return [self.examples[i] for i in order]

    @property
    def num_steps(self) -> int:
        return self.epochs * -(-len(self.examples) // BATCH_SIZE)

    @property
    def num_targets(self) -> int:
        """Of one epoch."""
        return sum(len(example.target_ids) for example in self.examples)


Contender = Callable[[Task, Student, Callable[[], None]], None]


def columns(examples: list[Example]) -> list[dict[str, list[int]]]:
    """Examples as Hugging Face has them: ids, and labels that leave the prompt out."""
    return [
        {
            "input_ids": [*e.prompt_ids, *e.target_ids],
            "labels": [IGNORE] * len(e.prompt_ids) + list(e.target_ids),
        }
        for e in examples
    ]


# ---- this package ----


class TargetProbability(Weighting):
    """A weight that is made in the step, as that of dynamic fine-tuning: the target's probability."""

    def in_step(self, logits: Any, nll: Any, targets: Any, weights: Any) -> Any:
        return weights * (-nll).exp()


def run_config(method: str, task: Task) -> RunConfig:
    """The settings of a run with this package's defaults, but for what every contender has."""
    return RunConfig(
        seed=0,
        method=method,
        weights=WeightsConfig(kind="uniform"),
        curriculum="none",
        optim=OptimConfig(
            lr=RATE,
            batch_size=BATCH_SIZE,
            epochs=task.epochs,
            clip_norm=CLIP,
            precision="bf16-mixed" if task.on_gpu else "32-true",
        ),
        launch=LaunchConfig(accelerator="gpu" if task.on_gpu else "cpu", devices=1),
    )


def with_lightning(task: Task, student: Student, turn: Callable[[], None], *, method: Method, **others: Any) -> None:
    """Train by the classes and the trainer of ``kpod run``.

    Args:
        others: stages and token weights of the data module.
    """
    from lightning.pytorch.callbacks import Callback

    class Turns(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            turn()

    config = method.config
    if task.compiled:
        student.model.compile()
    data = ExampleDataModule(
        task.examples,
        encoder_decoder=False,
        pad_token_id=student.pad_token_id,
        eos_token_id=student.tokenizer.eos_token_id,
        batch_size=BATCH_SIZE,
        seed=0,
        **others,
    )
    module = KPODModule(student, config.optim, method=method, num_steps=task.num_steps)
    trainer = trainer_of(
        config,
        "training",
        [Turns()],
        max_epochs=task.epochs,
        gradient_clip_val=config.optim.clip_norm,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_checkpointing=False,
        logger=False,
    )
    trainer.fit(module, datamodule=data)


def plain(task: Task, student: Student, turn: Callable[[], None]) -> None:
    with_lightning(task, student, turn, method=method_of(run_config("plain", task)))


def kpod(task: Task, student: Student, turn: Callable[[], None]) -> None:
    """Weights from a table, and the last stage of a schedule: the same tokens as plain distillation."""
    rng = np.random.default_rng(0)
    with_lightning(
        task,
        student,
        turn,
        method=method_of(run_config("kpod", task)),
        stages=InputSteps([[0] * len(task.examples)]),
        token_weights=[rng.uniform(0, 2, len(e.target_ids)) for e in task.examples],
    )


def dft(task: Task, student: Student, turn: Callable[[], None]) -> None:
    method = method_of(run_config("plain", task))
    method.weighting = TargetProbability(method.config)
    with_lightning(task, student, turn, method=method)


# ---- peers ----


def bare(task: Task, student: Student, turn: Callable[[], None]) -> None:
    """A plain PyTorch loop on padded batches, with the loss that the model itself gives."""
    from transformers import DataCollatorForSeq2Seq

    collate = DataCollatorForSeq2Seq(student.tokenizer)
    device = "cuda" if task.on_gpu else "cpu"
    model = student.model.to(device).train()
    if task.compiled:
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    rate = partial(learning_rate_factor, num_steps=task.num_steps, num_warmup=0, schedule="cosine")
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    for epoch in range(task.epochs):
        rows = columns(task.shuffled(epoch))
        for start in range(0, len(rows), BATCH_SIZE):
            batch = collate(rows[start : start + BATCH_SIZE]).to(device)
            with torch.autocast(device, torch.bfloat16, enabled=task.on_gpu):
                loss = model(**batch, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        turn()


def trainer_arguments(task: Task) -> dict[str, Any]:
    """Arguments that Hugging Face's Trainer and TRL share; the rest are their defaults."""
    return {
        "output_dir": "unused",
        "per_device_train_batch_size": BATCH_SIZE,
        "num_train_epochs": task.epochs,
        "learning_rate": RATE,
        "lr_scheduler_type": "cosine",
        "max_grad_norm": CLIP,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": task.on_gpu,
        "use_cpu": not task.on_gpu,
        "bf16": task.on_gpu,
        "torch_compile": task.compiled,
        "seed": 0,
    }


def turns_of(turn: Callable[[], None]) -> Any:
    """A callback of Hugging Face's Trainer."""
    from transformers import TrainerCallback

    class Turns(TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            turn()

    return Turns()


def hf(task: Task, student: Student, turn: Callable[[], None], *, grouped: bool = False) -> None:
    """Hugging Face's Trainer as it is.

    Args:
        grouped: the batches are those of its sampler by length, over many more examples than are trained on.
    """
    from datasets import Dataset
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    order = {"train_sampling_strategy": "sequential"} if grouped else {}
    trainer = Trainer(
        student.model,
        TrainingArguments(**trainer_arguments(task), **order),
        train_dataset=Dataset.from_list(columns(task.examples)),
        data_collator=DataCollatorForSeq2Seq(student.tokenizer),
        callbacks=[turns_of(turn)],
    )
    trainer.train()


def trl(task: Task, student: Student, turn: Callable[[], None], **others: Any) -> None:
    """TRL's SFT trainer, padded batches; memory is not short, so activations are kept.

    Args:
        others: arguments of ``SFTConfig``.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    shared = trainer_arguments(task) | {"gradient_checkpointing": False, "max_length": None} | others
    trainer = SFTTrainer(
        student.model,
        SFTConfig(**shared),
        train_dataset=Dataset.from_list(columns(task.examples)),
        processing_class=student.tokenizer,
        callbacks=[turns_of(turn)],
    )
    trainer.train()


def trl_packed(task: Task, student: Student, turn: Callable[[], None], **others: Any) -> None:
    """TRL packed: rows of as many tokens as a padded batch has real ones, one a step, without cross-talk."""
    per_step = sum(map(len, task.examples)) * BATCH_SIZE / len(task.examples)
    row = max(round(1.02 * per_step), *map(len, task.examples))  # a little room, else the packing needs a row more
    trl(task, student, turn, packing=True, max_length=row, per_device_train_batch_size=1, **others)


CONTENDERS: dict[str, Contender] = {
    "plain": plain,
    "kpod": kpod,
    "dft": dft,
    "bare": bare,
    "hf": hf,
    "hf_grouped": partial(hf, grouped=True),
    "trl": trl,
    "trl_packed": trl_packed,
    "trl_packed_dft": partial(trl_packed, loss_type="dft"),
    "trl_packed_liger": partial(trl_packed, use_liger_kernel=True),
}

NAMES = {
    "plain": "ours, plain",
    "kpod": "ours, kpod",
    "dft": "ours, dft",
    "bare": "bare PyTorch loop",
    "hf": "HF Trainer",
    "hf_grouped": "HF Trainer, grouped by length",
    "trl": "TRL SFT",
    "trl_packed": "TRL SFT, packed",
    "trl_packed_dft": "TRL SFT, packed, dft",
    "trl_packed_liger": "TRL SFT, packed, Liger",
}


def train(name: str, task: Task, student: Student, turn: Callable[[], None]) -> None:
    """Run one contender; warnings of libraries are not shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if task.attention is not None:
            student.model.set_attn_implementation(task.attention)
        CONTENDERS[name](task, student, turn)

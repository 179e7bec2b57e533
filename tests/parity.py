"""Twenty steps of Eq. (15) with weights and stages on one or more ranks, to be compared; a program of test_ranks.py.

Writes the loss of every step, what every example was seen with, and the state of every rank's parameters.
"""

import argparse
import json
import logging
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from kpod_lightning.config import LaunchConfig, OptimConfig, RunConfig
from kpod_lightning.curricula.schedule import build_schedule
from kpod_lightning.data.arithmetic import generate
from kpod_lightning.data.datamodule import ExampleDataModule
from kpod_lightning.data.examples import make_example
from kpod_lightning.data.rationales import Rationale
from kpod_lightning.data.stages import InputSteps
from kpod_lightning.data.steps import split_steps
from kpod_lightning.distributed import ranks
from kpod_lightning.distributed.checkpoints import make_one_file, newest_checkpoint
from kpod_lightning.distributed.trainer import trainer_of
from kpod_lightning.methods.module import KPODModule
from kpod_lightning.students.student import add_lora, load_student

GLOBAL_BATCH = 12
NUM_EXAMPLES = 48
EPOCHS = 5
"""Four steps each; the stage changes after the first, second and third."""


class Recorded(KPODModule):
    """Keeps this rank's part of every step's loss, and the keys of its examples."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.parts: list[tuple[int, float]] = []
        self.seen: list[tuple[int, str]] = []

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.parts.append(
            (self.global_step, float(loss.detach()) / (self.trainer.world_size * self.trainer.accumulate_grad_batches))
        )
        self.seen += [(self.current_epoch, key[0]) for key in batch.keys]
        return loss


class StopAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.should_stop = True


def without_dropout(model):
    """Parts of a batch draw dropout masks of their own; that they agree is a statement about the loss."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0


def norm_in_float64(model):
    """T5's norm computes in float32 whatever it is given, and Adam makes much of the rounding of a small gradient."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ == "T5LayerNorm":
                norm = torch.nn.RMSNorm(len(child.weight), child.variance_epsilon, dtype=torch.float64)
                norm.weight = child.weight
                setattr(module, name, norm)


def launch_of(words: argparse.Namespace) -> LaunchConfig:
    return LaunchConfig(
        strategy=words.strategy,
        devices=words.devices,
        accelerator="cpu",
        activation_checkpointing=words.checkpointing,
    )


def train(words: argparse.Namespace) -> None:
    launch = launch_of(words)
    config = RunConfig(seed=1, launch=launch)
    made = [m.problem for m in generate("train", NUM_EXAMPLES, seed=0)]
    rationales = [Rationale(problem=p, text=p.rationale, steps=tuple(split_steps(p.rationale))) for p in made]
    student = load_student(words.student, dtype=torch.float32 if words.float32 else torch.float64)
    if words.lora:
        student = add_lora(student, 4, None, seed=1)
    without_dropout(student.model)
    if not words.float32:
        student.model.double()  # adapters, too
        norm_in_float64(student.model)
    examples = [make_example(r, student.tokenizer, encoder_decoder=student.encoder_decoder) for r in rationales]
    rng = np.random.default_rng(0)
    schedule = build_schedule(
        [rng.lognormal(0, 0.7, e.num_steps) for e in examples],
        np.arange(NUM_EXAMPLES) % 3,
        3,
        keys=[e.key for e in examples],
    )
    # At 1e-3 a step of T5 makes two to five times as much of every rounding.
    optim = replace(OptimConfig(), lr=1e-3 if words.student == "tiny-llama" else 3e-4, epochs=EPOCHS)
    data = ExampleDataModule(
        examples,
        encoder_decoder=student.encoder_decoder,
        pad_token_id=student.pad_token_id,
        eos_token_id=student.tokenizer.eos_token_id,
        batch_size=GLOBAL_BATCH,
        seed=1,
        stages=InputSteps(schedule.input_steps.tolist()),
        token_weights=[rng.uniform(0, 2, len(e.target_ids)).tolist() for e in examples],
    )
    module = Recorded(
        student,
        optim,
        num_steps=EPOCHS * NUM_EXAMPLES // GLOBAL_BATCH,
        seed=1,
        launch=launch,
    )
    folder = words.out / "checkpoints"
    resume = newest_checkpoint(words.resume) if words.resume else None
    assert (resume is None) == (words.resume is None), f"{words.resume} has no checkpoint"
    if resume is not None and resume.is_dir() and words.strategy != "fsdp":
        ranks.first_rank(lambda: make_one_file(resume))
    callbacks = [StopAt(words.stop)] if words.stop else []
    if words.stop:
        every = ModelCheckpoint(dirpath=folder, filename="step", every_n_train_steps=1, enable_version_counter=False)
        callbacks.append(every)
    trainer = trainer_of(
        config,
        max_epochs=EPOCHS,
        limit_val_batches=0,
        accumulate_grad_batches=words.accumulate,
        gradient_clip_val=1.0,
        enable_progress_bar=False,
        enable_checkpointing=bool(words.stop),
        logger=False,
        callbacks=callbacks,
        default_root_dir=words.out,
    )
    before = {name: parameter.detach().double().clone() for name, parameter in module.named_parameters()}
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)

    state = {}
    for name, parameter in module.named_parameters():
        full = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
        state[name] = full.detach().double()
    words.out.mkdir(parents=True, exist_ok=True)
    found = {
        "parts": module.parts,
        "seen": module.seen,
        "sums": {name: float(value.sum()) for name, value in state.items()},
        "norm": float(torch.stack([value.norm() for value in state.values()]).norm()),
        "moved": max(float((value - before[name]).abs().max()) for name, value in state.items() if name in before),
    }
    (words.out / f"rank{ranks.rank()}.json").write_text(json.dumps(found))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--student", default="tiny-llama")
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--checkpointing", action="store_true", help="of activations")
    parser.add_argument("--float32", action="store_true", help="as runs compute; Adam makes much of its rounding")
    parser.add_argument("--stop", type=int, help="optimiser steps after which to stop with a checkpoint")
    parser.add_argument("--resume", type=Path, help="folder of checkpoints to go on from")
    words = parser.parse_args()
    launch = launch_of(words)
    code = ranks.start(launch, [sys.executable, *sys.argv])
    if code is not None:
        return code
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with ranks.joined(launch):
        train(words)
    return 0


if __name__ == "__main__":
    sys.exit(main())

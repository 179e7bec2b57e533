"""A step is the same step packed, padded and accumulated, at a rate at which rounding grows from step to step, too."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from parity import norm_in_float64

from kpod_lightning.config import LaunchConfig, OptimConfig, RunConfig
from kpod_lightning.data.arithmetic import generate
from kpod_lightning.data.datamodule import ExampleDataModule
from kpod_lightning.data.examples import make_example
from kpod_lightning.data.rationales import Rationale
from kpod_lightning.data.steps import split_steps
from kpod_lightning.distributed.trainer import trainer_of
from kpod_lightning.methods.module import DistillationModule
from kpod_lightning.students.student import load_student

STEPS = 4
WAYS = {
    "padded": {"packing": False},
    "packed, accumulated": {"packing": True, "micro_batch_size": 2},
}


class Steps(Callback):
    """Keeps the parameters after each optimiser step.

    Args:
        leader: whose parameters the student has before each next step, so that a difference is of that step alone.
    """

    def __init__(self, leader: "Steps | None" = None) -> None:
        self.leader = leader
        self.after: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if trainer.global_step == len(self.after):
            return  # more micro-batches of this step are to come
        parameters = list(module.parameters())
        self.after.append(torch.nn.utils.parameters_to_vector(parameters).detach().clone())
        if self.leader is not None:
            torch.nn.utils.vector_to_parameters(self.leader.after[len(self.after) - 1].clone(), parameters)


def trained(folder: Path, name: str, steps: Steps, **optim) -> list[torch.Tensor]:
    """Parameters of a student in float64 after each step at a rate of 3e-3."""
    made = [m.problem for m in generate("train", 4 * STEPS, seed=0, max_steps=2)]
    rationales = [Rationale(problem=p, text=p.rationale, steps=tuple(split_steps(p.rationale))) for p in made]
    student = load_student(name, dtype=torch.float64)
    norm_in_float64(student.model)
    data = ExampleDataModule(
        [make_example(r, student.tokenizer, encoder_decoder=student.encoder_decoder) for r in rationales],
        encoder_decoder=student.encoder_decoder,
        pad_token_id=student.pad_token_id,
        eos_token_id=student.tokenizer.eos_token_id,
        batch_size=4,
    )
    settings = OptimConfig(lr=3e-3, batch_size=4, **optim)
    launch = LaunchConfig(accelerator="cpu", devices=1)
    trainer = trainer_of(
        RunConfig(seed=0, launch=launch),
        max_epochs=1,
        limit_val_batches=0,
        accumulate_grad_batches=4 // (settings.micro_batch_size or 4),
        gradient_clip_val=1.0,
        enable_progress_bar=False,
        enable_checkpointing=False,
        logger=False,
        callbacks=[steps],
        default_root_dir=folder,
    )
    module = DistillationModule(student, settings, num_steps=STEPS, launch=launch)
    trainer.fit(module, datamodule=data)
    assert module.packed == settings.packing and len(steps.after) == STEPS
    return steps.after


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_each_step_at_a_high_rate_is_the_same_packed_padded_and_accumulated(tmp_path, name):
    packed = Steps()
    trained(tmp_path, name, packed, packing=True)
    assert (packed.after[-1] - packed.after[0]).abs().max() > 1e-3  # it learns
    for way, optim in WAYS.items():
        other = trained(tmp_path, name, Steps(packed), **optim)
        for step, (one, two) in enumerate(zip(packed.after, other, strict=True)):
            assert (one - two).abs().max() < 1e-9, f"{way}, step {step}"

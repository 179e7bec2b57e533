"""Losses step by step against those recorded before the code was moved into rooms: see tests/golden/README.md."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from parity import norm_in_float64, without_dropout

from kpod_lightning.config import OptimConfig, RunConfig
from kpod_lightning.curricula.schedule import build_schedule
from kpod_lightning.data.arithmetic import generate
from kpod_lightning.data.datamodule import ExampleDataModule
from kpod_lightning.data.examples import make_example
from kpod_lightning.data.rationales import Rationale
from kpod_lightning.data.stages import InputSteps
from kpod_lightning.data.steps import split_steps
from kpod_lightning.distributed.trainer import trainer_of
from kpod_lightning.methods.module import DistillationModule, KPODModule
from kpod_lightning.students.student import load_student

NUM_EXAMPLES, BATCH_SIZE, EPOCHS, SEED = 24, 6, 3, 1
"""As in tests/golden/record.py, and so are difficulties, clusters and weights below."""

RECORDED = json.loads((Path(__file__).parents[1] / "golden" / "losses.json").read_text())


@pytest.fixture(params=RECORDED, ids=lambda run: f"{run['student']}-{run['method']}")
def recorded(request):
    return request.param


@pytest.fixture
def student(recorded):
    student = load_student(recorded["student"], dtype=torch.float64)
    without_dropout(student.model)
    student.model.double()
    norm_in_float64(student.model)
    return student


@pytest.fixture
def examples(student):
    made = [m.problem for m in generate("train", NUM_EXAMPLES, seed=0)]
    rationales = [Rationale(problem=p, text=p.rationale, steps=tuple(split_steps(p.rationale))) for p in made]
    return [make_example(r, student.tokenizer, encoder_decoder=student.encoder_decoder) for r in rationales]


def input_steps_of(examples):
    difficulties = [1.0 + np.arange(e.num_steps) + 0.01 * i for i, e in enumerate(examples)]
    clusters = np.arange(NUM_EXAMPLES) % 3
    return build_schedule(difficulties, clusters, 2, keys=[e.key for e in examples]).input_steps.tolist()


def weights_of(examples):
    return [
        [1.0 if step == e.num_steps else ((7 * i + 3 * j) % 11) / 5 for j, step in enumerate(e.step_of)]
        for i, e in enumerate(examples)
    ]


def trained(student, examples, module_type, **staged):
    """The loss of every step."""
    losses = []

    class Recorded(module_type):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            losses.append(float(loss.detach()))
            return loss

    data = ExampleDataModule(
        examples,
        encoder_decoder=student.encoder_decoder,
        pad_token_id=student.pad_token_id,
        eos_token_id=student.tokenizer.eos_token_id,
        batch_size=BATCH_SIZE,
        seed=SEED,
        **staged,
    )
    optim = replace(OptimConfig(), lr=1e-3, epochs=EPOCHS)
    trainer = trainer_of(
        RunConfig(seed=SEED),
        max_epochs=EPOCHS,
        limit_val_batches=0,
        gradient_clip_val=1.0,
        enable_progress_bar=False,
        enable_checkpointing=False,
        logger=False,
    )
    trainer.fit(Recorded(student, optim, seed=SEED), datamodule=data)
    return losses


def test_losses_are_those_recorded(recorded, student, examples):
    if recorded["method"] == "plain":
        losses = trained(student, examples, DistillationModule)
    else:
        stages = InputSteps(recorded["input_steps"])
        losses = trained(student, examples, KPODModule, stages=stages, token_weights=weights_of(examples))
    assert losses == pytest.approx(recorded["losses"], rel=1e-6)


def test_schedule_is_the_one_recorded(recorded, examples):
    if recorded["method"] == "kpod":
        assert input_steps_of(examples) == recorded["input_steps"]

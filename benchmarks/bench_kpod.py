"""What KPOD's own passes cost on tiny-llama: step difficulties, Eq. (8), and the answer losses after every prefix.

* Step difficulties against one evaluation pass of the loss over the same batches in a bare loop.
* Answer losses after every prefix of 16 rationales, forward and backward, in one pass, against a pass for each prefix.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DataCollatorForSeq2Seq

from benchmarks.contenders import columns
from benchmarks.inputs import data_name, examples_of
from benchmarks.measure import Options, Ratio, in_turns
from kpod_lightning.config import RunConfig, WeightsConfig
from kpod_lightning.curricula.measure import measure_difficulties
from kpod_lightning.data.examples import Example
from kpod_lightning.keypoints.batches import collate_keypoints
from kpod_lightning.keypoints.module import KeypointModule
from kpod_lightning.keypoints.network import WeightNetwork
from kpod_lightning.keypoints.prefixes import answer_nll, prefix_ends
from kpod_lightning.students.student import Student, load_student

STUDENT = "tiny-llama"


@torch.no_grad()
def loss_pass(student: Student, examples: list[Example], batch_size: int) -> None:
    """Loss of every batch by the model itself, in padded batches sorted by length."""
    student.model.eval()
    collate = DataCollatorForSeq2Seq(student.tokenizer)
    rows = columns(sorted(examples, key=len))
    for start in range(0, len(rows), batch_size):
        student.model(**collate(rows[start : start + batch_size]), use_cache=False).loss.item()


def difficulties(config: RunConfig, student: Student, examples: list[Example], weights: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        list(measure_difficulties(config, student, examples, weights, Path(folder) / "losses"))


def prefix_losses(module: KeypointModule, examples: list[Example], *, together: bool) -> None:
    batch = collate_keypoints(examples, module.answer_model.pad_token_id)
    ends, shares = prefix_ends(batch, "all", 0)
    for part in [slice(None)] if together else [slice(k, k + 1) for k in range(ends.shape[1])]:
        trunk = module.masked_trunk(batch, torch.ones(batch.trunk_ids.shape))
        nll = answer_nll(module.answer_model, batch, trunk, ends[:, part])
        (nll * shares[:, part]).sum().backward()


def measure(options: Options) -> list[Ratio]:
    student = load_student(STUDENT)
    examples = examples_of(STUDENT, options, 40 if options.quick else 400)
    rng = np.random.default_rng(0)
    weights = [rng.uniform(0, 1, e.num_rationale_tokens) for e in examples]
    config, rounds = RunConfig(seed=0), options.rounds or (1 if options.quick else 5)
    rows = [
        in_turns(
            "step difficulties",
            "a bare evaluation pass of the loss, sorted by length",
            lambda: difficulties(config, student, examples, weights),
            lambda: loss_pass(student, examples, max(config.optim.batch_size, 16)),
            rounds=rounds,
            goal=1.0,
            note=f"{data_name(options)}, {len(examples)} rationales, {STUDENT}",
        )
    ]
    module = KeypointModule(load_student(STUDENT), WeightNetwork(student), WeightsConfig(), updates_per_epoch=1)
    some = [e for e in examples if 30 <= e.num_rationale_tokens <= 60][:16]
    rows.append(
        in_turns(
            "answer losses after all prefixes",
            "a pass for each prefix",
            lambda: prefix_losses(module, some, together=True),
            lambda: prefix_losses(module, some, together=False),
            rounds=min(rounds, 3),
            note=f"{len(some)} rationales of 30 to 60 tokens",
        )
    )
    return rows

"""What KPOD costs beside plain distillation, on tiny-llama and generated rationales; prints ratios of times.

* An epoch with token weights, at the last stage of a schedule (whole rationales: the same tokens), against a plain one.
* Step difficulties, Eq. (8), against one evaluation pass of the loss over the same batches in a bare loop.

Alternates the two of a pair so that a drift of the machine meets both, and compares the fastest of each.
"""

import logging
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from bench_training import BATCH_SIZE, NUM_EXAMPLES, OPTIM, ROUNDS, generated_examples, timed_epoch

from kpod_lightning.config import RunConfig
from kpod_lightning.curricula.difficulties import token_loss_loader
from kpod_lightning.curricula.measure import measure_difficulties
from kpod_lightning.curricula.schedule import build_schedule
from kpod_lightning.data.batches import batches_by_length
from kpod_lightning.data.datamodule import ExampleDataModule
from kpod_lightning.data.example_table import lengths_of
from kpod_lightning.data.stages import InputSteps
from kpod_lightning.methods.module import KPODModule
from kpod_lightning.students.nll import logits_and_targets, weighted_token_nll
from kpod_lightning.students.student import load_student


def epoch(student, examples, schedule=None, token_weights=None) -> float:
    """Seconds of the epoch after the schedule's last stage."""
    datamodule = ExampleDataModule(
        examples,
        encoder_decoder=False,
        pad_token_id=student.pad_token_id,
        eos_token_id=student.tokenizer.eos_token_id,
        batch_size=BATCH_SIZE,
        stages=None if schedule is None else InputSteps(schedule.input_steps[-1:].tolist()),
        token_weights=token_weights,
    )
    module = KPODModule(student, OPTIM, num_steps=NUM_EXAMPLES // BATCH_SIZE)
    return timed_epoch(module, datamodule)


@torch.no_grad()
def loss_pass(student, examples, batch_size) -> float:
    began = time.perf_counter()
    student.model.eval()
    total = torch.zeros(3)
    for batch in token_loss_loader(examples, student, batches_by_length(lengths_of(examples), batch_size)):
        total += torch.stack(weighted_token_nll(*logits_and_targets(student, batch)))
    return time.perf_counter() - began


def difficulties(config, student, examples, weights) -> float:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        list(measure_difficulties(config, student, examples, weights, Path(folder) / "losses"))
    return time.perf_counter() - began


def compare(what: str, ours, theirs) -> None:
    times = [(ours(), theirs()) for _ in range(ROUNDS)]
    mine, other = (min(column) for column in zip(*times, strict=True))
    print(f"{what}: {mine:.1f} s against {other:.1f} s, {mine / other:.3f} times, {torch.get_num_threads()} threads")


def main() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    student = load_student("tiny-llama")
    examples = generated_examples(student)
    rng = np.random.default_rng(0)
    schedule = build_schedule([rng.lognormal(0, 0.7, e.num_steps) for e in examples], np.zeros(len(examples), int), 2)
    loss_weights = [rng.uniform(0, 2, len(e.target_ids)).tolist() for e in examples]
    weights = [rng.uniform(0, 1, e.num_rationale_tokens) for e in examples]
    config = RunConfig(seed=0)
    compare(
        "KPOD epoch against plain epoch, same tokens",
        lambda: epoch(load_student("tiny-llama"), examples, schedule, loss_weights),
        lambda: epoch(load_student("tiny-llama"), examples),
    )
    compare(
        "step difficulties against an evaluation pass of the loss",
        lambda: difficulties(config, student, examples, weights),
        lambda: loss_pass(student, examples, max(config.optim.batch_size, 16)),
    )


if __name__ == "__main__":
    main()

"""Contenders of the training section train on the same examples, and those without TRL run here."""

import numpy as np
import pytest
import torch

from benchmarks.bench_training import Table, compared, filled, grouped_batches
from benchmarks.contenders import BATCH_SIZE, CONTENDERS, NAMES, Task, train
from benchmarks.inputs import examples_of
from benchmarks.measure import Options
from kpod_lightning.students.student import load_student


@pytest.fixture(scope="module")
def examples():
    return examples_of("tiny-llama", Options(), 48)


@pytest.mark.parametrize("name", ["plain", "kpod", "dft", "bare", "hf", "hf_grouped"])
def test_a_contender_trains_its_student_and_reports_every_epoch(name, examples):
    student = load_student("tiny-llama")
    before = torch.cat([p.detach().flatten().clone() for p in student.model.parameters()])
    epochs = []
    train(name, Task(examples=examples[:BATCH_SIZE], epochs=2), student, lambda: epochs.append(1))
    after = torch.cat([p.detach().flatten() for p in student.model.parameters()])
    assert len(epochs) == 2
    assert 0 < float((after - before).norm()) < 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trl", "trl_packed", "trl_packed_dft"])
def test_trl_trains_its_student_where_it_is_installed(name, examples):
    pytest.importorskip("trl", reason="installed by `make bench`")
    student, epochs = load_student("tiny-llama"), []
    before = student.model.lm_head.weight.detach().clone()
    train(name, Task(examples=examples[: 2 * BATCH_SIZE], epochs=1), student, lambda: epochs.append(1))
    assert len(epochs) == 1 and not torch.equal(before, student.model.lm_head.weight)


def test_ours_the_bare_loop_and_the_trainer_make_the_same_steps(examples):
    """One batch that holds all examples leaves no order to differ in."""
    found = {}
    for name in ("plain", "bare", "hf"):
        student = load_student("tiny-llama")
        train(name, Task(examples=examples[:BATCH_SIZE], epochs=1), student, lambda: None)
        found[name] = student.model.lm_head.weight.detach()
    start = load_student("tiny-llama").model.lm_head.weight.detach()
    for name in ("bare", "hf"):
        # Adam's first step is the rate in the direction of each gradient's sign; rounding turns few of them.
        same = torch.sign(found[name] - start) == torch.sign(found["plain"] - start)
        assert same.float().mean() > 0.99, name


def test_grouped_batches_hold_examples_of_like_length(examples):
    chosen = grouped_batches(examples, 3)
    assert len(chosen) == 3 * BATCH_SIZE and len({e.key for e in chosen}) == len(chosen)
    lengths = np.array([len(e) for e in chosen]).reshape(3, BATCH_SIZE)
    assert np.ptp(lengths, axis=1).mean() < np.ptp(lengths)


def test_grouped_batches_spread_over_all_lengths(examples):
    lengths = [len(e) for e in grouped_batches(examples, 2)]
    everywhere = sorted(map(len, examples))
    assert min(lengths) < everywhere[len(examples) // 3] and max(lengths) > everywhere[2 * len(examples) // 3]


def test_shares_of_tokens_and_targets_are_those_of_one_batch_computed_by_hand(examples):
    task = Task(examples=examples[:BATCH_SIZE], epochs=3)
    used = sum(len(e.prompt_ids) + len(e.target_ids) for e in task.examples)
    longest = max(len(e.prompt_ids) + len(e.target_ids) for e in task.examples)
    targets = sum(len(e.target_ids) for e in task.examples)
    assert filled(task) == pytest.approx((used / (BATCH_SIZE * longest), targets / used))


def test_every_contender_has_a_name():
    assert set(NAMES) == set(CONTENDERS)


def test_throughput_is_ours_over_theirs_and_a_step_s_time_theirs_under_ours():
    epochs = {
        "plain": [{"cpu": 2.0, "wall": 2.0, "peak": 100.0}],
        "kpod": [{"cpu": 3.0, "wall": 3.0, "peak": 100.0}],
        "hf": [{"cpu": 4.0, "wall": 5.0, "peak": 200.0}],
    }
    table = Table(student="llama-49k", epochs=epochs, num_targets=12)
    speed, memory, weighted = compared(table, "llama-49k")
    assert (speed.values, speed.ours, speed.theirs, speed.met) == ([2.0], 6.0, 3.0, True)
    assert speed.more == {"wall": 2.5, "memory": 0.5}
    assert memory.values == [0.5] and memory.met is None
    assert weighted.values == [1.5] and weighted.met is False

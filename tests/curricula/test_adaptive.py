"""Adaptive curriculum learning: pacing and difficulties by hand, and runs."""

import numpy as np
import pytest
from small_runs import refusal, run, student_of

from kpod_lightning.curricula.adaptive import AdaptiveSettings, AdaptiveStages, Pacing
from kpod_lightning.curricula.mean_losses import means_of_rationales, measured
from kpod_lightning.data.examples import make_example
from kpod_lightning.data.views import collate, view
from kpod_lightning.runs.folder import load_run
from kpod_lightning.students.nll import losses

SMALL = [
    "method=kpod",
    "weights.kind=uniform",
    "data.num_train=24",
    "data.num_validation=4",
    "data.num_test=4",
    "optim.batch_size=4",
    "evaluation.max_new_tokens=8",
    "logging.wandb=disabled",
]
ADAPTIVE = [*SMALL, "optim.epochs=4", "optim.lr=1e-4", "curriculum=adaptive", "optim.checkpoint_every=1"]


def rows_of(folder):
    return [row for row in load_run(folder).metrics if "adaptive/share_taken" in row]


# ---- Values ----


def test_pacing_of_twenty_epochs_by_hand():
    # rho = round(1.5) = 2, T = 10, so five growths from 0.1 to 1: q = 10^(1/5).
    pacing = Pacing.of(AdaptiveSettings(), 20)
    assert pacing.growth_every == 2 and pacing.growth_factor == pytest.approx(10**0.2)
    shares = [pacing.share(epoch) for epoch in (0, 1, 2, 9, 10, 19)]
    assert shares == pytest.approx([0.1, 0.1, 10**-0.8, 10**-0.2, 1.0, 1.0])
    numbers = [pacing.num_taken(epoch, 1000, least=4) for epoch in (0, 2, 9, 10, 19)]
    assert numbers == [100, 159, 631, 1000, 1000]


@pytest.mark.parametrize("epochs", [2, 3, 4, 5, 7, 10, 13, 20, 33, 200])
def test_all_are_taken_from_half_of_the_epochs_on(epochs):
    pacing = Pacing.of(AdaptiveSettings(), epochs)
    last = [pacing.num_taken(epoch, 10_000, least=1) for epoch in range(-(-epochs // 2), epochs)]
    assert last == [10_000] * len(last) and pacing.num_taken(0, 10_000, least=1) == 1000


def test_given_factors_by_hand_and_at_least_a_global_batch():
    pacing = Pacing.of(AdaptiveSettings(initial_fraction=0.25, growth_factor=1.5, growth_every=1), 4)
    assert [pacing.num_taken(epoch, 16, least=1) for epoch in range(5)] == [4, 6, 9, 14, 16]
    assert [pacing.num_taken(epoch, 16, least=8) for epoch in range(3)] == [8, 8, 9]
    huge = Pacing.of(AdaptiveSettings(growth_factor=1e9), 1000)
    assert huge.num_taken(999, 16, least=1) == 16


def test_the_easiest_are_taken_and_a_tie_goes_to_the_first():
    pacing = Pacing.of(AdaptiveSettings(initial_fraction=0.5, growth_factor=1), 2)
    stages = AdaptiveStages(np.array([3.0, 1.0, 2.0, 2.0]), pacing, least=1)
    assert stages.taken(0).tolist() == [1, 2] and not stages.is_whole(0)
    other = AdaptiveStages(np.zeros(4), pacing, least=1)
    other.load_state_dict(stages.state_dict())
    assert other.taken(0).tolist() == [1, 2]
    assert stages.metrics(0) == {
        "adaptive/share_taken": 0.5,
        "adaptive/mean_difficulty": 2.0,
        "adaptive/mean_difficulty_taken": 1.5,
    }


def test_measured_losses_are_the_means_of_each_rationale_alone(student, rationales):
    examples = [make_example(r, student.tokenizer, encoder_decoder=student.encoder_decoder) for r in rationales[:5]]
    student.model.train()
    found = measured(student, examples, 2)
    assert student.model.training
    student.model.eval()
    eos = student.tokenizer.eos_token_id
    for example, mean in zip(examples, found, strict=True):
        alone = view(example, 0, encoder_decoder=student.encoder_decoder, eos_token_id=eos)
        nll = losses(student, collate([alone], [example.key], pad_token_id=0, divisor=1))[1]
        assert mean == pytest.approx(float(nll[: example.num_rationale_tokens].mean()), rel=1e-5)


def test_the_mean_of_a_rationale_leaves_the_answer_phrase_out(student, rationales):
    example = make_example(rationales[0], student.tokenizer, encoder_decoder=student.encoder_decoder)
    n = example.num_rationale_tokens
    nll = np.array([*range(n), *[100.0] * (len(example.target_ids) - n)], np.float32)
    assert means_of_rationales([example], [nll]).tolist() == [(n - 1) / 2]


# ---- Runs ----


@pytest.fixture(scope="module")
def adaptive(tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs") / "adaptive", *ADAPTIVE)


def test_a_run_takes_more_and_more_and_measures_anew_until_all_are_taken(adaptive):
    rows = rows_of(adaptive)
    # p = 0.1, then 0.1 * 10^(1/2), of 24 examples, and at least the 4 of a global batch.
    assert [row["adaptive/share_taken"] for row in rows] == pytest.approx([4 / 24, 8 / 24, 1, 1])
    first, second, third, fourth = (row["adaptive/mean_difficulty"] for row in rows)
    assert first > second == third == fourth  # no later epoch leaves any out
    assert all(row["adaptive/mean_difficulty_taken"] < row["adaptive/mean_difficulty"] for row in rows[:2])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_all_examples_from_the_start_are_no_curriculum(name, tmp_path):
    student = [*SMALL, "optim.epochs=2", f"student.name={name}"]
    none = run(tmp_path / "none", *student, "curriculum=none")
    whole = run(tmp_path / "whole", *student, "curriculum=adaptive", "adaptive.initial_fraction=1")
    few = run(tmp_path / "few", *student, "curriculum=adaptive")
    assert student_of(whole) == student_of(none) != student_of(few)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("adaptive.initial_fraction=0", "adaptive.initial_fraction lies in (0, 1], got 0"),
        ("adaptive.growth_factor=0.9", "adaptive.growth_factor is at least 1 or null, got 0.9"),
        ("adaptive.smoothing=2", "adaptive.smoothing lies in [0, 1], got 2"),
    ],
)
def test_a_wrong_setting_is_one_line(setting, words, capsys, tmp_path):
    assert words in refusal(capsys, tmp_path / "run", *ADAPTIVE, *setting.split())

"""optim.tokens and optim.steps, through the command that users type."""

import apart
import pytest
import small_runs
from small_runs import EXPERIMENT, student_of

from kpod_lightning.__main__ import main
from kpod_lightning.config import OptimConfig
from kpod_lightning.methods.module import learning_rate_factor
from kpod_lightning.runs.folder import load_run

SMALL = [*small_runs.SMALL, "optim.epochs=4"]
SCHEDULE = ["method=kpod", "weights.in_loss=false", "weights.in_difficulty=false", "schedule.num_stages=2"]


def run(folder, *settings):
    return small_runs.run(folder, *SMALL, *settings)


def epochs_of(folder):
    return [row for row in load_run(folder).metrics if "train/tokens_seen" in row]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs") / "plain", "method=plain", "optim.tokens=7000")


@pytest.fixture(scope="module")
def whole_epoch(tmp_path_factory):
    """Target tokens of all rationales."""
    folder = run(tmp_path_factory.mktemp("runs") / "one", "method=plain", "optim.epochs=1")
    return epochs_of(folder)[0]["train/tokens_seen"]


def test_methods_of_the_same_token_budget_see_as_many_tokens_up_to_one_batch(plain, whole_epoch, tmp_path):
    staged = run(tmp_path / "staged", *SCHEDULE, "optim.tokens=7000")
    largest_batch = 8 * 150
    for folder in (plain, staged):
        seen = epochs_of(folder)[-1]["train/tokens_seen"]
        assert 7000 <= seen < 7000 + largest_batch
        assert "validation/accuracy" in {key for row in load_run(folder).metrics for key in row}
        steps, epochs = epochs_of(folder)[-1]["step"] + 1, len(epochs_of(folder))
        said = f"The student saw {epochs} epochs, {steps} optimiser steps and {seen:,.0f} target tokens."
        assert said in (folder / "report.md").read_text()
    assert len(epochs_of(plain)) == -(-7000 // int(whole_epoch)) < len(epochs_of(staged))


def test_a_token_budget_that_ends_with_an_epoch_is_that_many_epochs(whole_epoch, tmp_path):
    epochs = run(tmp_path / "epochs", "method=plain", "optim.epochs=2", "optim.schedule=constant")
    tokens = run(tmp_path / "tokens", "method=plain", f"optim.tokens={2 * int(whole_epoch)}", "optim.schedule=constant")
    assert student_of(tokens) == student_of(epochs)


def test_a_budget_of_steps_is_as_many_steps(tmp_path):
    steps = run(tmp_path / "steps", "method=plain", "optim.steps=6", "optim.epochs=1")
    epochs = run(tmp_path / "epochs", "method=plain", "optim.epochs=2")
    assert student_of(steps) == student_of(epochs)
    cut = run(tmp_path / "cut", "method=plain", "optim.steps=4")
    assert [row["epoch"] for row in epochs_of(cut)] == [0, 1]


@pytest.mark.slow
def test_a_killed_training_of_a_token_budget_ends_as_the_unbroken_one(plain, tmp_path):
    folder = tmp_path / "killed"
    words = [*SMALL, "method=plain", "optim.tokens=7000", "optim.checkpoint_every=1"]
    apart.killed_and_continued(["run", EXPERIMENT, "--run", str(folder), *words], folder, "checkpoints/step.ckpt")
    assert student_of(folder) == student_of(plain)


@pytest.mark.slow
def test_a_training_whose_budget_was_used_up_when_it_was_killed_is_not_trained_again(tmp_path):
    words = ["method=plain", "optim.tokens=1"]
    unbroken, folder = run(tmp_path / "unbroken", *words), tmp_path / "killed"
    apart.killed_and_continued(
        ["run", EXPERIMENT, "--run", str(folder), *SMALL, *words], folder, "checkpoints/last.ckpt"
    )
    assert student_of(folder) == student_of(unbroken)
    assert [row["step"] for row in epochs_of(folder)] == [0]


@pytest.mark.slow
def test_two_ranks_end_with_the_same_batch(plain, tmp_path):
    two = ["launch.strategy=ddp", "launch.devices=2", "launch.accelerator=cpu"]
    folder = run(tmp_path / "two", "method=plain", "optim.tokens=7000", *two)
    ours, theirs = epochs_of(folder), epochs_of(plain)
    assert [row["train/tokens_seen"] for row in ours] == [row["train/tokens_seen"] for row in theirs]
    assert ours[-1]["train/nats_per_token"] == pytest.approx(theirs[-1]["train/nats_per_token"], rel=1e-4)


def test_a_rate_that_decays_from_whole_rationales_stays_at_its_peak_before():
    factors = [learning_rate_factor(step, 10, 1, "linear", 4) for step in range(10)]
    assert factors == pytest.approx([0.5, 1, 1, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_two_ends_of_a_training_are_refused(capsys):
    assert main(["run", EXPERIMENT, "optim.steps=3", "optim.tokens=5"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert OptimConfig(steps=3).tokens is None


def test_a_rate_that_waits_for_whole_rationales_wants_an_epoch_of_them(capsys, tmp_path):
    words = [*SMALL, *SCHEDULE, "schedule.num_stages=4", "optim.decay_from=whole"]
    assert main(["run", EXPERIMENT, "--run", str(tmp_path / "run"), *words]) == 2
    assert "optim.decay_from=whole" in capsys.readouterr().err.splitlines()[-1]

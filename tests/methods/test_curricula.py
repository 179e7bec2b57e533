"""Runs of every curriculum, through the command that users type."""

import apart
import numpy as np
import pytest
import small_runs
from small_runs import EXPERIMENT, student_of

from kpod_lightning.curricula.schedule import Schedule
from kpod_lightning.methods.base import load_experiment
from kpod_lightning.runs.folder import load_run

SMALL = [*small_runs.SMALL, "evaluation.max_new_tokens=4", "method=kpod", "weights.kind=uniform"]
SMALL += ["schedule.num_stages=1"]
FORWARD, IN_SAMPLE = "curriculum=forward", "curriculum=in_sample"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def run(folder, *settings):
    return small_runs.run(folder, *SMALL, *settings)


def rows_of(folder):
    return [row for row in load_run(folder).metrics if "train/stage" in row]


@pytest.fixture(scope="module")
def whole(runs):
    return {name: run(runs / name, f"student.name={name}", "curriculum=none") for name in ("tiny-llama", "tiny-t5")}


@pytest.mark.parametrize(
    ("name", "curriculum", "turned_off"),
    [
        ("tiny-t5", IN_SAMPLE, "in_sample.start=0"),
        ("tiny-llama", FORWARD, "schedule.initial_fraction=1"),
        ("tiny-llama", "curriculum=in_rationale", "schedule.mix=1"),
    ],
)
def test_a_curriculum_that_is_turned_off_is_none(whole, runs, name, curriculum, turned_off):
    made = run(runs / turned_off, f"student.name={name}", curriculum, turned_off)
    assert student_of(made) == student_of(whole[name])


@pytest.mark.parametrize(
    ("name", "curriculum", "section"),
    [("tiny-llama", IN_SAMPLE, "In-sample curriculum"), ("tiny-t5", FORWARD, "Forward curriculum")],
)
def test_a_curriculum_teaches_parts_then_the_whole_and_is_described(whole, runs, name, curriculum, section):
    made = run(runs / f"{name}-{curriculum}", f"student.name={name}", curriculum)
    first, second = (row["train/tokens_seen"] for row in rows_of(made))
    all_tokens = rows_of(whole[name])[0]["train/tokens_seen"]
    assert first < all_tokens and second - first == all_tokens
    assert [row["train/stage"] for row in rows_of(made)] == [0, 1]
    assert student_of(made) != student_of(whole[name])
    assert f"<h2>{section}</h2>" in (made / "report.html").read_text()


def test_a_stage_of_another_length_trains_anew_where_no_artefact_says_it(runs):
    """in_sample makes nothing before the training, so that the training itself must depend on its stages."""
    settings = [IN_SAMPLE, "optim.epochs=3"]
    made = run(runs / "redone", *settings, "schedule.num_stages=1")
    again = run(runs / "redone", *settings, "schedule.num_stages=2", "--redo")
    assert [row["train/stage"] for row in rows_of(made)] == [0, 1, 2]
    assert student_of(again) == student_of(run(runs / "new", *settings, "schedule.num_stages=2"))


@pytest.mark.parametrize(
    ("schedule", "num_stages"),
    [
        ("{num_stages: 4, stage_length: 2}", 2),
        ("{num_stages: 9, progress: steps, stage_length: 1}", 9),
        ("{num_stages: 2, stage_length: 2}", 2),
    ],
)
def test_fewer_epochs_of_the_command_line_hold_fewer_stages_of_epochs_alone(schedule, num_stages, tmp_path):
    file = tmp_path / "e.yaml"
    file.write_text(f"seed: 0\nschedule: {schedule}\n")
    assert load_experiment(file, ["optim.epochs=5"]).schedule.num_stages == num_stages


def test_controls_change_the_schedule_alone(runs):
    settings = {"asis": [], "permuted": ["schedule.permuted=true"], "uniform": ["schedule.uniform=true"]}
    made = {
        name: run(runs / f"control-{name}", *words, "--until", "schedule") / "schedule.npz"
        for name, words in settings.items()
    }
    schedules = {name: Schedule.load(path) for name, path in made.items()}
    rows = [schedule.input_steps.tolist() for schedule in schedules.values()]
    assert rows[0] != rows[1] and rows[0] != rows[2]
    np.testing.assert_allclose(schedules["permuted"].budgets, schedules["asis"].budgets, rtol=1e-12)
    assert 0 <= schedules["asis"].asked[0] - schedules["uniform"].asked[0] < 15


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ([IN_SAMPLE, "in_sample.start=1.1"], "in_sample.start"),
        ([IN_SAMPLE, "in_sample.stride=0"], "in_sample.stride"),
        ([IN_SAMPLE, "schedule.num_stages=3"], "schedule.num_stages=3 is more than optim.epochs=2"),
        ([FORWARD, "schedule.num_stages=1", "schedule.stage_length=3"], "a stage is 3 epochs"),
        (["schedule.mix=1.5"], "schedule.mix"),
        (["schedule.permuted=true", "schedule.uniform=true"], "are two controls"),
        (["schedule.progress=hours"], "schedule.progress"),
        (["schedule.progress=steps", "schedule.stage_length=3", "schedule.num_stages=null"], "schedule.num_stages"),
        (["curriculum=in_smaple"], "curriculum=in_smaple is none of"),
    ],
)
def test_a_wrong_setting_of_a_curriculum_is_one_line(settings, words, capsys, tmp_path):
    assert words in small_runs.refusal(capsys, tmp_path / "run", *SMALL, *settings)


PACED = ["curriculum=in_rationale", "schedule.num_stages=1", "schedule.start=last_steps", "optim.checkpoint_every=1"]


@pytest.mark.parametrize(
    ("progress", "length", "stages"), [("steps", 2, [1, 1]), ("steps", 4, [0, 1]), ("tokens", 300, [1, 1])]
)
def test_a_stage_of_steps_or_tokens_begins_inside_an_epoch(progress, length, stages, whole, runs):
    words = [*PACED, f"schedule.progress={progress}", f"schedule.stage_length={length}"]
    found = rows_of(run(runs / f"{progress}-{length}", *words))
    first, second = (row["train/tokens_seen"] for row in found)
    of_epoch = rows_of(whole["tiny-llama"])[0]["train/tokens_seen"]
    assert [row["train/stage"] for row in found] == stages
    assert first < of_epoch and (second - first < of_epoch) == (stages[0] == 0)


@pytest.mark.slow
def test_a_run_killed_inside_an_epoch_of_two_stages_ends_as_the_unbroken_one(runs, tmp_path):
    words = [*PACED, "schedule.progress=tokens", "schedule.stage_length=300"]
    unbroken, folder = run(runs / "tokens-whole", *words), tmp_path / "killed"
    apart.killed_and_continued(
        ["run", EXPERIMENT, "--run", str(folder), *SMALL, *words], folder, "checkpoints/step.ckpt"
    )
    assert student_of(folder) == student_of(unbroken)

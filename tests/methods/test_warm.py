"""The warm start: all methods start from one student that was tuned plainly, and measure with it."""

import apart
import pytest
from small_runs import EXPERIMENT, run
from small_runs import SMALL as SHORT

from kpod_lightning.config import StudentConfig
from kpod_lightning.methods.datamodule import RationaleDataModule
from kpod_lightning.methods.module import DistillationModule
from kpod_lightning.runs.folder import load_run
from kpod_lightning.store.errors import InputError
from kpod_lightning.students.student import load_student

SMALL = [*SHORT, "optim.lr=1e-4"]
WARM = [*SMALL, "student.warm_epochs=1"]
SCHEDULED = ["method=kpod", "weights.in_loss=false", "weights.in_difficulty=false"]


def parameters(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def scheduled(runs):
    return run(runs / "scheduled", *WARM, *SCHEDULED)


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_the_warm_student_is_that_of_plain_distillation_at_a_constant_rate(name, tmp_path):
    student = f"student.name={name}"
    warm = run(tmp_path / "warm", *WARM, *SCHEDULED, student, "--until", "warm")
    constant = ["method=plain", "optim.epochs=1", "optim.schedule=constant", "optim.select=last", "--until", "train"]
    plain = run(tmp_path / "plain", *SMALL, student, *constant)
    assert parameters(warm / "warm") == parameters(plain / "student")
    assert not (warm / "checkpoints-warm").exists()


def test_methods_that_run_beside_each_other_start_from_the_same_bytes(scheduled, runs):
    # scotd takes ten rationales of a problem.
    methods = ("plain", "answers_only", "scotd")
    others = [run(runs / method, *WARM, f"method={method}", "--until", "warm") for method in methods]
    longer = run(runs / "longer", *WARM, "method=plain", "optim.epochs=3", "--until", "warm")
    assert {parameters(folder / "warm") for folder in [*others, longer]} == {parameters(scheduled / "warm")}


def test_a_run_from_a_warm_student_is_that_of_the_student_in_its_folder(scheduled, tmp_path):
    # The rest is the same run: difficulties, schedule, training, accuracies after it.
    from_folder = run(tmp_path / "run", *SMALL, *SCHEDULED, f"student.name={scheduled / 'warm'}")
    assert parameters(from_folder / "student") == parameters(scheduled / "student")
    for artefact in ("difficulties.jsonl", "schedule.npz"):
        assert (from_folder / artefact).read_bytes() == (scheduled / artefact).read_bytes()


def test_a_warm_start_does_not_depend_on_what_other_runs_left_in_the_cache(scheduled, tmp_path):
    alone = run(tmp_path / "alone", *WARM, "method=scotd", "--until", "warm")
    assert parameters(alone / "warm") == parameters(scheduled / "warm")


@pytest.mark.parametrize("budget", ["optim.tokens=1", "optim.steps=1"])
def test_the_budget_of_a_training_does_not_cut_its_warm_start(scheduled, budget, tmp_path):
    short = run(tmp_path / "short", *WARM, "method=plain", budget, "optim.decay_from=whole", "--until", "warm")
    assert parameters(short / "warm") == parameters(scheduled / "warm")


def test_before_distillation_is_the_student_as_it_came(scheduled, tmp_path):
    cold = run(tmp_path / "cold", *SMALL, "method=plain", "--until", "before")
    before = "predictions/test-before.jsonl"
    assert (cold / before).read_bytes() == (scheduled / before).read_bytes()


def test_measuring_after_epochs_changes_what_is_measured_and_not_the_start(scheduled, tmp_path):
    measured = run(tmp_path / "measured", *SMALL, *SCHEDULED, "schedule.measure_after=1")
    assert (measured / "difficulties.jsonl").read_bytes() == (scheduled / "difficulties.jsonl").read_bytes()
    assert parameters(measured / "warm-measuring") == parameters(scheduled / "warm")
    assert not (measured / "warm").exists()
    first, of_warm = (
        next(row["train/nats_per_token"] for row in load_run(folder).metrics if "train/nats_per_token" in row)
        for folder in (measured, scheduled)
    )
    assert first > of_warm  # the same schedule, from the student that has learned nothing


@pytest.mark.slow
def test_a_warm_start_that_is_killed_ends_as_the_unbroken_one(scheduled, tmp_path):
    folder = tmp_path / "killed"
    words = ["run", EXPERIMENT, "--run", str(folder), *SMALL, *SCHEDULED, "student.warm_epochs=2"]
    apart.killed_and_continued(words, folder, "checkpoints-warm/last.ckpt")
    unbroken = run(tmp_path / "unbroken", *SMALL, *SCHEDULED, "student.warm_epochs=2", "--until", "warm")
    assert parameters(folder / "warm") == parameters(unbroken / "warm") != parameters(scheduled / "warm")


@pytest.mark.slow
def test_two_ranks_start_warm_as_one_does(scheduled, tmp_path):
    two = ["launch.strategy=ddp", "launch.devices=2", "launch.accelerator=cpu"]
    folder = run(tmp_path / "two", *WARM, *SCHEDULED, *two)
    losses, of_one = (
        [row["train/nats_per_token"] for row in load_run(made).metrics if "train/nats_per_token" in row]
        for made in (folder, scheduled)
    )
    assert losses == pytest.approx(of_one, rel=1e-4)


def test_a_warm_start_with_adapters_is_one_student_with_all_merged(tmp_path):
    folder = run(tmp_path / "run", *WARM, "method=plain", "student.lora_rank=4", "--until", "warm")
    tuned, came = load_student(str(folder / "warm")).model.state_dict(), load_student("tiny-llama").model.state_dict()
    assert tuned.keys() == came.keys()
    changed = {name for name in came if not (tuned[name] == came[name]).all()}
    assert changed and all("proj" in name for name in changed)


def test_a_module_without_a_run_refuses_a_warm_start():
    with pytest.raises(InputError, match="warm_epochs=1 tunes the student in a run"):
        DistillationModule(StudentConfig(warm_epochs=1)).configure_model()
    with pytest.raises(InputError, match="makes warm before the student learns"):
        RationaleDataModule(student=StudentConfig(warm_epochs=1)).prepare_data()

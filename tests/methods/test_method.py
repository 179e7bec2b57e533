"""KPOD whole, through the command that users type: ablations, kills, the guard."""

from pathlib import Path

import apart
import numpy as np
import pytest
import small_runs
import wandb_offline
from small_runs import EXPERIMENT, student_of

from kpod_lightning.__main__ import main
from kpod_lightning.curricula.schedule import Schedule
from kpod_lightning.data.examples import make_example
from kpod_lightning.keypoints.in_loss import loss_weights, with_ones
from kpod_lightning.keypoints.sufficiency import Sufficiency
from kpod_lightning.keypoints.table import WeightTable
from kpod_lightning.methods.base import load_experiment, method_of
from kpod_lightning.runs.folder import load_run
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import load_jsonl
from kpod_lightning.students.student import load_student

SMALL = [
    "method=kpod",
    "data.num_train=24",
    "data.num_validation=6",
    "data.num_test=6",
    "optim.epochs=4",
    "optim.batch_size=8",
    "optim.checkpoint_every=2",
    "evaluation.max_new_tokens=24",
    "logging.wandb=disabled",
    "weights.num_train=null",
    "weights.warmup_epochs=1",
    "weights.epochs=1",
    "weights.batch_size=8",
]
FOUND = ["weights.if_not_found=uniform"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def run(folder, *settings):
    return small_runs.run(folder, *SMALL, *FOUND, *settings)


def pretend_keypoints_were_found(monkeypatch):
    """Two epochs on 24 problems find none; what follows from weights is tested as if they had."""
    monkeypatch.setattr(Sufficiency, "reason", None)


@pytest.fixture(scope="module")
def whole(runs):
    with pytest.MonkeyPatch.context() as patch:
        pretend_keypoints_were_found(patch)
        return run(runs / "whole")


@pytest.fixture(scope="module")
def without_keypoints(tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs") / "uniform")


def test_a_run_of_kpod_has_weights_difficulties_and_schedule_of_its_rationales(whole):
    keys = [(row["problem_id"], row["sample"]) for row in load_jsonl(whole / "rationales.jsonl")]
    table = WeightTable.load(whole / "weights.safetensors")
    schedule = Schedule.load(whole / "schedule.npz")
    difficulties = load_jsonl(whole / "difficulties.jsonl")
    assert set(table.rows) == set(keys) == set(schedule.keys)
    assert [(row["problem_id"], row["sample"]) for row in difficulties] == list(schedule.keys)
    assert schedule.num_stages == 2
    assert schedule.total == pytest.approx(sum(sum(row["difficulties"]) for row in difficulties))
    for row in table.rows.values():
        assert row.values.mean() == pytest.approx(0.3, abs=1e-5)
    stages = [row for row in load_run(whole).metrics if "train/stage" in row]
    assert [row["train/stage"] for row in stages] == [0, 1, 2, 2]
    assert [row["schedule/asked_nats"] for row in stages] == pytest.approx(schedule.asked[[0, 1, 2, 2]].tolist())
    assert [row["train/mean_input_steps"] for row in stages] == pytest.approx(
        schedule.input_steps[[0, 1, 2, 2]].mean(1).tolist()
    )


def test_without_weights_and_progression_it_is_plain_distillation_step_for_step(runs):
    nothing = run(runs / "nothing", "weights.in_loss=false", "schedule.progressive=false")
    plain = run(runs / "plain", "method=plain")
    assert student_of(nothing) == student_of(plain)
    assert not (nothing / "weights.safetensors").exists() and not (nothing / "schedule.npz").exists()


def test_every_ablation_changes_what_it_names_and_shares_the_rest(whole, runs, monkeypatch):
    pretend_keypoints_were_found(monkeypatch)
    ablations = {
        "without weights in the loss": ["weights.in_loss=false"],
        "without weights in the difficulty": ["weights.in_difficulty=false"],
        "without progression": ["schedule.progressive=false"],
        "without diversity": ["schedule.diversity=0"],
        "random weights": ["weights.permuted=true"],
    }
    files = ("weights.safetensors", "difficulties.jsonl", "schedule.npz")
    same = {}
    for name, settings in ablations.items():
        folder = run(runs / name.replace(" ", "-"), *settings)
        assert student_of(folder) != student_of(whole), name
        same[name] = [
            (folder / file).read_bytes() == (whole / file).read_bytes() if (folder / file).exists() else None
            for file in files
        ]
    assert same["without weights in the loss"] == [True, True, True]
    assert same["without weights in the difficulty"][:2] == [True, False]
    assert same["without progression"] == [True, None, None]
    assert same["without diversity"][:2] == [True, True]
    assert same["random weights"] == [True, True, True]


def test_where_no_keypoints_are_found_it_stops_or_goes_on_with_weights_of_one(without_keypoints, tmp_path, capsys):
    folder = tmp_path / "stopped"
    assert main(["run", EXPERIMENT, "--run", str(folder), *SMALL]) == 2
    error = capsys.readouterr().err
    assert "no keypoints were found" in error and "weights.if_not_found=uniform" in error and error.count("\n") == 1
    assert (folder / "weights.safetensors").is_file() and not (folder / "student").exists()
    made = (folder / "weights.safetensors").stat().st_mtime_ns
    assert main(["run", EXPERIMENT, "--run", str(folder), "--redo", *SMALL, *FOUND]) == 0
    assert (folder / "weights.safetensors").stat().st_mtime_ns == made  # going on learns nothing anew
    unweighted = run(tmp_path / "unweighted", "weights.in_loss=false", "weights.in_difficulty=false")
    assert student_of(folder) == student_of(without_keypoints) == student_of(unweighted)
    assert not (unweighted / "weights.safetensors").exists()


def test_what_other_settings_made_leaves_the_run_and_its_report(tmp_path):
    folder = run(tmp_path / "changed")
    assert "Schedule" in (folder / "report.html").read_text()
    run(folder, "--redo", "weights.in_loss=false", "schedule.progressive=false")
    assert not [
        name for name in ("weights.safetensors", "difficulties.jsonl", "schedule.npz") if (folder / name).exists()
    ]
    report = (folder / "report.html").read_text()
    assert "<h2>Schedule</h2>" not in report and "<h2>Keypoint weights</h2>" not in report


def test_weights_are_not_learned_on_from_a_checkpoint_of_other_settings(without_keypoints, tmp_path):
    folder = tmp_path / "interrupted"
    (folder / "checkpoints-weights").mkdir(parents=True)
    (folder / "checkpoints-weights" / "settings").write_text("of another training")
    (folder / "checkpoints-weights" / "last.ckpt").write_text("no checkpoint of this one")
    (folder / "config.yaml").write_bytes((without_keypoints / "config.yaml").read_bytes())
    run(folder)
    assert (folder / "weights.safetensors").read_bytes() == (without_keypoints / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("moment", ["checkpoints-weights/last.ckpt", "schedule.npz"])
def test_a_killed_run_continues_and_ends_as_the_unbroken_one(without_keypoints, tmp_path, moment):
    folder = tmp_path / "killed"
    apart.killed_and_continued(["run", EXPERIMENT, "--run", str(folder), *SMALL, *FOUND], folder, moment)
    for name in ("student/model.safetensors", "weights.safetensors", "difficulties.jsonl", "schedule.npz"):
        assert (folder / name).read_bytes() == (without_keypoints / name).read_bytes(), name
    assert not (folder / "checkpoints-weights").exists()


@pytest.mark.parametrize("form", ["penalty", "budget"])
def test_t5_goes_the_whole_way_with_either_form(form, tmp_path):
    settings = ["student.name=tiny-t5", f"weights.form={form}", "weights.features=embedding", "optim.epochs=2"]
    folder = run(tmp_path / "t5", *settings)
    weights = np.concatenate([row.values for row in WeightTable.load(folder / "weights.safetensors").rows.values()])
    assert ((weights > 0) & (weights < 1)).all()
    assert (abs(weights.mean() - 0.3) < 1e-4) == (form == "budget")


@pytest.mark.parametrize(("floor", "rescale"), [(0.0, "mean"), (0.5, "mean"), (0.0, "none"), (0.5, "none")])
def test_loss_weights_are_raised_to_the_floor_then_rescaled_and_the_answer_weighs_one(
    floor, rescale, student, rationales
):
    settings = ["method=kpod", f"weights.floor={floor}", f"weights.rescale={rescale}"]
    config = load_experiment(Path(EXPERIMENT), settings)
    examples = [make_example(r, student.tokenizer, encoder_decoder=student.encoder_decoder) for r in rationales]
    learned = [np.linspace(0.0, 0.6, e.num_rationale_tokens) for e in examples]
    found = loss_weights(config, with_ones(learned, examples), examples)
    raised = [floor + (1 - floor) * row for row in learned]
    mean = np.concatenate(raised).mean() if rescale == "mean" else 1.0
    for row, before, example in zip(found, raised, examples, strict=True):
        assert row[: len(before)] == pytest.approx((before / mean).tolist())
        assert row[len(before) :].tolist() == [1.0] * (len(example.target_ids) - len(before))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("schedule.num_stages=5", "schedule.num_stages=5 is more than optim.epochs=4"),
        ("schedule.vectors=glove", "schedule.glove_path"),
        ("schedule.solver=best", "schedule.solver"),
        ("schedule.initial_fraction=2", "schedule.initial_fraction"),
        ("weights.alpha=0.5", "weights.alpha"),
        ("weights.floor=1", "weights.floor"),
        ("weights.random_share=1", "weights.random_share"),
    ],
)
def test_settings_that_contradict_stop_before_anything_is_loaded(setting, words, tmp_path):
    with pytest.raises(InputError, match=words):
        load_experiment(Path(EXPERIMENT), [*SMALL, setting])


def test_an_answer_model_with_another_tokenizer_learns_weights_of_the_students_tokens(tmp_path, reads_whole_numbers):
    folder = tmp_path / "run"
    command = ["weights", EXPERIMENT, "--run", str(folder), *SMALL, *FOUND]
    assert main([*command, f"weights.answer_model={reads_whole_numbers}"]) == 0
    student = load_student("tiny-llama")
    for key, row in WeightTable.load(folder / "weights.safetensors").rows.items():
        text = next(r["rationale"] for r in load_jsonl(folder / "rationales.jsonl") if r["problem_id"] == key[0])
        assert len(row.values) == len(student.tokenizer(f" {text}").input_ids)


def test_the_papers_settings_run_from_end_to_end(tmp_path, reads_whole_numbers):
    glove = tmp_path / "glove.txt"
    glove.write_text("how 1.0 0.0\nmany 0.5 0.5\nnow 0.0 1.0\nthe 0.3 -0.2\n")
    settings = ["paper=true", f"weights.answer_model={reads_whole_numbers}", f"schedule.glove_path={glove}"]
    folder = run(tmp_path / "paper", *settings)
    config = load_run(folder).config
    assert (config.schedule.solver, config.optim.loss_scale, config.weights.form) == ("ftgp", "sum", "penalty")
    assert Schedule.load(folder / "schedule.npz").num_stages == 2
    assert (folder / "report.html").is_file()


def test_pictures_of_weights_and_schedule_and_its_table_reach_wandb(runs, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    folder = run(runs / "logged", "logging.wandb=offline", "optim.epochs=2")
    media = {path.parent.name + "/" + path.name.split("_")[0] for path in folder.glob("wandb/*/files/media/**/*.*")}
    wanted = {"sufficiency", "kinds", "history", "difficulty", "asked", "input-steps", "rationales"}
    assert {f"pictures/{name}" for name in wanted} <= media
    schedule = Schedule.load(folder / "schedule.npz")
    shown = wandb_offline.table(folder, wandb_offline.read(folder).history[0]["tables/schedule"])
    assert [row["asked, nats"] for row in shown] == pytest.approx(schedule.asked.tolist())
    assert [row["budget, nats"] for row in shown] == pytest.approx(schedule.budgets.tolist())
    assert [row["mean input steps"] for row in shown] == pytest.approx(schedule.input_steps.mean(1).tolist())


def test_weights_are_made_anew_when_the_answer_model_in_its_folder_changes(tmp_path):
    (tmp_path / "model.safetensors").write_text("one")
    config = load_experiment(Path(EXPERIMENT), [*SMALL, f"weights.answer_model={tmp_path}"])

    def fingerprints():
        made = {"tokens": "the same"}
        for arrow in method_of(config).arrows():
            made[arrow.artefact] = arrow.fingerprint(config, made)
        return made

    before = fingerprints()
    assert fingerprints() == before
    (tmp_path / "model.safetensors").write_text("other")
    after = fingerprints()
    assert after["weights.safetensors"] != before["weights.safetensors"]
    assert after["schedule.npz"] != before["schedule.npz"]


def test_an_answer_model_that_cannot_be_loaded_is_named(tmp_path, capsys):
    command = ["run", EXPERIMENT, "--run", str(tmp_path / "run"), *SMALL, f"weights.answer_model={tmp_path}"]
    assert main(command) == 2
    assert "weights.answer_model" in capsys.readouterr().err


def test_too_few_rationales_to_learn_weights_from_are_named(tmp_path, capsys):
    assert main(["run", EXPERIMENT, "--run", str(tmp_path / "run"), *SMALL, "data.num_train=8"]) == 2
    assert "8 rationales are too few" in capsys.readouterr().err

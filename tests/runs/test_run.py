"""The whole way on a small scale, through the command that users type."""

import json
import shutil

import apart
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from kpod_lightning.__main__ import main
from kpod_lightning.config import load_config
from kpod_lightning.data.batches import batches_by_length
from kpod_lightning.data.benchmarks import load_problems
from kpod_lightning.data.template import prompt_text
from kpod_lightning.distributed.checkpoints import global_step
from kpod_lightning.evaluation.generate import pad_prompts, prompt_ids
from kpod_lightning.runs import folder as run_module
from kpod_lightning.runs import pipeline
from kpod_lightning.runs.folder import load_run
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import ASSETS, write_text
from kpod_lightning.store.json_lines import load_jsonl, save_jsonl
from kpod_lightning.students.student import load_student

SMALL = [
    "method=plain",
    "data.num_train=24",
    "data.num_validation=6",
    "data.num_test=6",
    "optim.epochs=3",
    "optim.batch_size=8",
    "evaluation.max_new_tokens=24",
    "optim.checkpoint_every=2",
    "logging.wandb=disabled",
]
EXPERIMENT = "experiments/arithmetic.yaml"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    assert main(["run", EXPERIMENT, "--run", str(folder), *SMALL]) == 0
    return folder


def weights(folder):
    return (folder / "student" / "model.safetensors").read_bytes()


def test_a_finished_run_has_every_artefact(finished):
    names = ["config.yaml", "provenance.json", "rationales.jsonl", "metrics.jsonl", "report.html", "report.md"]
    names += [f"predictions/{name}.jsonl" for name in ("test-before", "test", "validation", "ood")]
    assert [name for name in names if not (finished / name).is_file()] == []
    assert not list(finished.rglob("*.part"))
    run = load_run(finished)
    assert [record["problem_id"] for record in run.records("test")] == [
        problem.id for problem in load_problems(run.config)["test"]
    ]
    epochs = [row for row in run.metrics if "validation/accuracy" in row]
    assert len(epochs) == 3


def test_the_last_checkpoint_is_of_the_last_step_also_where_no_epoch_was_better(finished):
    """A kill would else lose all epochs since the best one."""
    validated = [row["validation/accuracy"] for row in load_run(finished).metrics if "validation/accuracy" in row]
    assert max(validated) == validated[0]
    assert global_step(finished / "checkpoints" / "last.ckpt") == 9


def test_the_same_command_again_does_nothing(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    assert main(["run", EXPERIMENT, "--run", str(finished), *SMALL]) == 0
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()} == before


def test_the_arrows_one_by_one_end_as_the_whole(finished, tmp_path):
    folder = tmp_path / "arrows"
    made = {"rationales": "rationales.jsonl", "train": "student", "evaluate": "predictions/ood.jsonl"}
    for verb, last in made.items():
        assert not (folder / last).exists()
        assert main([verb, EXPERIMENT, "--run", str(folder), *SMALL]) == 0
        assert (folder / last).exists() and not (folder / "report.html").exists()
    assert main(["run", EXPERIMENT, "--run", str(folder), *SMALL]) == 0
    assert weights(folder) == weights(finished)


def test_runs_of_a_study_share_what_does_not_depend_on_the_seed(tmp_path, monkeypatch):
    asked = []
    evaluate = pipeline.evaluate

    def noted(run, method, name, *rest):
        asked.append((run.folder.name, name))
        return evaluate(run, method, name, *rest)

    monkeypatch.setattr(pipeline, "evaluate", noted)
    for seed in (0, 1):
        folder = tmp_path / f"s{seed}"
        assert main(["evaluate", EXPERIMENT, "--run", str(folder), *SMALL, "optim.epochs=1", f"seed={seed}"]) == 0
    assert [run for run, name in asked if name == "before distillation"] == ["s0"]
    assert [run for run, name in asked if name == "test"] == ["s0", "s1"]
    before = [tmp_path / f"s{seed}" / "predictions" / "test-before.jsonl" for seed in (0, 1)]
    assert before[0].read_bytes() == before[1].read_bytes()


def test_a_student_that_changed_since_stops_the_run_until_redo(tmp_path, capsys):
    student = tmp_path / "mine"
    shutil.copytree(ASSETS / "tiny-llama", student)
    command = ["run", EXPERIMENT, "--run", str(tmp_path / "run"), *SMALL, "optim.epochs=1", f"student.name={student}"]
    assert main(command) == 0
    before = weights(tmp_path / "run")
    shutil.copy(tmp_path / "run" / "student" / "model.safetensors", student)
    assert main(command) == 2
    assert "have changed since" in capsys.readouterr().err
    assert weights(tmp_path / "run") == before
    assert main([*command, "--redo"]) == 0
    assert weights(tmp_path / "run") != before


def test_other_settings_for_a_folder_stop_and_list_the_difference(finished, capsys):
    before = weights(finished)
    assert main(["run", EXPERIMENT, "--run", str(finished), *SMALL, "optim.lr=0.5"]) == 2
    error = capsys.readouterr().err
    assert "optim.lr: 0.5, was 0.003" in error and error.count("\n") == 1
    assert weights(finished) == before


def test_the_number_of_workers_and_the_logger_do_not_make_it_another_run(finished):
    before = weights(finished)
    assert main(["run", EXPERIMENT, "--run", str(finished), *SMALL, "num_workers=2", "logging.project=other"]) == 0
    assert weights(finished) == before


def test_redo_makes_again_what_depends_on_the_changed_setting_and_nothing_else(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    before = {
        name: (folder / name).stat().st_mtime_ns for name in ("rationales.jsonl", "predictions/test-before.jsonl")
    }
    assert main(["run", EXPERIMENT, "--run", str(folder), "--redo", *SMALL, "optim.lr=1e-4"]) == 0
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before
    assert weights(folder) != weights(finished)
    fresh = tmp_path / "fresh"
    assert main(["run", EXPERIMENT, "--run", str(fresh), *SMALL, "optim.lr=1e-4"]) == 0
    assert weights(folder) == weights(fresh)


def test_patience_ends_a_training_that_gets_no_better(tmp_path):
    settings = [*SMALL, "optim.epochs=9", "optim.lr=1e-9", "optim.patience=2"]
    assert main(["run", EXPERIMENT, "--run", str(tmp_path / "run"), *settings]) == 0
    assert len([row for row in load_run(tmp_path / "run").metrics if "validation/accuracy" in row]) == 3


def test_a_folder_that_is_no_run_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert main(["run", EXPERIMENT, "--run", str(tmp_path), *SMALL]) == 2
    assert "no run folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_saved_student_opens_in_plain_transformers_and_says_what_the_records_say(finished):
    model = AutoModelForCausalLM.from_pretrained(finished / "student", dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(finished / "student")
    run = load_run(finished)
    problems = load_problems(run.config)["test"]
    student = load_student(str(finished / "student"))
    rows = [prompt_ids(prompt_text(problem), student) for problem in problems]
    texts = {}
    for batch in batches_by_length([len(row) for row in rows], run.config.evaluation.batch_size, longest_first=True):
        ids, mask = pad_prompts([rows[i] for i in batch], student.pad_token_id, left=True)
        output = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=24, do_sample=False)
        for i, row in zip(batch, output[:, ids.shape[1] :], strict=True):
            texts[problems[i].id] = tokenizer.decode(row, skip_special_tokens=True)
    assert texts == {record["problem_id"]: record["text"] for record in run.records("test")}


@pytest.mark.parametrize(
    "moment", ["predictions/test-before.jsonl", "checkpoints/step.ckpt", "checkpoints/last.ckpt", "student"]
)
def test_a_killed_run_continues_and_ends_as_the_unbroken_one(finished, tmp_path, moment):
    folder = tmp_path / "small"
    apart.killed_and_continued(["run", EXPERIMENT, "--run", str(folder), *SMALL], folder, moment)
    assert weights(folder) == weights(finished)
    for name in ("test-before", "test", "validation", "ood"):
        assert (folder / "predictions" / f"{name}.jsonl").read_bytes() == (
            finished / "predictions" / f"{name}.jsonl"
        ).read_bytes()
    timeless = [
        [{k: v for k, v in row.items() if k != "train/tokens_per_second"} for row in load_run(f).metrics]
        for f in (folder, finished)
    ]
    assert timeless[0] == timeless[1]


def test_a_full_disk_leaves_the_earlier_file_whole(tmp_path):
    path = tmp_path / "artefact.jsonl"
    write_text(path, "earlier\n")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"artefact\.jsonl: No space left"), run_module.writing(path) as aside:
        aside.write_text("half")
        full()
    assert path.read_text() == "earlier\n"
    assert [p.name for p in tmp_path.iterdir()] == ["artefact.jsonl"]


def test_runs_that_write_one_file_of_the_cache_at_once_do_not_meet(tmp_path):
    path = tmp_path / "rationales.jsonl"
    with (
        run_module.writing(path, among_others=True) as one,
        run_module.writing(path, among_others=True) as other,
    ):
        one.write_text("same\n")
        other.write_text("same\n")
    assert path.read_text() == "same\n"
    assert [p.name for p in tmp_path.iterdir()] == ["rationales.jsonl"]


def test_a_student_that_cannot_be_had_is_named_with_a_way_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    name = f"student.name={tmp_path / 'nowhere'}"
    assert main(["run", EXPERIMENT, "--run", str(tmp_path / "run"), *SMALL, name]) == 2
    error = capsys.readouterr().err
    assert "tiny-llama" in error and error.count("\n") == 1
    assert not (tmp_path / "run" / "student").exists()


def test_examples_that_are_all_too_long_stop_the_run(tmp_path, capsys):
    assert main(["run", EXPERIMENT, "--run", str(tmp_path / "run"), *SMALL, "student.max_length=8"]) == 2
    assert "student.max_length=8" in capsys.readouterr().err


def test_t5_in_half_precision_is_refused(tmp_path, capsys):
    arguments = ["run", EXPERIMENT, "--run", str(tmp_path / "run"), *SMALL]
    assert main([*arguments, "student.name=tiny-t5", "optim.precision=16-mixed"]) == 2
    assert "T5" in capsys.readouterr().err


def own_experiment(folder, rationale):
    """An experiment on eight problems of one's own in each split, with a field map."""
    for split in ("train", "validation", "test"):
        rows = [
            {"nr": f"{split}-{i}", "text": f"What is {i} + 2?", "y": i + 2, "cot": rationale.format(i, i + 2)}
            for i in range(8)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    experiment = folder / "own.yaml"
    experiment.write_text(
        f"seed: 0\nmethod: plain\ndata:\n  dataset: own\n  dir: {folder}\n"
        "  fields: {id: nr, question: text, answer: y, rationale: cot}\nrationales:\n  source: human\n"
    )
    settings = [setting for setting in SMALL if not setting.startswith("data.")]
    return ["run", str(experiment), "--run", str(folder / "run"), *settings]


def test_own_problems_go_the_whole_way_through_a_field_map(tmp_path):
    assert main(own_experiment(tmp_path, "{} + 2 = {}.")) == 0
    assert len(load_run(tmp_path / "run").records("test")) == 8


def test_rationales_that_are_all_wrong_stop_the_run(tmp_path, capsys):
    assert main(own_experiment(tmp_path, "It is 99, not {} or {}, so 99.")) == 2
    error = capsys.readouterr().err
    assert "no rationale is left: 8 read, 8 do not reach the gold answer" in error and error.count("\n") == 1
    assert not (tmp_path / "run" / "rationales.jsonl").exists()


def test_a_train_set_without_rationales_names_the_other_source(tmp_path, capsys):
    command = own_experiment(tmp_path, "")
    assert main(command) == 2
    assert "rationales.source=recorded" in capsys.readouterr().err


def test_an_encoder_decoder_ends_in_an_ordinary_folder_with_all_its_parts_changed(tmp_path):
    settings = [*SMALL, "student.name=tiny-t5", "optim.epochs=1"]
    assert main(["run", EXPERIMENT, "--run", str(tmp_path / "run"), *settings]) == 0
    before, after = load_student("tiny-t5"), load_student(str(tmp_path / "run" / "student"), dtype="auto")
    assert before.encoder_decoder and after.encoder_decoder
    old, new = before.model.state_dict(), after.model.state_dict()
    assert old.keys() == new.keys()
    changed = [key for key in old if not torch.equal(old[key], new[key])]
    assert any("shared" in key for key in changed) and len(changed) > len(old) / 2


def test_recorded_rationales_of_a_teacher_with_dots_serve_a_part_of_the_train_set(tmp_path):
    folder = tmp_path / "svamp"
    (folder / "rationales").mkdir(parents=True)
    for split in ("train", "validation", "test"):
        rows = [{"id": f"{split}-{i}", "question": f"What is {i} + 2?", "answer": str(i + 2)} for i in range(9)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"problem_id": f"train-{i}", "rationale": f"{i} + 2 = {i + 2}."} for i in range(9)]
    (folder / "rationales" / "gpt-3.5-turbo.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [setting for setting in SMALL if not setting.startswith("data.")]
    settings += [f"data.dir={tmp_path}", "data.num_train=8", "data.num_test=5"]
    run = tmp_path / "run"
    assert main(["run", "experiments/svamp_tiny.yaml", "--run", str(run), *settings]) == 0
    assert len((run / "rationales.jsonl").read_text().splitlines()) == 8
    assert len(load_run(run).records("test")) == 5


def test_generation_one_by_one_equals_generation_in_batches(finished):
    from kpod_lightning.evaluation.generate import generate

    student = load_student(str(finished / "student"), dtype=torch.float64)
    problems = load_problems(load_config(finished / "config.yaml", []))["test"]
    one = generate(problems, student, batch_size=1, max_new_tokens=40)
    assert generate(problems, student, batch_size=16, max_new_tokens=40) == one


def test_rows_are_read_again_whatever_a_text_has_for_the_end_of_a_line(tmp_path):
    rows = [{"text": f"one{mark}two"} for mark in ("\u2028", "\x85", "\x0c", "\n", "\r")]
    save_jsonl(tmp_path / "rows.jsonl", rows)
    assert load_jsonl(tmp_path / "rows.jsonl") == rows

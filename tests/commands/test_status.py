"""`kpod status` reads whatever a run has written so far."""

import json
import subprocess
import sys

import pytest
from bad_inputs import FIFO, FOLDER, Link, put
from test_project import ROOT

from kpod_lightning.__main__ import main
from kpod_lightning.commands.status import JobState, describe, job_states, print_status
from kpod_lightning.config import load_config, to_dict

EXPERIMENT = ROOT / "experiments" / "arithmetic.yaml"


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    config = to_dict(load_config(EXPERIMENT, ["optim.epochs=6"]))
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    return folder


@pytest.fixture
def no_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))


def shown(folder, capsys) -> str:
    assert main(["status", str(folder)]) == 0
    return capsys.readouterr().out


def test_each_artefact_moves_a_run_on(run):
    made = ["rationales.jsonl", "predictions/test-before.jsonl", "weights.safetensors", "difficulties.jsonl"]
    made += ["schedule.npz", "metrics.jsonl", "student", "predictions/validation.jsonl", "predictions/test.jsonl"]
    words = [describe(run, None, None)[1]]
    for name in [*made, "report.html"]:
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).touch()
        words.append(describe(run, None, None)[1])
    assert words[0] == "settings" and words[-1] == "report"
    assert len(set(words)) == len(words)


def test_a_run_in_the_middle_of_a_line_shows_its_epoch_and_best_validation(run, no_slurm, capsys):
    rows = [{"step": i, "epoch": i, "validation/accuracy": value} for i, value in enumerate([0.1, 0.45, 0.3])]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (run / "metrics.jsonl").write_text(text + '{"step": 3, "epo')
    row = shown(run.parent, capsys)
    assert "training" in row and "3 of 6" in row and "45.0 %" in row


def test_a_finished_run_shows_its_test_accuracy_with_the_wilson_interval(run, no_slurm, capsys):
    (run / "predictions").mkdir()
    records = [{"right": i < 8} for i in range(10)]
    (run / "predictions" / "test.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (run / "report.html").touch()
    assert "80.0 % [49.0, 94.3]" in shown(run, capsys)


def test_a_job_without_a_folder_yet_is_in_the_table(run, no_slurm, capsys):
    (run.parent / "waits.job.json").write_text('{"job": "12_0"}')
    (run.parent / "torn.job.json").write_text('{"jo')
    output = shown(run.parent, capsys)
    assert "nothing yet" in output and "12_0" in output and "torn" in output
    assert "Slurm cannot be asked" in output


def test_a_name_that_looks_like_markup_is_shown_as_it_is(run, no_slurm, capsys):
    assert "[red]" in shown(run.rename(run.with_name("[red]")), capsys)


def test_a_long_name_is_whole_in_a_file_or_a_pipe(run, no_slurm, capsys):
    name = "a-study-of-everything-" * 6  # 132 characters, where a console without a terminal has 80
    (run.parent / f"{name}.job.json").write_text('{"job": "12"}')
    rows = shown(run.rename(run.with_name(name)).parent, capsys).splitlines()
    assert any(name in row and "settings" in row for row in rows)


def test_a_job_that_slurm_has_forgotten_left_the_queue(run):
    states = {"13": JobState(state="RUNNING", reason="")}
    assert describe(run, "13", states)[-1] == "13 RUNNING"
    assert describe(run, "12", states)[-1] == "12 left the queue"


def test_without_jobs_slurm_is_not_asked():
    assert job_states([]) is None


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_without_runs_stops_in_one_line(made, tmp_path, capsys):
    folder = tmp_path / "runs"
    if made:
        folder.mkdir()
    assert main(["status", str(folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_status_does_not_load_torch():
    code = "import sys; from kpod_lightning.commands import status, submit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    "name", ["r/config.yaml", "r/metrics.jsonl", "r/predictions/test.jsonl", "r.job.json", "r/provenance.json"]
)
def test_one_damaged_file_hides_no_run(name, tmp_path, capsys):
    bad = [
        "",
        "{",
        "[]",
        "null",
        '{"job": 3, "epoch": "x", "right": 1}',
        '{"optim": 3}',
        "[" * 5000,
        b"\xff\xfe",
        FOLDER,
    ]
    bad += ['{"epoch": null, "validation/accuracy": true}', Link(name.rpartition("/")[2]), FIFO]
    for number, content in enumerate(bad):
        runs = tmp_path / str(number)
        put(runs, {"sound/config.yaml": "seed: 0\n", name: content})
        print_status(runs)
        assert "sound" in capsys.readouterr().out

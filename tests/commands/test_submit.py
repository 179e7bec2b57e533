"""What is wrong with a job shows before it is submitted; what is right reaches its program word by word."""

import json
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from slurm_cluster import HOW_TO_INSTALL
from test_project import ROOT

from kpod_lightning.__main__ import main
from kpod_lightning.commands.submit import SLURM_FOLDER, SiteConfig, load_site, parse_seeds, seconds_of
from kpod_lightning.config import load_config, to_dict
from kpod_lightning.distributed.trainer import trainer_of

EXPERIMENT = str(ROOT / "experiments" / "arithmetic.yaml")


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("5", 300),
        ("5:30", 330),
        ("08:00:00", 28_800),
        ("2-0", 172_800),
        ("2-12:30", 2 * 86_400 + 45_000),
        ("1-00:00:30", 86_430),
    ],
)
def test_a_time_is_read_as_slurm_reads_it(time, seconds):
    assert seconds_of(time) == seconds


def test_seeds_are_numbers_and_ranges():
    assert parse_seeds("0,1,5-7") == (0, 1, 5, 6, 7)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--time", "3"], "--time 3 is too short"),
        (["--time", "8h"], "--time 8h: written as Slurm has it"),
        (["--time", "10", "--nodes", "0"], "--nodes is at least 1"),
        (["--time", "10", "--seeds", "0,0"], "--seeds 0,0"),
        (["--time", "10", "--seeds", "0,$(id)"], "--seeds 0,$(id)"),
        (["--time", "10", "--seeds", "0,1", "seed=2"], "seed=2: here --seeds says that"),
        (["--time", "10", "launch.devices=4"], "launch.devices=4: here --gpus or --processes says that"),
        (["--time", "10", "--after", "the one before"], "--after the one before: the id of a job"),
        (["--time", "10", "optim.lr=fast"], "optim.lr"),
        (["--time", "10", "--gpus", "2", "launch.strategy=single"], "launch.strategy=single is one process"),
        (["--time", "10", "--site", "no-such.yaml"], "--site no-such.yaml: no such file"),
        (["--time", "10", "--run", "two\nlines"], "printable characters"),
        (["--time", "10", "--run", "a\\b"], "no backslash"),
    ],
)
def test_what_cannot_work_stops_in_one_line_and_writes_nothing(words, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["submit", EXPERIMENT, *words]) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("site", ["partitions: gpu", "partition: [a, b]", "sbatch: [constraint=a100]", "a: : b"])
def test_a_site_file_that_cannot_be_used_is_named(site, tmp_path, capsys):
    path = tmp_path / "site.yaml"
    path.write_text(site)
    assert main(["submit", EXPERIMENT, "--time", "10", "--site", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"kpod: {path}:") and error.count("\n") == 1


def test_the_example_of_a_site_file_asks_for_nothing():
    assert load_site(SLURM_FOLDER / "site.example.yaml") == SiteConfig()


def test_settings_that_differ_from_those_of_the_run_folder_stop(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(json.dumps(to_dict(load_config(Path(EXPERIMENT), ["seed=7"]))))  # JSON is YAML
    (run / "provenance.json").write_text('{"layout": 2, "artefacts": {"rationales.jsonl": "0"}}')
    assert main(["submit", EXPERIMENT, "--time", "10", "--run", str(run)]) == 2
    assert "seed: 0, was 7" in capsys.readouterr().err


def test_every_word_reaches_the_program_as_it_was_given(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = 'runs/it\'s $HOME; "a" `b` %a #'
    settings = ["student.name=a b/$(id)", "logging.project='x'", "rationales.step_rule=\\.\\s"]
    words = ["submit", EXPERIMENT, "--processes", "2", "--time", "10", "--run", run, "--seeds", "4", *settings]
    assert main([*words, "--dry-run"]) == 0
    script = capsys.readouterr().out
    # The shell itself splits the words; a function of that name stands for the launcher and prints them.
    launcher = "srun() { printf '%s\\0' \"$@\"; }; SLURM_ARRAY_TASK_ID=4\n"
    shown = subprocess.run(
        ["bash"], input=launcher + script.replace("exec srun", "srun"), capture_output=True, text=True, check=True
    ).stdout
    launch = ["launch.num_nodes=1", "launch.devices=2", "launch.accelerator=cpu"]
    program = [sys.executable, "-m", "kpod_lightning", "run", EXPERIMENT, "--run", f"{run}-s4"]
    assert shown.split("\0")[1:-1] == [*program, *settings, *launch, "seed=4"]
    assert list(tmp_path.iterdir()) == []


def test_each_missing_run_of_a_study_is_a_task_of_an_array(tmp_path, monkeypatch, capsys):
    sbatch = tmp_path / "sbatch"
    sbatch.write_text("#!/bin/sh\necho 4711\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    runs, study = tmp_path / "a 'b'", tmp_path / "mine.yaml"
    arms = {"plain": ["method=plain"], "kpod": ["student.name=a b/$(id)"]}
    study.write_text(json.dumps({"experiment": EXPERIMENT, "seeds": [0, 1], "arms": arms}))  # JSON is YAML
    (runs / "plain-s0").mkdir(parents=True)
    (runs / "plain-s0" / "report.html").touch()
    words = ["study", str(study), "--runs", str(runs), "--slurm", "--processes", "2", "--time", "10", "--jobs", "2"]
    assert main([*words, "optim.epochs=3"]) == 0
    assert "job 4711: 1 node of 2 processes" in capsys.readouterr().out
    (script,) = runs.glob("*.sbatch")
    assert "#SBATCH --array=0-2%2\n" in script.read_text()
    launch = ["launch.num_nodes=1", "launch.devices=2", "launch.accelerator=cpu"]
    made = script.read_text().replace("exec srun", "srun")
    for index, name in enumerate(["kpod-s0", "plain-s1", "kpod-s1"]):
        launcher = f"srun() {{ printf '%s\\0' \"$@\"; }}; SLURM_ARRAY_TASK_ID={index}\n"
        shown = subprocess.run(["bash"], input=launcher + made, capture_output=True, text=True, check=True).stdout
        program = [sys.executable, "-m", "kpod_lightning", "run", EXPERIMENT, "--run", str(runs / name)]
        arm, seed = name.split("-s")
        assert shown.split("\0")[1:-1] == [*program, *arms[arm], "optim.epochs=3", f"seed={seed}", *launch]
        record = json.loads((runs / f"{name}.job.json").read_text())
        assert record["job"] == f"4711_{index}" and record["log"] == str(runs / "logs" / f"slurm-4711_{index}.log")
    assert json.loads((runs / "study.json").read_text())["versions"][0]["num_finished"] == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--slurm"], "--slurm needs --time"),
        (["--gpus", "2"], "--gpus is for a job of Slurm: add --slurm"),
        (["--nodes", "2"], "--nodes is for a job of Slurm: add --slurm"),
        (["--slurm", "--time", "10", "launch.devices=4"], "launch.devices=4: here --gpus or --processes says that"),
    ],
)
def test_a_study_that_slurm_cannot_take_stops_in_one_line_and_writes_nothing(words, reason, tmp_path, capsys):
    study, runs = ROOT / "experiments" / "studies" / "quick.yaml", tmp_path / "runs"
    assert main(["study", str(study), "--runs", str(runs), *words]) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1
    assert not runs.exists()


def test_lines_of_the_site_come_last_and_before_the_program(tmp_path, capsys):
    (tmp_path / "site.yaml").write_text("account: lab\nsbatch: [--gpus-per-node=a100:4]\nsetup: [module load cuda]\n")
    words = ["submit", EXPERIMENT, "--gpus", "4", "--time", "10", "--site", str(tmp_path / "site.yaml"), "--dry-run"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    options = [line for line in lines if line.startswith("#SBATCH")]
    assert options[-2:] == ["#SBATCH --account=lab", "#SBATCH --gpus-per-node=a100:4"]
    assert lines.index(options[-1]) < lines.index("module load cuda") < lines.index("exec srun --kill-on-bad-exit=1 \\")


def test_the_command_of_a_dry_run_can_be_typed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["submit", EXPERIMENT, "--time", "10", "--run", "a b", "--after", "12_3:14", "--dry-run"]) == 0
    command = shlex.split(capsys.readouterr().err.partition(": ")[2])
    assert command[0] == "sbatch" and command[-1] == "a b.sbatch" and "--dependency=afterok:12_3:14" in command


def test_without_slurm_submit_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["submit", EXPERIMENT, "--time", "10", "--run", str(tmp_path / "run")]) == 2
    assert "sbatch is not on the PATH" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_packages_that_the_cluster_needs_are_those_that_ci_installs():
    packages = HOW_TO_INSTALL.rpartition("recommends ")[2]
    assert packages in (ROOT / ".ci" / "run").read_text()


def test_a_run_that_slurm_did_not_start_is_not_warned_of(tmp_path, monkeypatch):
    """Lightning advises srun wherever there is one; a run by hand on a machine of a cluster is no mistake."""
    srun = tmp_path / "srun"
    srun.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trainer = trainer_of(load_config(Path(EXPERIMENT), []), logger=False, enable_checkpointing=False)
    assert trainer.world_size == 1
    assert [str(warning.message) for warning in told if "srun" in str(warning.message)] == []

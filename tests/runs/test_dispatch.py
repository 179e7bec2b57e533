"""`kpod study`: what is missing is run once, whoever stops, is killed, or runs beside it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from small_runs import EXPERIMENT, SMALL, student_of
from test_project import ROOT

from kpod_lightning.__main__ import main
from kpod_lightning.runs import dispatch
from kpod_lightning.runs.dispatch import keep_named
from kpod_lightning.runs.study import Arm, PlannedRun, load_study
from kpod_lightning.store.errors import InputError

TINY = [*SMALL, "data.num_train=8", "evaluation.max_new_tokens=4"]
ARMS = {"plain": ["method=plain"], "answers": ["method=answers_only"]}
BROKEN = {"broken": ["launch.num_nodes=2"]}  # which `kpod run` refuses before it has imported torch

MAKER = """
import sys, time
from pathlib import Path
from kpod_lightning.distributed.console import console
from kpod_lightning.distributed.preemption import listening
from kpod_lightning.distributed.ranks import first_rank, is_first, joined, start
from kpod_lightning.methods.base import load_experiment
from kpod_lightning.runs.folder import Run, open_run
folder, seconds, settings = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
config = load_experiment(Path("experiments/arithmetic.yaml"), settings)
code = start(config.launch, [sys.executable, *sys.argv])
if code is not None:
    sys.exit(code)
console.quiet = not is_first()
def make():
    with open(folder.parent / "made", "a") as file:
        file.write(folder.name + " ")
    print("makes", flush=True)
    time.sleep(seconds)
    return "content"
with joined(config.launch), listening():
    folder.mkdir(exist_ok=True)
    first_rank(lambda: open_run(folder, config) and None)
    run = Run(folder, config)
    run.artefact("thing.txt", "f" * 64, make, lambda path, text: path.write_text(text), shared=True)
"""
TWO_RANKS = ["launch.devices=2", "launch.accelerator=cpu", "launch.strategy=ddp"]


def study_file(folder: Path, arms: dict[str, list[str]], **keys) -> Path:
    path = folder / "small.yaml"
    written = {"experiment": str(ROOT / EXPERIMENT), "seeds": [0], "settings": TINY, "arms": arms, **keys}
    path.write_text(yaml.safe_dump(written, sort_keys=False))
    return path


def runner(path: Path) -> "subprocess.Popen[str]":
    """`kpod study` in a process of its own."""
    words = ["study", str(path), "--runs", str(path.parent / "runs"), "--jobs", "1"]
    return subprocess.Popen(
        [sys.executable, "-m", "kpod_lightning", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, stderr=-2
    )


def maker(folder: Path, seconds: float, *settings: str) -> "subprocess.Popen[str]":
    """A run that makes a shared file, or waits for it."""
    script = folder.parent / "maker.py"
    script.write_text(MAKER)
    words = [sys.executable, str(script), str(folder), str(seconds), *settings]
    return subprocess.Popen(words, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=-1, text=True)


def seen(path: Path, text: str = "") -> None:
    """Wait until a file is there with a text in it."""
    for _ in range(1200):
        if path.is_file() and text in path.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"no {text} in {path}")


def starts(folder: Path, name: str) -> int:
    """How often a run was started, and got beyond its lock."""
    log = (folder / "runs" / "logs" / f"{name}.log").read_text()
    return log.count("kpod_lightning run") - log.count("is being written by")


@pytest.mark.parametrize("ranks", [[], pytest.param(TWO_RANKS, marks=pytest.mark.slow)], ids=["alone", "two-ranks"])
def test_shared_artefact_is_made_once_and_who_needs_it_waits(ranks, tmp_path):
    seconds = 30.0 if ranks else 5.0  # two ranks import torch before they come to wait
    first = maker(tmp_path / "first", seconds)
    assert first.stdout.readline() == "makes\n"
    second = maker(tmp_path / "second", seconds, *ranks)
    said, _ = second.communicate(timeout=120)
    first.communicate(timeout=120)
    assert said == "waits for thing.txt, which first makes\n"
    assert first.returncode == second.returncode == 0
    assert (tmp_path / "made").read_text() == "first "
    assert (tmp_path / "second" / "thing.txt").read_text() == "content"


@pytest.mark.slow
def test_two_ranks_that_wait_stop_together(tmp_path):
    first = maker(tmp_path / "first", 120.0)
    assert first.stdout.readline() == "makes\n"
    second = maker(tmp_path / "second", 0.0, *TWO_RANKS)
    assert second.stdout.readline() == "waits for thing.txt, which first makes\n"
    second.terminate()
    second.communicate(timeout=60)
    first.kill()
    first.communicate()
    assert second.returncode and (tmp_path / "made").read_text() == "first "


@pytest.mark.slow
def test_shared_artefact_of_a_killed_maker_is_made_by_who_waits(tmp_path):
    first = maker(tmp_path / "first", 60.0)
    assert first.stdout.readline() == "makes\n"
    second = maker(tmp_path / "second", 0.0)
    assert second.stdout.readline() == "waits for thing.txt, which first makes\n"
    first.kill()
    first.communicate()
    assert second.communicate(timeout=60)[0] == "makes\n"
    assert (tmp_path / "made").read_text() == "first second "
    assert (tmp_path / "second" / "thing.txt").read_text() == "content"


def test_failed_run_stops_no_other_and_its_last_line_is_told(tmp_path, capsys):
    path = study_file(tmp_path, BROKEN, seeds=[0, 1])
    assert main(["study", str(path), "--runs", str(tmp_path / "runs"), "--jobs", "1"]) == 1
    said = capsys.readouterr().out
    assert "small: 0 of 2 finished, 2 failed" in said
    table = said[said.index("last line of its log") :].splitlines()
    rows = [line for line in table if "exit code 2   launch.num_nodes=2: several machines need srun" in line]
    assert [row.split()[0] for row in rows] == ["broken-s0", "broken-s1"]


@pytest.mark.slow
def test_only_missing_runs_are_made(tmp_path, capsys):
    path = study_file(tmp_path, BROKEN | ARMS)
    words = ["study", str(path), "--runs", str(tmp_path / "runs")]
    for times in (1, 2):
        assert main(words) == 1
        assert "small: 2 of 3 finished, 1 failed" in capsys.readouterr().out
        assert starts(tmp_path, "plain-s0") == starts(tmp_path, "answers-s0") == 1
        assert starts(tmp_path, "broken-s0") == times
    assert main(["study", str(study_file(tmp_path, ARMS)), *words[2:]]) == 0
    assert "started" not in capsys.readouterr().out
    assert main([*words, "optim.epochs=3"]) == 2
    assert "was made with other settings (optim.epochs" in capsys.readouterr().err


@pytest.mark.slow
def test_some_arms_and_seeds_alone_are_run_and_all_are_named(tmp_path, capsys):
    words = ["study", str(study_file(tmp_path, ARMS, seeds=[0, 1, 2])), "--runs", str(tmp_path / "runs")]
    assert main([*words, "--arms", "plain", "--seeds", "2,0"]) == 0
    assert sorted(path.name for path in (tmp_path / "runs").glob("*-s?")) == ["plain-s0", "plain-s2"]
    (named,) = json.loads((tmp_path / "runs" / "study.json").read_text())["versions"]
    assert list(named["arms"]) == ["plain", "answers"] and named["seeds"] == [0, 1, 2]
    capsys.readouterr()


def test_an_arm_or_a_seed_that_a_study_does_not_have_is_one_line(tmp_path, capsys):
    words = ["study", str(study_file(tmp_path, ARMS)), "--runs", str(tmp_path / "runs")]
    assert main([*words, "--arms", "plain,plian"]) == 2
    assert "plian is no arm of it; plain, answers are" in capsys.readouterr().err
    assert main([*words, "--seeds", "7"]) == 2
    assert "7 is no seed of it; 0 are" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--seeds", "one"])
    assert stopped.value.code == 2 and "a list such as 0,1 is expected" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_or_killed_runner_goes_on_to_the_same_students(tmp_path, number):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    for folder in (undisturbed, disturbed):
        folder.mkdir()
    runner(study_file(undisturbed, ARMS)).communicate(timeout=300)
    path = study_file(disturbed, ARMS)
    stopped = runner(path)
    seen(disturbed / "runs" / "plain-s0" / "config.yaml")
    time.sleep(3)
    stopped.send_signal(number)
    said, _ = stopped.communicate(timeout=60)
    if number == signal.SIGTERM:
        assert stopped.returncode == 75 and said.endswith("the same command goes on from here\n")
        assert "stopped by a signal" in (disturbed / "runs" / "logs" / "plain-s0.log").read_text()
    again = runner(path)
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0, said
    for arm in ARMS:
        assert student_of(disturbed / "runs" / f"{arm}-s0") == student_of(undisturbed / "runs" / f"{arm}-s0")


@pytest.mark.slow
def test_two_runners_share_the_runs(tmp_path):
    path = study_file(tmp_path, ARMS)
    both = [runner(path), runner(path)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert all("2 of 2 finished" in text for text in said)
    assert starts(tmp_path, "plain-s0") == starts(tmp_path, "answers-s0") == 1


def test_names_that_come_later_are_kept_behind_the_first_with_their_date(tmp_path, monkeypatch):
    runs = tmp_path / "runs"

    def kept(**keys) -> list[dict]:
        keep_named(load_study(study_file(tmp_path, ARMS, **keys), [], runs))
        return json.loads((runs / "study.json").read_text())["versions"]

    (first,) = kept()
    assert first["num_finished"] == 0 and first["family"] == [] and list(first["arms"]) == ["plain", "answers"]
    assert kept() == [first]
    monkeypatch.chdir(tmp_path)  # the same file, named from another folder
    study_file(tmp_path, ARMS, experiment=os.path.relpath(ROOT / EXPERIMENT, tmp_path))
    keep_named(load_study(Path("small.yaml"), [], runs))
    assert kept() == [first]
    (runs / "plain-s0").mkdir()
    (runs / "plain-s0" / "report.html").write_text("")
    again, later = kept(family=[["plain", "answers"]])
    assert again == first and later["num_finished"] == 1 and later["family"] == [["plain", "answers"]]
    (runs / "study.json").write_text('{"versions": [{"arms": {"plain": []}}]}')
    with pytest.raises(InputError, match=r"study\.json: damaged"):
        kept()


# ---- GPUs ----


def task_of(folder: Path, name: str, devices: int) -> dispatch.Task:
    arm = Arm(name=name, experiment=Path("e.yaml"), settings=())
    return dispatch.Task(PlannedRun(arm=arm, seed=0, folder=folder / name), devices=devices)


def test_a_run_has_gpus_of_its_own_and_waits_for_as_many_as_it_takes(tmp_path, monkeypatch):
    seen: dict[str, tuple[str, ...]] = {}
    busy: set[str] = set()

    def started(task: dispatch.Task, threads: int) -> "subprocess.Popen[bytes]":
        assert not busy & set(task.gpus)  # nobody else is on them
        busy.update(task.gpus)
        seen[task.name] = task.gpus
        return subprocess.Popen(["sleep", "0.3"])

    def changed(task: dispatch.Task) -> None:
        if task.state == dispatch.FAILED:  # it has ended, without a report
            busy.difference_update(seen[task.name])

    monkeypatch.setattr(dispatch, "started", started)
    tasks = [task_of(tmp_path, name, devices) for name, devices in (("a", 1), ("b", 2), ("c", 1), ("d", 3), ("e", 0))]
    work = dispatch.Dispatch(tasks, 8, 1, changed, lambda: None, gpus=["0", "1", "4"])
    work.complete()
    assert {name: len(gpus) for name, gpus in seen.items()} == {"a": 1, "b": 2, "c": 1, "d": 3, "e": 0}
    assert work.gpus == ["0", "1", "4"]
    assert dispatch.visible(("1", "4")) == {"CUDA_VISIBLE_DEVICES": "1,4"} and dispatch.visible(()) == {}


def test_gpus_are_those_of_the_environment_or_all_that_are_listed(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert dispatch.gpus_here() == ["3", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert dispatch.gpus_here() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    lister = tmp_path / "nvidia-smi"
    lister.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: x)'\necho 'GPU 1: A (UUID: y)'\n")
    lister.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert dispatch.gpus_here() == ["0", "1"]
    lister.unlink()
    assert dispatch.gpus_here() == []


def test_a_run_that_wants_more_gpus_than_there_are_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    path = study_file(tmp_path, {"plain": ["method=plain", "launch.devices=2", "launch.strategy=ddp"]})
    assert main(["study", str(path), "--runs", str(tmp_path / "runs")]) == 2
    assert "launch.devices=2, but only 1 GPU here" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()

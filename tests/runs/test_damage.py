"""What lies in a run folder or in the cache and is not what was written is found when it is read; nothing is silent."""

import json
import os
import shutil
from pathlib import Path

import pytest

from kpod_lightning.__main__ import main
from kpod_lightning.runs.folder import run_lock

EXPERIMENT = "experiments/arithmetic.yaml"
SMALL = [
    "method=kpod",
    "weights.if_not_found=uniform",
    "weights.epochs=1",
    "data.num_train=16",
    "data.num_validation=4",
    "data.num_test=4",
    "optim.epochs=2",
    "optim.batch_size=8",
    "evaluation.max_new_tokens=8",
    "logging.wandb=disabled",
]
ARTEFACTS = [
    "config.yaml",
    "provenance.json",
    "rationales.jsonl",
    "weights.safetensors",
    "difficulties.jsonl",
    "schedule.npz",
    "student/model.safetensors",
    "predictions/test-before.jsonl",
    "predictions/test.jsonl",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage") / "run"
    assert main(["run", EXPERIMENT, "--run", str(folder), *SMALL]) == 0
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def delete(path: Path) -> None:
    path.unlink()


def one_line(capsys) -> str:
    error = capsys.readouterr().err
    assert error.startswith("kpod: ") and error.count("\n") == 1, error
    return error


@pytest.mark.parametrize("damage", [truncate, flip, empty, lengthen, folder_instead, delete])
@pytest.mark.parametrize("name", ARTEFACTS)
def test_a_damaged_file_of_a_run_is_one_line_with_its_path(copied, tmp_path, capsys, name, damage):
    if name == "provenance.json" and damage in (lengthen, delete):
        pytest.skip("a blank at its end is no damage; without the file nothing is known to have been made")
    damage(copied / name)
    assert main(["report", str(copied), "--out", str(tmp_path / "page.html")]) == 2
    assert name.split("/")[0] in one_line(capsys)
    assert not (tmp_path / "page.html").exists()


def test_a_file_of_another_run_is_found(copied, tmp_path, capsys):
    other = tmp_path / "other"
    words = ["--run", str(other), *SMALL, "data.num_train=12", "--until", "rationales"]
    assert main(["run", EXPERIMENT, *words]) == 0
    capsys.readouterr()
    shutil.copy(other / "rationales.jsonl", copied)
    assert main(["run", EXPERIMENT, "--run", str(copied), *SMALL]) == 2
    assert "rationales.jsonl" in one_line(capsys)


def test_a_damaged_artefact_stops_the_run_and_redo_makes_it_again_and_keeps_what_lay_there(finished, copied, capsys):
    command = ["run", EXPERIMENT, "--run", str(copied), *SMALL]
    flip(copied / "predictions" / "test.jsonl")
    lying = (copied / "predictions" / "test.jsonl").read_bytes()
    assert main(command) == 2
    error = one_line(capsys)
    assert "predictions/test.jsonl" in error and "--redo" in error
    assert main([*command, "--redo"]) == 0
    assert (copied / "predictions" / "test.jsonl").read_bytes() == (finished / "predictions/test.jsonl").read_bytes()
    assert (copied / "predictions" / "test.jsonl.damaged").read_bytes() == lying


def test_a_damaged_entry_of_the_cache_is_made_again_with_a_line(finished, capsys):
    cache = finished.parent / ".cache"
    damaged = [next(cache.glob(f"*/{place}")) for place in ("selection/counts.json", "examples/spans.bin")]
    damaged.append(next(cache.glob("*/kept/test-before.jsonl")))
    before = [file.read_bytes() for file in damaged]
    for file in damaged:
        flip(file)
    words = ["--run", str(finished.with_name("beside")), *SMALL, "--until", "before"]
    assert main(["run", EXPERIMENT, *words]) == 0
    assert capsys.readouterr().out.count("is made again") == 3
    assert [file.read_bytes() for file in damaged] == before
    one, other = (finished.with_name(name) / "predictions/test-before.jsonl" for name in ("run", "beside"))
    assert one.read_bytes() == other.read_bytes()


def test_a_failed_start_fixes_no_settings(tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    words = ["run", EXPERIMENT, "--run", str(folder), *SMALL, "--until", "rationales"]
    assert main([*words, f"student.name={tmp_path / 'nowhere'}"]) == 2
    assert main(words) == 0
    capsys.readouterr()
    assert main([*words, "data.num_train=12"]) == 2
    assert "data.num_train" in one_line(capsys)


@pytest.mark.parametrize("left", [[".lock"], [".lock", ".config.yaml.part"], ["config.yaml"]])
def test_what_a_kill_during_the_first_write_leaves_can_be_used(tmp_path, finished, left):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in left:
        (folder / name).write_bytes((finished / "config.yaml").read_bytes() if name == "config.yaml" else b"")
    assert main(["run", EXPERIMENT, "--run", str(folder), *SMALL, "--until", "rationales"]) == 0


def test_a_config_of_another_program_is_no_run_folder_not_even_with_redo(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("lr: 1\n")
    assert main(["run", EXPERIMENT, "--run", str(tmp_path), "--redo", *SMALL]) == 2
    assert "no run folder" in one_line(capsys)
    assert (tmp_path / "config.yaml").read_text() == "lr: 1\n"


def test_provenance_names_nothing_outside_of_the_folder(copied, tmp_path, capsys):
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    content = json.loads((copied / "provenance.json").read_text())
    content["artefacts"]["../thesis"] = "0"
    del content["provenance_sha256"]
    (copied / "provenance.json").write_text(json.dumps(content))
    assert main(["run", EXPERIMENT, "--run", str(copied), "--redo", *SMALL]) == 2
    assert "outside" in one_line(capsys) and thesis.is_dir()


def test_a_second_process_on_a_run_folder_is_refused_with_the_first_ones_id(copied, capsys):
    with run_lock(copied):
        assert main(["run", EXPERIMENT, "--run", str(copied), *SMALL]) == 2
    assert f"process {os.getpid()} on " in one_line(capsys)

"""What the doctor says of an installation, and its exit code."""

import pytest
from packaging.requirements import Requirement

from kpod_lightning.__main__ import main
from kpod_lightning.commands.doctor import installation
from kpod_lightning.commands.doctor.command import examine
from kpod_lightning.commands.doctor.installation import (
    asked_versions,
    check_package,
    check_python,
    check_student,
    check_surroundings,
)
from kpod_lightning.config import RunConfig


@pytest.mark.parametrize(("version", "usable"), [("2.8.1+cpu", True), ("2.7.9", False), (None, False)])
def test_a_package_must_be_there_and_new_enough(version, usable):
    check = check_package(Requirement("torch>=2.8"), lambda name: version)
    assert check.usable == usable
    assert "torch>=2.8" in check.way_out


def test_extras_are_not_asked_for():
    python, requirements = asked_versions()
    names = {requirement.name for requirement in requirements}
    assert {"torch", "lightning", "transformers", "peft", "wandb"} <= names
    assert not names & {"pytest", "gguf"}
    assert check_python(python).usable and not check_python("<3").usable


def test_a_student_that_cannot_be_had_has_a_way_out(monkeypatch):
    monkeypatch.setenv("KPOD_CACHE", "/nowhere")
    check = check_student("smollm2-135m-q4")
    assert not check.usable and "make student-smollm2" in check.way_out
    assert check_student("tiny-t5").usable


def test_a_key_is_never_shown(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    assert "0123456789abcdef" not in str(check_surroundings())
    assert [check.found for check in check_surroundings() if check.what == "W&B key"] == ["yes"]


def test_the_shipped_student_fits_this_machine(capsys):
    assert main(["doctor", "method=plain"]) == 0
    shown = capsys.readouterr().out
    assert "tiny-llama" in shown and "fits 1 device" in shown


def test_settings_and_memory_may_stand_anywhere(capsys):
    assert main(["doctor", "--memory", "1", "optim.batch_size=64", "student.max_length=4096"]) == 2
    assert "does not fit 1 device of 1 GiB" in capsys.readouterr().out


def test_unknown_words_and_settings_stop_in_one_line(capsys):
    assert main(["doctor", "no-such.yaml"]) == 2
    assert main(["doctor", "optim.no_such=1"]) == 2
    assert main(["doctor", "--memory", "-1"]) == 2
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 3 and all(line.startswith("kpod: ") for line in shown)


def test_what_is_missing_stops_before_it_is_imported(monkeypatch, capsys):
    monkeypatch.setattr(installation, "installed", lambda name: None)
    monkeypatch.setattr(installation, "check_package", lambda each: check_package(each, lambda name: None))
    assert examine(RunConfig(seed=0)) == 2
    shown = capsys.readouterr().out
    assert "not installed" in shown and "pip install" in shown and "GiB of a device" not in shown

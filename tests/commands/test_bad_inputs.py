"""Whatever cannot be used is one line on stderr and exit code 2; nothing is made, changed or started."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bad_inputs import Case, generated, named, put

from kpod_lightning.__main__ import main
from kpod_lightning.store.errors import InputError

OTHERS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT", "SLURM_STEP_ID", "SLURM_NTASKS", "OPENAI_API_KEY")
"""Variables that are not set, unless a case sets them."""


def tree(folder: Path) -> dict[str, bytes | str]:
    """Everything in a folder but the cache of runs: contents of files, targets of links."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.startswith(".cache"):
            continue
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = path.read_bytes() if path.is_file() else "no file"
    return found


def fault_of(case: Case, folder: Path, monkeypatch: Any, capsys: Any) -> str | None:
    """What the command did wrong; None where it refused its input as it should."""
    put(folder, case.files)
    monkeypatch.chdir(folder)
    for name in OTHERS:
        monkeypatch.delenv(name, raising=False)
    for name, value in case.environment.items():
        monkeypatch.setenv(name, value)

    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("the pipeline was started")

    if case.reads:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read at the import
    else:
        monkeypatch.setattr("kpod_lightning.runs.run.run_pipeline", started)
    before = tree(folder)
    capsys.readouterr()
    try:
        code = main(case.words)
    except SystemExit as end:  # of argparse
        code = end.code
    except BaseException as error:
        return f"a traceback: {type(error).__name__}: {error}"[:300]
    said = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    if code != 2:
        return f"exit code {code}, {said}"[:300]
    if len(said) != 1 or not said[0].startswith("kpod: ") or len(said[0]) >= 400:
        return f"not one line: {said}"[:600]
    if case.says not in said[0]:
        return f"{case.says!r} is not in {said[0]!r}"
    after = tree(folder)
    return None if after == before else f"changed: {[name for name in after if after[name] != before.get(name)]}"


@pytest.mark.parametrize("name", named())
def test_what_cannot_be_used_is_one_line_and_leaves_nothing(name, tmp_path, monkeypatch, capsys):
    assert fault_of(named()[name], tmp_path, monkeypatch, capsys) is None


def test_every_number_of_the_settings_is_refused_where_it_is_not_finite_too_large_or_none(
    tmp_path, monkeypatch, capsys
):
    cases = list(generated())
    faults = {case.words[-1][:60]: fault_of(case, tmp_path, monkeypatch, capsys) for case in cases}
    assert len(cases) > 400
    assert {word: fault for word, fault in faults.items() if fault is not None} == {}


# ---- In a process of its own: what is read before the command line, and what only the machine can do ----


def typed(words: list[str], folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "kpod_lightning", *words],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_full_disk_behind_the_output_is_one_line(tmp_path):
    put(tmp_path, {"runs/r/config.yaml": "seed: 0\n"})
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "kpod_lightning", "status"], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE
        )
    assert (ran.returncode, ran.stderr.decode()) == (
        2,
        "kpod: No space left on device; KPOD_TRACEBACK=1 shows where\n",
    )


def test_a_reader_that_ends_early_is_one_line(tmp_path):
    put(tmp_path, {"runs/r/config.yaml": "seed: 0\n"})
    ran = subprocess.run(
        f"{sys.executable} -m kpod_lightning status | true; exit ${{PIPESTATUS[0]}}",
        cwd=tmp_path,
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stderr) == (2, "kpod: the command that reads the output has ended\n")


def test_a_terminal_without_unicode_shows_escapes(tmp_path):
    put(tmp_path, {"runs/été/config.yaml": "seed: 0\n"})
    ran = typed(["status"], tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (ran.returncode, ran.stderr) == (0, "") and "\\xe9t\\xe9" in ran.stdout


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "not enough memory"),
        (OSError(28, "No space left on device", "r/x"), "r/x: No space left on device"),
        (PermissionError(13, "Permission denied", "r"), "r: Permission denied"),
        (InputError("a\nb\x1b[31m" + "x" * 5000), "a\\nb\\x1b[31m"),
    ],
)
def test_what_the_machine_refuses_is_one_line(error, line, monkeypatch, capsys):
    monkeypatch.setattr("kpod_lightning.commands.status.print_status", lambda folder: throw(error))
    assert main(["status"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"kpod: {line}") and said.count("\n") == 1 and len(said) < 400


def test_memory_that_torch_does_not_have_is_one_line(monkeypatch, capsys):
    import torch

    monkeypatch.setattr("kpod_lightning.commands.status.print_status", lambda folder: torch.empty(2**60))
    assert main(["status"]) == 2
    assert capsys.readouterr().err.startswith("kpod: not enough memory")


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("x"), KeyError("x"), RecursionError()])
def test_what_nobody_has_foreseen_keeps_its_traceback(error, monkeypatch):
    monkeypatch.setattr("kpod_lightning.commands.status.print_status", lambda folder: throw(error))
    with pytest.raises(type(error)):
        main(["status"])


def test_a_line_has_its_traceback_where_it_is_asked_for(monkeypatch):
    monkeypatch.setenv("KPOD_TRACEBACK", "1")
    with pytest.raises(InputError):
        main(["status", "nowhere"])


def throw(error: BaseException) -> None:
    raise error

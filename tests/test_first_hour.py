"""The first hour of a new user, as they type it: what each command says, and where a mistake is told the way out."""

import subprocess
import sys

import pytest

TINY = [
    "data.num_train=16",
    "data.num_validation=4",
    "data.num_test=4",
    "optim.epochs=1",
    "evaluation.max_new_tokens=8",
    "logging.wandb=disabled",
    "method=plain",
]
"""Sizes at which a run takes seconds."""


def typed(words: list[str], folder) -> tuple[int, str, str]:
    """Exit code, output and errors of `kpod` with these words, in a folder that is not the project's."""
    ran = subprocess.run(
        [sys.executable, "-m", "kpod_lightning", *words], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran.returncode, ran.stdout, ran.stderr


def test_version_help_and_settings_lead_on(tmp_path):
    code, said, _ = typed(["--version"], tmp_path)
    assert code == 0 and said.startswith("kpod_lightning ") and "torch " in said
    code, said, _ = typed(["--help"], tmp_path)
    assert code == 0 and all(f"\n    {verb} " in said for verb in ("run", "settings", "doctor", "status", "report"))
    code, said, _ = typed(["settings", "optim.lr"], tmp_path)
    assert code == 0 and said.splitlines()[1].split(None, 2)[:2] == ["optim.lr", "5e-05"]


@pytest.mark.slow
def test_the_first_run_ends_with_its_result_and_can_be_looked_at_and_made_again(tmp_path):
    code, said, errors = typed(["run", "arithmetic", *TINY], tmp_path)
    assert code == 0, errors
    assert "test, after distillation" in said and said.splitlines()[-1] == "report: runs/arithmetic/report.html"
    assert "epoch 1 of 1: " in said
    code, said, _ = typed(["status"], tmp_path)
    (row,) = (line for line in said.splitlines() if "arithmetic" in line)
    assert code == 0 and row.split()[:5] == ["arithmetic", "report", "1", "of", "1"]
    (tmp_path / "runs/arithmetic/report.md").unlink()
    assert typed(["report", "runs/arithmetic"], tmp_path)[0] == 0
    page = (tmp_path / "runs/arithmetic/report.md").read_text()
    assert "| optim.epochs | 1 | 20 |" in page and "weights." not in page and "## Schedule" not in page
    (again,) = (line.split() for line in page.splitlines() if line.startswith("    kpod run "))
    code, said, _ = typed([*again[1:], "--until", "rationales"], tmp_path)
    assert code == 0 and (tmp_path / "runs/arithmetic-again/rationales.jsonl").is_file()


def test_doctor_says_that_the_installation_is_whole(tmp_path):
    code, said, _ = typed(["doctor"], tmp_path)
    assert code == 0 and "torch" in said and "Python" in said


@pytest.mark.parametrize(
    ("words", "way_out"),
    [
        (["rnu", "arithmetic"], "rnu is no VERB; did you mean kpod run?"),
        (["run", "arithmtic"], "arithmtic: no such experiment file; "),
        (["run"], "see kpod run --help"),
        (["run", "arithmetic", "optim.learning_rate=1"], "optim."),
        (["run", "arithmetic", "optin.lr=1e-4"], "did you mean optim.lr?"),
        (["run", "arithmetic", "lr=1e-4"], "did you mean optim.lr?"),
        (["run", "arithmetic", "student=tiny-llama"], "student.name=tiny-llama"),
        (["run", "arithmetic", "optim.lr", "1e-4"], "write optim.lr=1e-4, for example"),
        (["run", "arithmetic", "--optim.lr=1e-4"], "a setting is written without dashes: optim.lr=1e-4"),
        (["run", "arithmetic", "method=kpd"], "kpod"),
        (["status"], "runs: no such folder; `kpod status FOLDER` reads the run folders in it"),
        (["report", "runs/arithmetic"], "no config.yaml, so no run folder"),
        (["settings", "nonsense"], "`kpod settings` shows all of them"),
    ],
)
def test_a_mistake_is_one_line_with_the_way_out_and_leaves_nothing_behind(words, way_out, tmp_path):
    code, said, errors = typed(words, tmp_path)
    assert (code, said) == (2, "") and errors.count("\n") == 1 and way_out in errors, errors
    assert not [*tmp_path.iterdir()]

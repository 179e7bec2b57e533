"""Runs of a few seconds through the command that users type, and what they leave; tests of methods share them."""

import json
from pathlib import Path

import pytest

from kpod_lightning.__main__ import main
from kpod_lightning.data.arithmetic import generate

EXPERIMENT = "experiments/arithmetic.yaml"

SMALL = [
    "data.num_train=24",
    "data.num_validation=4",
    "data.num_test=4",
    "optim.epochs=2",
    "optim.batch_size=8",
    "evaluation.max_new_tokens=8",
    "logging.wandb=disabled",
]


def run(folder: Path, *settings: str) -> Path:
    """A finished run in a folder."""
    assert main(["run", EXPERIMENT, "--run", str(folder), *settings]) == 0
    return folder


def student_of(folder: Path) -> bytes:
    """The student that a run wrote."""
    return (folder / "student" / "model.safetensors").read_bytes()


def write_distributions(path: Path, num_problems: int) -> None:
    """A file of a teacher whose tokens are words, and which held a comma likely in the place of each."""
    with path.open("w") as file:
        for made in generate("train", num_problems, max_steps=3):
            problem = made.problem
            words = [" " + word for word in f"{problem.rationale} The answer is {problem.answer}.".split()]
            words[0] = words[0].lstrip()
            row = {"problem_id": problem.id, "rationale": "".join(words), "logprobs": [[w, -0.7] for w in words]}
            file.write(json.dumps(row | {"top_logprobs": [[[w, -0.7], [",", -1.5]] for w in words]}) + "\n")


def refusal(capsys: pytest.CaptureFixture[str], folder: Path, *settings: str) -> str:
    """The one line with which `kpod run` refuses settings; it makes no folder for them."""
    assert main(["run", EXPERIMENT, "--run", str(folder), *settings]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and not folder.exists()
    return line

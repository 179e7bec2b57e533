"""Runs of a few seconds through the command that users type, and what they leave; tests of methods share them."""

from pathlib import Path

from kpod_lightning.__main__ import main

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

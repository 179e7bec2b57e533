"""Fixtures: the shipped students, and a few problems with rationales that the generator makes."""

import pytest
import torch

from kpod_lightning.arithmetic import generate
from kpod_lightning.rationales import Rationale, split_steps
from kpod_lightning.students import Student, load_student

torch.set_num_threads(1)  # models are tiny and two test processes share two cores


@pytest.fixture(scope="session", params=["tiny-llama", "tiny-t5"])
def student(request) -> Student:
    return load_student(request.param)


@pytest.fixture(scope="session")
def rationales() -> list[Rationale]:
    made = generate("train", 12, seed=7)
    return [
        Rationale(problem=m.problem, text=m.problem.rationale, steps=tuple(split_steps(m.problem.rationale)))
        for m in made
    ]

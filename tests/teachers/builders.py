"""Problems, teachers, rows and pieces of work that several tests of teachers build."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from kpod_lightning.config import TeacherConfig
from kpod_lightning.data.problems import Choice, Problem
from kpod_lightning.teachers.prices import Prices
from kpod_lightning.teachers.prompts import Prompt, load_prompt
from kpod_lightning.teachers.requests import Request, Wanted
from kpod_lightning.teachers.samples.file import SampleFile
from kpod_lightning.teachers.writing import Work

HENS = Problem(
    id="h", question="Ann has 2 hens and buys 3. How many hens has she?", answer="5", kind="number", split="train"
)

MELTS = Problem(
    id="m",
    question="What melts?",
    answer="B",
    kind="choice",
    split="train",
    choices=(Choice(label="A", text="stone"), Choice(label="B", text="ice")),
)

SNOW = Problem(id="s", question="Is snow cold?", answer="yes", kind="yes_no", split="train")


def teacher_of(**own: Any) -> TeacherConfig:
    return TeacherConfig(**({"name": "openai:model-a"} | own))


@cache
def prompt_of(name: str) -> Prompt:
    return load_prompt(teacher_of(prompt=name), "number")


def problems_of(number: int) -> list[Problem]:
    return [replace(HENS, id=f"p{i}", question=f"What is {i} + 1?", answer=str(i + 1)) for i in range(number)]


def all_of(wanted: Wanted | Work) -> list[Request]:
    """All that is asked while nothing comes back."""
    return list(iter(wanted.take, None))


def row_of(key: str, **own: Any) -> dict[str, Any]:
    """A row with the fields that a file of samples counts by."""
    tokens = {"prompt_tokens": 100, "cached_tokens": 0, "completion_tokens": 50}
    return {"key": key, "correct": True, "cost": 0.25, "attempts": [], "usage": tokens} | own


def work_of(folder: Path, problems: list[Problem], **own: Any) -> Work:
    teacher = teacher_of(**own)
    file = SampleFile(folder / "samples.jsonl")
    wanted = Wanted(problems, prompt_of(teacher.prompt), teacher, 7, file.right_of)
    return Work(teacher, Prices(), wanted, file, "CC0-1.0", seed=7)


def taken(work: Work) -> Request:
    request = work.take()
    assert request is not None
    return request

"""Verification of finished runs: their files are what they wrote, and their outputs are graded again."""

from collections.abc import Sequence
from typing import Any

from kpod_lightning.data.benchmarks import cut, read_problems
from kpod_lightning.data.problems import Problem
from kpod_lightning.evaluation.generate import Output
from kpod_lightning.evaluation.grade import record_of
from kpod_lightning.runs.folder import Run
from kpod_lightning.runs.packed import STUDENT
from kpod_lightning.store.errors import InputError

GRADED = ("question", "answer", "predicted", "right")
"""What a record says of its problem and of the answer in its text."""


def verify(run: Run, *, packed: bool = False) -> dict[str, int]:
    """Check every artefact's SHA-256, and grade every output again by the program as it is now.

    Args:
        packed: the student, which ``kpod pack`` leaves out, may be missing.

    Returns:
        set of problems (``test``, ``test-before``, ...) -> outputs that were graded.

    Raises:
        InputError: a file is missing or changed; a problem is missing, or its output is graded otherwise now.
    """
    for name in run.provenance["artefacts"]:
        if not (packed and name == STUDENT and not (run.folder / name).exists()):
            run.checked(name)
    splits = cut(read_problems(run.config), run.config)
    names = sorted(name for name in run.provenance["artefacts"] if name.startswith("predictions/"))
    return {
        name: regraded(run, name, splits[name.removesuffix("-before")])
        for name in (path.removeprefix("predictions/").removesuffix(".jsonl") for path in names)
    }


def regraded(run: Run, name: str, problems: Sequence[Problem]) -> int:
    """How many outputs of a set were graded again.

    Raises:
        InputError: the set has other problems than the run, or an output is graded otherwise.
    """
    records = run.records(name)
    if [record["problem_id"] for record in records] != [problem.id for problem in problems]:
        raise InputError(f"{run.folder}: its {name} has other problems than the data give now; see data.dir")
    for record, problem in zip(records, problems, strict=True):
        again = record_of(problem, outputs_of(record), variant=run.config.evaluation.variant)
        other = [key for key in GRADED if record[key] != again[key]]
        if other:
            raise InputError(
                f"{run.folder}: predictions/{name}.jsonl, problem {problem.id}: {other[0]} is {again[other[0]]!r} now, "
                f"and {record[other[0]]!r} there; the reading of answers or the data have changed since"
            )
    return len(records)


def outputs_of(record: dict[str, Any]) -> list[Output]:
    """The outputs that a record was made of; of several, only the chosen one's length is kept."""
    texts = record.get("samples", [record["text"]])
    return [Output(text=text, num_tokens=record["num_tokens"], at_limit=record["at_limit"]) for text in texts]

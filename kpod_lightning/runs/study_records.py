"""Records of a study: a line for each finished run, from which its table is made again without the run folders."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from kpod_lightning.runs.folder import Run, has_ended, load_run
from kpod_lightning.runs.study import NAMED, Study
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import fingerprint
from kpod_lightning.store.json_lines import load_jsonl, save_jsonl
from kpod_lightning.store.reading import read_object, shown

RECORDS = "records.jsonl"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a table needs of a run."""

    run: str
    """Name of its folder."""
    arm: str
    seed: int
    problems: str
    """Hash of the ids of the test problems, in their order: runs are paired by them."""
    before: str
    """A character a test problem, 1 where the student before distillation is right, else 0."""
    right: str
    """The same of the student after it."""
    epochs: float
    steps: int
    tokens: int
    """Target tokens that the student learned from."""
    seconds: float
    """Of its training, without what is made before it and without evaluation."""

    @property
    def accuracy(self) -> float:
        return self.right.count("1") / len(self.right)

    def rights(self) -> list[bool]:
        """[problems] whether the student after distillation is right."""
        return [mark == "1" for mark in self.right]


@dataclass(frozen=True, kw_only=True)
class Records:
    """A study and its finished runs.

    Attributes:
        named: what ``Study.as_dict`` gives.
        planned: how many runs the study has.
        beforehand: a sentence on when arms and comparisons were named; empty where that is not known.
    """

    study: str
    about: str
    named: dict[str, Any]
    planned: int
    beforehand: str
    runs: tuple[RunRecord, ...]


def record_of(run: Run, *, arm: str) -> RunRecord:
    """
    Raises:
        InputError: graded outputs are missing or damaged, or the sets before and after differ.
    """
    before, after = run.records("test-before"), run.records("test")
    ids = [str(record["problem_id"]) for record in after]
    if ids != [record["problem_id"] for record in before]:
        raise InputError(f"{run.folder}: other test problems before distillation than after it; make it again: --redo")
    rows = [row for row in run.metrics if "train/tokens_seen" in row]
    last = rows[-1] if rows else {"epoch": -1, "step": -1, "train/tokens_seen": 0}
    seen = [0.0, *(row["train/tokens_seen"] for row in rows)]
    spent = [(b - a) / row["train/tokens_per_second"] for (a, b), row in zip(pairwise(seen), rows, strict=True)]
    return RunRecord(
        run=run.folder.name,
        arm=arm,
        seed=run.config.seed,
        problems=fingerprint(ids)[:16],
        before=marks(before),
        right=marks(after),
        epochs=float(last["epoch"] + 1),
        steps=int(last["step"] + 1),
        tokens=int(last["train/tokens_seen"]),
        seconds=round(sum(spent), 1),
    )


def marks(graded: Sequence[dict[str, Any]]) -> str:
    return "".join("1" if record["right"] else "0" for record in graded)


def records_of(study: Study) -> Records:
    """The records of the runs that have ended.

    Raises:
        InputError: as ``record_of``; none has ended.
    """
    ended = [planned for planned in study.runs if has_ended(planned.folder)]
    runs = [record_of(load_run(planned.folder), arm=planned.arm.name) for planned in ended]
    if not runs:
        raise InputError(f"{shown(study.folder)}: no run of the study has ended yet; `kpod study` makes them")
    return Records(
        study=study.name,
        about=study.about,
        named=study.as_dict(),
        planned=len(study.runs),
        beforehand=beforehand(study),
        runs=tuple(runs),
    )


def beforehand(study: Study) -> str:
    """Whether the comparisons were named before the first run, by what `kpod study` has written down.

    Raises:
        InputError: the file is damaged.
    """
    path, family = study.folder / NAMED, study.as_dict()["family"]
    versions = read_object(path).get("versions", []) if path.exists() else []
    changed = [
        version for i, version in enumerate(versions) if i == 0 or version["family"] != versions[i - 1]["family"]
    ]
    if not changed or changed[-1]["family"] != family:
        return "When the comparisons were named is not known: `kpod study` has not run this file."
    if len(changed) == 1 and not changed[0]["num_finished"]:
        return "The comparisons were named before the first run had ended."
    last = changed[-1]
    return f"The comparisons were named on {last['date']}, when {last['num_finished']} runs had ended."


def save_records(path: Path, records: Records) -> None:
    """The study in the first line, then a line a run."""
    first = {key: value for key, value in asdict(records).items() if key != "runs"}
    save_jsonl(path, [first, *(asdict(run) for run in records.runs)])


def load_records(path: Path) -> Records:
    """
    Raises:
        InputError: no such file, or its lines are no records of a study.
    """
    first, *rows = load_jsonl(path) or [{}]
    try:
        return Records(**first, runs=tuple(RunRecord(**row) for row in rows))
    except TypeError as error:
        raise InputError(f"{shown(path)}: no records of a study, which `kpod table` writes") from error

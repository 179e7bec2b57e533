"""`kpod status`: what the runs of a folder have reached, from what lies in it, and where their Slurm jobs are."""

import argparse
import re
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from kpod_lightning.commands.arguments import Verbs, a_path
from kpod_lightning.distributed.console import console
from kpod_lightning.evaluation.statistics import wilson_interval
from kpod_lightning.runs.verbs import STOPS
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import read_rows
from kpod_lightning.store.reading import read_object, read_yaml

WIDTH = 240
"""Columns of the table in a file or a pipe, which have no width of their own: in 80 columns cells would be cut."""

ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "REVOKED",
    "TIMEOUT",
}
"""States of a Slurm job that will not run again."""


def add(verbs: Verbs) -> None:
    command = verbs.add_parser("status", help="what the runs of a folder have reached, and where their jobs are")
    command.add_argument("folder", type=a_path, nargs="?", default=Path("runs"))
    command.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> int:
    print_status(arguments.folder)
    return 0


@dataclass(frozen=True, kw_only=True)
class JobState:
    """A job that Slurm still knows."""

    state: str
    """Slurm's name of it: PENDING, RUNNING, ..."""
    reason: str
    """Why it waits or failed, or nothing."""

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def __str__(self) -> str:
        return f"{self.state} ({self.reason})" if self.reason else self.state


def job_record(run: Path) -> Path:
    """Beside the run folder, since a job waits before there is a folder."""
    return run.with_name(f"{run.name}.job.json")


def recorded_job(run: Path) -> str | None:
    """Id of the job that was submitted last for this run folder."""
    with suppress(InputError):  # a damaged record must not hide the other runs
        return optional_job(read_object(job_record(run)).get("job"))
    return None


def optional_job(written: Any) -> str | None:
    """The id of a job, as Slurm has it: ``4711`` or ``4711_2``; None for anything else."""
    return written if isinstance(written, str) and re.fullmatch(r"\d+(_\d+)?", written, flags=re.ASCII) else None


def job_states(jobs: Iterable[str]) -> dict[str, JobState] | None:
    """State of each of these jobs that Slurm still knows; None where Slurm cannot be asked.

    Some minutes after its end (``MinJobAge``) a job is forgotten.
    """
    numbers = sorted({job.split("_")[0] for job in jobs})
    if not numbers or shutil.which("squeue") is None:
        return None
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r|%E", f"--jobs={','.join(numbers)}"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        return None
    if asked.returncode:
        # Asked for one forgotten job, squeue calls it an error; of several it leaves the forgotten ones out.
        return {} if "Invalid job id" in asked.stderr else None
    states = {}
    for line in asked.stdout.splitlines():
        job, state, reason, dependency = line.split("|", maxsplit=3)
        if reason.startswith("Dependency"):
            reason = f"{reason} {dependency}"
        states[job] = JobState(state=state, reason="" if reason == "None" else reason)
    return states


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSONL file that a run may be writing now: none of a missing file, and none from a damaged line on.

    A damaged line stops the command that needs it, which names it; it must not hide the other runs from this table.
    """
    rows: list[dict[str, Any]] = []
    with suppress(FileNotFoundError, InputError):
        for row in read_rows(path):
            rows.append(row)
    return rows


def num_epochs(run: Path) -> int | None:
    """Epochs of a run's settings; None where they cannot be read."""
    with suppress(InputError, KeyError, TypeError):
        epochs = read_yaml(run / "config.yaml")["optim"]["epochs"]
        return epochs if isinstance(epochs, int) else None
    return None


def reached(run: Path) -> str:
    """The last verb whose artefact is there; a method of another package may have made more before the training."""
    for stop in reversed(STOPS):
        for artefact in reversed(stop.artefacts):
            if (run / artefact).exists():
                return f"{stop.name} {Path(artefact).stem}" if len(stop.artefacts) > 1 else stop.name
        if stop.name == "train" and (run / "metrics.jsonl").exists():
            return "training"
    return "settings" if (run / "config.yaml").exists() else "nothing yet"


def describe(run: Path, job: str | None, states: dict[str, JobState] | None) -> list[str]:
    """One row of the table: name, reached, epoch, validation, test, job. Every file may be missing."""
    metrics = rows_of(run / "metrics.jsonl")
    validation = numbers(metrics, "validation/accuracy")
    right = rights_of(run)
    test = ""
    if right:
        low, high = wilson_interval(sum(right), len(right))
        test = f"{100 * sum(right) / len(right):.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    slurm = job or ""
    if job is not None and states is not None:
        slurm = f"{job} {states[job]}" if job in states else f"{job} left the queue"
    return [
        run.name,
        reached(run),
        epochs_of(run, metrics),
        f"{100 * max(validation):.1f} %" if validation else "",  # the best: its checkpoint becomes the student
        test,
        slurm,
    ]


def rights_of(run: Path) -> list[bool]:
    """Whether each test problem is answered right by the distilled student; none of a run that has not come so far."""
    graded = rows_of(run / "predictions" / "test.jsonl")
    return [row["right"] for row in graded if isinstance(row.get("right"), bool)]


def epochs_of(run: Path, metrics: list[dict[str, Any]]) -> str:
    """How many epochs of a training are done, of how many; nothing before the first.

    Args:
        metrics: rows of its ``metrics.jsonl``.
    """
    epochs = [int(epoch) + 1 for epoch in numbers(metrics, "epoch")]
    return f"{max(epochs)} of {num_epochs(run) or '?'}" if epochs else ""


def numbers(rows: list[dict[str, Any]], name: str) -> list[float]:
    """The numbers of this name in the rows that have one."""
    values = [row.get(name) for row in rows]
    return [value for value in values if isinstance(value, (int, float))]


def run_folders(folder: Path) -> list[Path]:
    """The run folders in a folder, or the folder itself if it is one; also those whose job has yet to make them.

    Raises:
        InputError: there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; `kpod status FOLDER` reads the run folders in it")
    if (folder / "config.yaml").is_file():
        return [folder]
    begun = {path.parent for path in folder.glob("*/config.yaml")}
    submitted = {path.with_name(path.name.removesuffix(".job.json")) for path in folder.glob("*.job.json")}
    if not begun | submitted:
        raise InputError(f"{folder}: no run folder in it; `kpod run` and `kpod submit` make them")
    return sorted(begun | submitted)


def print_status(folder: Path) -> None:
    """A table of the runs in a folder, whatever state they are in."""
    runs = run_folders(folder)
    jobs = {run: recorded_job(run) for run in runs}
    states = job_states(job for job in jobs.values() if job is not None)
    table = Table("run", "reached", "epoch", "validation", "test [95 % interval]", "job", box=box.SIMPLE)
    for run in runs:
        # Text, because the name of a folder may look like markup.
        table.add_row(*(Text(cell) for cell in describe(run, jobs[run], states)))
    if not console.is_terminal:
        table.width = console.measure(table, options=console.options.update(width=WIDTH)).maximum
    console.print(table, crop=False)
    if states is None and any(jobs.values()):
        console.print("Slurm cannot be asked from here: states of jobs are not known.", highlight=False)

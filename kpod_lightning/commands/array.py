"""A study as an array of Slurm jobs: a task for each missing run, whose command is a line of a file of tasks."""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kpod_lightning.commands.status import job_states, recorded_job
from kpod_lightning.commands.submit import MOST_SEEDS, Job, load_site, resources, submit
from kpod_lightning.distributed.console import say
from kpod_lightning.runs.dispatch import keep_named
from kpod_lightning.runs.folder import LOCK, has_ended
from kpod_lightning.runs.study import PlannedRun, Study
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import fingerprint
from kpod_lightning.store.locks import is_held


@dataclass(frozen=True, kw_only=True)
class StudyJob(Job):
    """One array for runs of a study. ``settings`` are those of all of them, for what Slurm says alone."""

    tasks: Sequence[PlannedRun]
    limit: int | None
    """Most tasks that run at a time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.tasks) > MOST_SEEDS:
            raise InputError(
                f"{len(self.tasks)} runs are missing, and no array of Slurm has more than {MOST_SEEDS} tasks: "
                "take a study file with fewer, and others later"
            )
        wrong = [word for task in self.tasks for word in task.words if not word.isprintable()]
        if wrong:
            raise InputError(f"{wrong[0]!r}: a task is a line of a file, so its settings are printable characters")

    @property
    def runs(self) -> dict[Path, list[str]]:
        return {task.folder: [*task.settings, *self.launch_settings] for task in self.tasks}

    @property
    def experiments(self) -> dict[Path, Path]:
        return {task.folder: task.arm.experiment for task in self.tasks}

    @property
    def indices(self) -> Sequence[int | None]:
        return range(len(self.tasks))

    @property
    def lines(self) -> list[str]:
        return [shlex.join([*task.words, *self.launch_settings]) for task in self.tasks]

    @property
    def log(self) -> str:
        return f"{self.run.parent / 'logs'}".replace("%", "%%") + "/slurm-%A_%a.log"

    @property
    def at_once(self) -> int | None:
        return self.limit


def submit_study(study: Study, chosen: Study, arguments: argparse.Namespace) -> None:
    """Submit the runs that have not finished, and that nothing else is at.

    Args:
        study: the whole, whose names are kept.
        chosen: with the arms and seeds that are asked for.

    Raises:
        InputError: as ``submit``; no ``--time``.
    """
    if arguments.time is None:
        raise InputError("--slurm needs --time, the limit of each run, e.g. --time 08:00:00")
    tasks = free_runs(chosen)
    if not tasks:
        return
    # A name of its own: an array that waits in the queue reads its own file of tasks, also after a later one.
    name = f"{study.name}-{fingerprint([task.words for task in tasks])[:8]}"
    job = StudyJob(
        experiment=arguments.file,
        run=study.folder / name,
        settings=[setting for task in tasks for setting in task.arm.settings],
        tasks=tasks,
        limit=arguments.jobs,
        **resources(arguments),
    )
    if not arguments.dry_run:
        keep_named(study)
        (study.folder / "logs").mkdir(exist_ok=True)  # Slurm makes no folder for its logs
    submit(job, load_site(arguments.site), dry_run=arguments.dry_run)


def free_runs(study: Study) -> list[PlannedRun]:
    """Runs that have not finished, without those that a process or a job is at, which a line says."""
    missing = [run for run in study.runs if not has_ended(run.folder)]
    jobs = {run.folder: recorded_job(run.folder) for run in missing}
    states = job_states(job for job in jobs.values() if job is not None) or {}
    queued = {folder for folder, job in jobs.items() if job in states and not states[job].ended}
    busy = [run for run in missing if run.folder in queued or is_held(run.folder / LOCK)]
    if busy or not missing:
        num_finished = len(study.runs) - len(missing)
        say(f"{study.name}: {num_finished} of {len(study.runs)} finished, {len(busy)} in the queue or running")
    return [run for run in missing if run not in busy]

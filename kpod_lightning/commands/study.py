"""`kpod study`: the runs of a study file, those that are missing, some at once; the same command goes on."""

import argparse
import os
import shlex
from collections.abc import Callable
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from kpod_lightning.commands.arguments import Verbs, a_folder, a_path, add_settings, number
from kpod_lightning.commands.array import submit_study
from kpod_lightning.commands.status import WIDTH
from kpod_lightning.commands.submit import add_resources
from kpod_lightning.distributed.console import console, say
from kpod_lightning.runs.dispatch import FAILED, Dispatch, Task, gpus_here, keep_named, refuse_other_settings
from kpod_lightning.runs.folder import has_ended
from kpod_lightning.runs.study import devices_of, load_study
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.reading import shown

RESOURCES = ("nodes", "gpus", "processes", "cpus", "time", "lead", "after", "site", "dry_run")
"""Options that go with ``--slurm``."""


def add(verbs: Verbs) -> None:
    command = verbs.add_parser("study", help="the runs of a study file, those that are missing, some at once")
    command.add_argument("file", type=a_path, help="a study, e.g. experiments/studies/quick.yaml")
    command.add_argument("--runs", type=a_folder, help="folder of its run folders (default: runs/<study>)")
    command.add_argument(
        "--jobs", type=number("--jobs", int, 1, 1024), help="most runs at once (default: one a core, or a GPU)"
    )
    command.add_argument("--arms", type=listed(str), metavar="A,B", help="of these arms alone (default: of all)")
    command.add_argument("--seeds", type=listed(int), metavar="0,1", help="with these seeds alone (default: with all)")
    command.add_argument("--slurm", action="store_true", help="as an array of Slurm jobs, --jobs of them at a time")
    add_resources(command.add_argument_group("with --slurm"), time_required=False)
    defaults = {name: command.get_default(name) for name in RESOURCES}
    add_settings(command, "optim.epochs=2; they belong to every arm")
    command.set_defaults(main=main, defaults=defaults)


def main(arguments: argparse.Namespace) -> int:
    from kpod_lightning.commands.live import Cells

    study = load_study(arguments.file, arguments.settings, arguments.runs)
    refuse_other_settings(study)
    chosen = study.only(arguments.arms, arguments.seeds)
    if arguments.slurm:
        submit_study(study, chosen, arguments)
        return 0
    refuse_resources(arguments)
    tasks = [Task(run, devices=devices_of(study.configs[run.arm.name].launch)) for run in chosen.runs]
    gpus = shared_out(tasks)
    keep_named(study)
    num_missing = sum(not has_ended(task.run.folder) for task in tasks)
    cores = num_cores()
    jobs = arguments.jobs or (cores if gpus is None else len(gpus))
    # From all runs of the study, not those of this call: with other threads a run that goes on would round otherwise.
    threads = max(1, cores // min(jobs, len(study.runs)))
    jobs = max(1, min(jobs, num_missing))
    say(f"{study.name}: {len(tasks)} runs in {shown(study.folder)}, {num_missing} of them missing")
    with Cells(chosen, tasks, jobs) as cells:
        Dispatch(tasks, jobs, threads, cells.changed, cells.looked, gpus).complete()
    failed = [task for task in tasks if task.state == FAILED]
    if failed:
        print_failures(failed)
    else:
        words = [str(arguments.file), "--runs", str(study.folder), *arguments.settings]
        say(f"Its table: kpod table {shlex.join(words)}")
    return 1 if failed else 0


def listed(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Reads ``A,B`` as a list of words or numbers."""

    def read(text: str) -> list[Any]:
        try:
            return [kind(part.strip()) for part in text.split(",")]
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text}: a list such as 0,1 is expected") from error

    return read


def refuse_resources(arguments: argparse.Namespace) -> None:
    """
    Raises:
        InputError: an option that Slurm alone understands, without ``--slurm``.
    """
    for name in RESOURCES:
        if getattr(arguments, name) != arguments.defaults[name]:
            raise InputError(f"--{name.replace('_', '-')} is for a job of Slurm: add --slurm, or leave it out")


def shared_out(tasks: list[Task]) -> list[str] | None:
    """The GPUs of this machine, of which each run gets its own; None where there are none to share.

    Raises:
        InputError: a run wants more than there are.
    """
    gpus = gpus_here()
    if not gpus or not any(task.devices for task in tasks):
        return None
    greedy = max(tasks, key=lambda task: task.devices)
    if greedy.devices > len(gpus):
        wanted = f"launch.devices={greedy.devices}"
        there = f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}"
        raise InputError(f"{greedy.name}: {wanted}, but only {there} here; set fewer, or use --slurm")
    return gpus


def num_cores() -> int:
    """Cores that this process may use; a job of Slurm or a container often has a part of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def print_failures(failed: list[Task]) -> None:
    """Name, end and last line of every run that failed."""
    table = Table("failed", "ended with", "last line of its log", box=box.SIMPLE)
    for task in failed:
        table.add_row(Text(task.name), task.ended, Text(task.line or "nothing written"))
    if not console.is_terminal:
        table.width = console.measure(table, options=console.options.update(width=WIDTH)).maximum
    console.print(table, crop=False)
    say(f"Their logs are in {shown(failed[0].log.parent)}. The same command tries them again.")

"""`kpod submit`: a run as a Slurm job. Its script is made from a template once the settings have been read."""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from kpod_lightning.commands.arguments import Verbs, a_path, add_experiment, add_run, add_settings, number, run_folder
from kpod_lightning.commands.status import job_record, job_states, recorded_job
from kpod_lightning.methods.base import load_experiment
from kpod_lightning.runs.folder import changed_settings
from kpod_lightning.store.bounds import check, shortened
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import ASSETS, write_text
from kpod_lightning.store.products import product
from kpod_lightning.store.reading import kind_of, read_yaml, shown
from kpod_lightning.store.typed import fitted

SLURM_FOLDER = ASSETS / "slurm"

TEMPLATE = SLURM_FOLDER / "train.sbatch.j2"

SITE = Path("experiments/slurm/site.yaml")
"""The cluster's own lines, looked for in the folder that the command is typed in."""

MOST_SEEDS = 1000
"""Most jobs of an array; Slurm's own limit, MaxArraySize, is 1001 unless a cluster has another."""

MOST_SHOWN = 10
"""Logs that are named when a job has been submitted."""

SIGNAL_ERROR = 60
"""Seconds by which Slurm may send its signal too early."""


def add(verbs: Verbs) -> None:
    command = verbs.add_parser("submit", help="the whole pipeline as a Slurm job")
    add_experiment(command)
    add_run(command, "run folder (default: runs/<experiment>); --seeds appends -s<seed>")
    command.add_argument("--seeds", help="an array of jobs, e.g. 0,1,2 or 0-4")
    add_resources(command, time_required=True)
    add_settings(command, "optim.lr=1e-4")
    command.set_defaults(main=main)


def add_resources(command: argparse._ActionsContainer, *, time_required: bool) -> None:
    """What a job asks of Slurm; ``resources`` reads it."""
    command.add_argument("--nodes", type=number("--nodes", int, 1, 100_000), default=1)
    kind = command.add_mutually_exclusive_group()
    kind.add_argument("--gpus", type=number("--gpus", int, 0, 256), help="of a node, one process each (default: 1)")
    kind.add_argument("--processes", type=number("--processes", int, 1, 256), help="of a node, without GPUs")
    command.add_argument(
        "--cpus", type=number("--cpus", int, 1, 1024), help="cores a process (default: 4 beside a GPU, else 1)"
    )
    command.add_argument("--time", required=time_required, help="limit, e.g. 08:00:00; a requeued job gets it anew")
    lead = "seconds before the end to save in (default: 120)"
    command.add_argument("--lead", type=number("--lead", int, 1, 1_000_000), default=120, help=lead)
    command.add_argument("--after", metavar="JOB", help="start when this job has ended well")
    command.add_argument("--site", type=a_path, help="the cluster's own lines (default: experiments/slurm/site.yaml)")
    command.add_argument("--dry-run", action="store_true", help="print the script and submit nothing")


def main(arguments: argparse.Namespace) -> int:
    job = Job(
        experiment=arguments.experiment,
        run=run_folder(arguments),
        settings=arguments.settings,
        seeds=() if arguments.seeds is None else parse_seeds(arguments.seeds),
        **resources(arguments),
    )
    submit(job, load_site(arguments.site), dry_run=arguments.dry_run)
    return 0


def resources(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of ``Job`` that ``add_resources`` has options for."""
    return {
        "nodes": arguments.nodes,
        "gpus": arguments.gpus if arguments.gpus is not None else 1 if arguments.processes is None else 0,
        "processes": 1 if arguments.processes is None else arguments.processes,
        "cpus": arguments.cpus,
        "time": arguments.time,
        "lead": arguments.lead,
        "after": arguments.after,
    }


@dataclass(frozen=True, kw_only=True)
class SiteConfig:
    """What a cluster asks of every job."""

    account: str | None = None
    partition: str | None = None
    sbatch: list[str] = field(default_factory=list)
    """Options of sbatch, one an entry; they come last and win."""
    setup: list[str] = field(default_factory=list)
    """Shell lines before the processes start."""

    def __post_init__(self) -> None:
        check(self)
        for option in self.sbatch:
            if not re.fullmatch(r"-[^\n]+", option):
                raise InputError(f"sbatch: {option!r} is no option of sbatch, such as --constraint=a100")
        for name in ("account", "partition"):
            if not (getattr(self, name) or "").isprintable():
                raise InputError(f"{name} is one printable line")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is asked of Slurm for one experiment."""

    experiment: Path
    run: Path
    settings: list[str]
    nodes: int = 1
    gpus: int = 1
    """Of a node, one process each; 0 computes on CPUs."""
    processes: int = 1
    """Of a node, where there are no GPUs."""
    cpus: int | None = None
    """Cores a process; null: 4 beside a GPU, else 1."""
    time: str = "08:00:00"
    lead: int = 120
    """Seconds before the end in which a checkpoint is saved."""
    seeds: tuple[int, ...] = ()
    """An array of jobs, one a seed; none is one job with the experiment's seed."""
    after: str | None = None
    """Job that must have ended well before this one starts."""

    def __post_init__(self) -> None:
        # A line end would begin another line of the script; a backslash keeps Slurm from reading %a in a log's name.
        if not f"{self.run}{Path.cwd()}".isprintable() or "\\" in str(self.run):
            raise InputError(f"--run {str(self.run)!r}: Slurm takes printable characters and no backslash")
        if self.after is not None and not re.fullmatch(r"\d+(_\d+)?(:\d+(_\d+)?)*", self.after):
            raise InputError(f"--after {self.after}: the id of a job, such as 4711; several are joined by colons")
        needed = self.lead + SIGNAL_ERROR
        if seconds_of(self.time) <= needed:
            raise InputError(
                f"--time {self.time} is too short: the signal to save comes up to {needed} s before the end "
                f"(--lead {self.lead} and Slurm's {SIGNAL_ERROR} s); ask for more time or lower --lead"
            )
        taken = {"launch.num_nodes": "--nodes", "launch.devices": "--gpus or --processes"}
        taken["launch.accelerator"] = "--gpus or --processes"
        if self.seeds:
            taken["seed"] = "--seeds"
        for setting in self.settings:
            key = setting.split("=")[0]
            if key in taken:
                raise InputError(f"{setting}: here {taken[key]} says that; leave {key} out")

    @property
    def launch_settings(self) -> list[str]:
        """Where it computes."""
        accelerator, devices = ("gpu", self.gpus) if self.gpus else ("cpu", self.processes)
        launch = {"num_nodes": self.nodes, "devices": devices, "accelerator": accelerator}
        return [f"launch.{name}={value}" for name, value in launch.items()]

    @property
    def all_settings(self) -> list[str]:
        """The user's, and where it computes; without the seed of an array."""
        return [*self.settings, *self.launch_settings]

    @property
    def runs(self) -> dict[Path, list[str]]:
        """Settings of each run folder."""
        if not self.seeds:
            return {self.run: self.all_settings}
        return {
            self.run.with_name(f"{self.run.name}-s{seed}"): [*self.all_settings, f"seed={seed}"] for seed in self.seeds
        }

    @property
    def experiments(self) -> dict[Path, Path]:
        """Experiment of each run folder."""
        return dict.fromkeys(self.runs, self.experiment)

    @property
    def indices(self) -> Sequence[int | None]:
        """Of the runs in the array; None for a job that is no array."""
        return self.seeds or (None,)

    @property
    def lines(self) -> list[str]:
        """Of the file of tasks: the words of each one's `kpod`, quoted for a shell. None where the script has them."""
        return []

    @property
    def log(self) -> str:
        """Path of the log, in which Slurm reads %A as the job, %a as the index in the array, and %% as %."""
        return str(self.run).replace("%", "%%") + ("-s%a.log" if self.seeds else ".log")

    @property
    def at_once(self) -> int | None:
        """Most tasks of the array that run at a time."""
        return None

    @property
    def tasks_file(self) -> Path:
        return self.run.with_name(f"{self.run.name}.tasks")

    @property
    def script(self) -> Path:
        return self.run.with_name(f"{self.run.name}.sbatch")

    @property
    def command(self) -> list[str]:
        # Not in the script: submitted again by hand, it would name a job that Slurm has forgotten.
        # Without kill-on-invalid-dep the dependant of a failed job waits for ever.
        after = [] if self.after is None else [f"--dependency=afterok:{self.after}", "--kill-on-invalid-dep=yes"]
        return ["sbatch", "--parsable", *after, str(self.script)]


def seconds_of(time: str) -> int:
    """Slurm's ways to write a time: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S."""
    if not re.fullmatch(r"\d{1,9}(:\d{1,9}){0,2}|\d{1,9}-\d{1,9}(:\d{1,9}){0,2}", time, flags=re.ASCII):
        raise InputError(
            f"--time {shortened(time)}: written as Slurm has it, such as 08:00:00 or 2-12:00:00 (days-hours)"
        )
    days, _, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if days:
        hours, minutes, seconds = parts + [0] * (3 - len(parts))
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, parts + [0] * (2 - len(parts))
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def parse_seeds(text: str) -> tuple[int, ...]:
    """``0,1,2`` or ``0-2``, or both mixed.

    Raises:
        InputError: something else, or a seed twice: two jobs would write one run folder.
    """
    seeds: list[int] = []
    for part in text.split(","):
        if not re.fullmatch(r"\d{1,10}(-\d{1,10})?", part, flags=re.ASCII):
            raise InputError(f"--seeds {shortened(text)}: numbers joined by commas, such as 0,1,2 or 0-4")
        first, _, last = part.partition("-")
        if int(last or first) - int(first) >= MOST_SEEDS:
            raise InputError(f"--seeds {shortened(text)}: more than {MOST_SEEDS} jobs, which no array of Slurm has")
        seeds += range(int(first), int(last or first) + 1)
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds {shortened(text)}: a seed is there twice, or none")
    return tuple(seeds)


def load_site(path: Path | None) -> SiteConfig:
    """``--site FILE``, else ``experiments/slurm/site.yaml`` if it is there.

    Raises:
        InputError: no such file, an unknown key, a value of the wrong type.
    """
    if path is None:
        if not SITE.is_file():
            return SiteConfig()
        path = SITE
    if not os.path.lexists(path):
        raise InputError(f"--site {path}: no such file; {SLURM_FOLDER / 'site.example.yaml'} is one to begin with")
    written = read_yaml(path)
    if not isinstance(written, dict | None):
        raise InputError(f"{shown(path)}: a mapping of the cluster's lines is expected, not a {kind_of(written)}")
    try:
        return SiteConfig(**fitted(SiteConfig, written or {}))
    except InputError as error:
        raise InputError(f"{shown(path)}: {error}") from error


def sbatch_quoted(text: str) -> str:
    """A value of a ``#SBATCH`` line. Unlike a shell, Slurm takes a backslash for an escape within single quotes too."""
    if re.fullmatch(r"[\w@%+:,./-]+", text, flags=re.ASCII):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def render(job: Job, site: SiteConfig) -> str:
    """The script. Whatever comes from outside is quoted, for Slurm in ``#SBATCH`` lines, for the shell elsewhere."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"shell": lambda value: shlex.quote(str(value)), "sbatch": sbatch_quoted}
    suffix = "-s" if job.seeds else ""
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        run=job.run,
        script=shlex.quote(str(job.script.absolute())),
        name=job.run.name,
        workdir=str(Path.cwd()),
        log=job.log,
        seeds=job.seeds,
        num_tasks=len(job.lines),
        tasks_file=job.tasks_file,
        at_once=job.at_once,
        time=job.time,
        nodes=job.nodes,
        gpus=job.gpus,
        processes=job.gpus or job.processes,
        cpus=job.cpus or (4 if job.gpus else 1),
        lead=job.lead,
        site=site,
        python=sys.executable,
        experiment=job.experiment,
        run_prefix=f"{job.run}{suffix}",
        seed_suffix='"$SLURM_ARRAY_TASK_ID"' if job.seeds else "",
        settings=job.all_settings,
    )


def refuse_what_would_fail(job: Job) -> None:
    """Read the settings as the job will, so that what is wrong shows now and not after hours in the queue.

    Raises:
        InputError: settings that cannot be used, a folder of other settings, a run that another job is at.
    """
    earlier = {run: recorded_job(run) for run in job.runs}
    states = job_states(job for job in earlier.values() if job is not None) or {}
    for run, settings in job.runs.items():
        config = load_experiment(job.experiments[run], settings)
        changed = changed_settings(run, config)
        if changed:
            raise InputError(f"{run} was made with other settings ({'; '.join(changed)}): take another --run")
        # A chain on one folder is fine: the next job starts when the one before has ended.
        before = earlier[run]
        if before is None or before.split("_")[0] in re.split("[_:]", job.after or ""):
            continue
        state = states.get(before)
        if state is not None and not state.ended:
            raise InputError(
                f"{run} is the run folder of job {before}, {state}: scancel {before}, take another --run, "
                f"or --after {before}"
            )


def submit(job: Job, site: SiteConfig, *, dry_run: bool = False) -> None:
    """Write the script beside the run folder, submit it, and say how to follow the job.

    Raises:
        InputError: what is asked cannot work, there is no Slurm, or Slurm refuses.
    """
    refuse_what_would_fail(job)
    script = render(job, site)
    if dry_run:
        print(script, end="")
        print(f"to be submitted by: {shlex.join(job.command)}", file=sys.stderr)
        return
    if shutil.which("sbatch") is None:
        raise InputError("sbatch is not on the PATH: submit where Slurm is, or see the script by --dry-run")
    with product(job.script, "job script") as aside:  # one that was changed by hand stays
        aside.write_text(script, encoding="utf-8")
    if job.lines:
        write_text(job.tasks_file, "\n".join(job.lines) + "\n")
    asked = subprocess.run(job.command, capture_output=True, text=True)
    if asked.returncode:
        reason = " ".join(asked.stderr.split()) or f"exit code {asked.returncode}"
        raise InputError(f"sbatch refused {job.script}: {reason}")
    number = asked.stdout.strip().split(";")[0]  # behind a semicolon stands the cluster, where there are several
    logs = {run: log_of(job, number, index) for run, index in zip(job.runs, job.indices, strict=True)}
    for run, index in zip(job.runs, job.indices, strict=True):
        record = {
            "job": number if index is None else f"{number}_{index}",
            "script": str(job.script),
            "log": logs[run],
        }
        write_text(job_record(run), json.dumps(record) + "\n")
    processes = job.gpus or job.processes
    kind = ("GPU" if job.gpus else "process") if processes == 1 else ("GPUs" if job.gpus else "processes")
    print(f"job {number}: {job.nodes} {'node' if job.nodes == 1 else 'nodes'} of {processes} {kind}, {job.script}")
    print(f"  squeue --job {number}; scontrol show job {number}")
    for run in list(job.runs)[:MOST_SHOWN]:
        print(f"  tail -F {shlex.quote(logs[run])}")
    print(f"  kpod status {shlex.quote(str(job.run.parent))}")


def log_of(job: Job, number: str, index: int | None) -> str:
    """Path of a task's log, as Slurm makes it from the job's pattern."""
    parts = {"%%": "%", "%A": number, "%a": str(index)}
    return re.sub("%.", lambda part: parts[part[0]], job.log)

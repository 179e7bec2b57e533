"""Command line: ``kpod run EXPERIMENT [--run DIR] [key=value ...]``. Nothing heavy is imported before it is needed."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kpod_lightning.distributed.preemption import Preempted, back_into_the_queue, listening
from kpod_lightning.distributed.ranks import is_first
from kpod_lightning.store.errors import InputError

if TYPE_CHECKING:
    from kpod_lightning.config import RunConfig

PIPELINE = {
    "run": "the whole pipeline: what is missing in the run folder is done",
    "rationales": "up to the rationales that are trained on; with teacher=... --out FILE, let a teacher write some",
    "weights": "up to the keypoint weights",
    "difficulties": "up to the difficulty of every step",
    "schedule": "up to the schedule of input steps",
    "train": "up to the distilled student",
    "evaluate": "up to the graded outputs",
}
"""Verbs that take an experiment."""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="kpod",
        description="Keypoint-based progressive chain-of-thought distillation, experiment by experiment.",
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, text in PIPELINE.items():
        command = verbs.add_parser(verb, help=text)
        command.add_argument("experiment", type=Path, help="a YAML file, e.g. experiments/arithmetic.yaml")
        command.add_argument("--run", type=Path, help="run folder (default: runs/<experiment>)")
        command.add_argument("--redo", action="store_true", help="inputs changed: make again what depends on them")
        command.add_argument("settings", nargs="*", metavar="key=value", help="overrides, e.g. optim.lr=1e-4")
        if verb == "rationales":
            command.add_argument(
                "--out", type=Path, metavar="FILE", help="file of samples that teacher= writes, .jsonl"
            )
            command.add_argument("--dry-run", action="store_true", help="say what it would cost, and ask for nothing")
            command.add_argument("--shard", metavar="PART/PARTS", help="of several that share the work, e.g. 1/4")
    looks = verbs.add_parser("rationales report", help="what a file of samples holds: a table, and a page to read")
    looks.add_argument("experiment", type=Path, help="a YAML file, e.g. experiments/gsm8k.yaml")
    looks.add_argument("file", type=Path, help="file of samples, .jsonl")
    looks.add_argument("--out", type=Path, metavar="FILE", help="page to write (default: FILE.html)")
    looks.add_argument("settings", nargs="*", metavar="key=value", help="overrides, e.g. data.dir=DIR")
    keeps = verbs.add_parser("rationales filter", help="keep what is right, whole, and not nearly the same")
    keeps.add_argument("experiment", type=Path, help="a YAML file, e.g. experiments/gsm8k.yaml")
    keeps.add_argument("file", type=Path, help="file of samples, .jsonl")
    keeps.add_argument("--out", type=Path, metavar="FILE", required=True, help="for rationales.teacher=FILE, .jsonl")
    keeps.add_argument("--near", type=float, default=0.8, help="share of 3-grams that near-duplicates have in common")
    keeps.add_argument("--most", type=int, metavar="K", help="most rationales kept of a problem (default: all)")
    keeps.add_argument("settings", nargs="*", metavar="key=value", help="overrides, e.g. data.dir=DIR")
    merges = verbs.add_parser("rationales merge", help="one file of samples from those of --shard")
    merges.add_argument("out", type=Path, help="file of samples, .jsonl")
    merges.add_argument("parts", type=Path, nargs="+", help="files that --shard has written")
    prepare = verbs.add_parser("prepare", help="fetch problems and models, where there is a network")
    prepare.add_argument("experiment", type=Path, help="a YAML file, e.g. experiments/gsm8k.yaml")
    prepare.add_argument("--run", type=Path, help="make the rationales and the tokenised train set of this run, too")
    prepare.add_argument("settings", nargs="*", metavar="key=value", help="overrides, e.g. student.name=flan-t5-large")
    submit = verbs.add_parser("submit", help="the whole pipeline as a Slurm job")
    submit.add_argument("experiment", type=Path, help="a YAML file, e.g. experiments/gsm8k.yaml")
    submit.add_argument("--run", type=Path, help="run folder (default: runs/<experiment>); --seeds appends -s<seed>")
    submit.add_argument("--nodes", type=int, default=1)
    kind = submit.add_mutually_exclusive_group()
    kind.add_argument("--gpus", type=int, default=1, help="of a node, one process each (default: 1)")
    kind.add_argument("--processes", type=int, help="of a node, without GPUs")
    submit.add_argument("--cpus", type=int, help="cores a process (default: 4 beside a GPU, else 1)")
    submit.add_argument("--time", required=True, help="limit, e.g. 08:00:00; a requeued job gets it anew")
    submit.add_argument("--lead", type=int, default=120, help="seconds before the end to save in (default: 120)")
    submit.add_argument("--seeds", help="an array of jobs, e.g. 0,1,2 or 0-4")
    submit.add_argument("--after", metavar="JOB", help="start when this job has ended well")
    submit.add_argument("--site", type=Path, help="the cluster's own lines (default: experiments/slurm/site.yaml)")
    submit.add_argument("--dry-run", action="store_true", help="print the script and submit nothing")
    submit.add_argument("settings", nargs="*", metavar="key=value", help="overrides, e.g. optim.lr=1e-4")
    status = verbs.add_parser("status", help="what the runs of a folder have reached, and where their jobs are")
    status.add_argument("folder", type=Path, nargs="?", default=Path("runs"))
    export = verbs.add_parser("export", help="write the student of a run's newest checkpoint as a Hugging Face folder")
    export.add_argument("run", type=Path)
    export.add_argument("--out", type=Path, help="folder to write (default: student-newest in the run folder)")
    doctor = verbs.add_parser("doctor", help="check the installation, and plan the memory of an experiment's devices")
    doctor.add_argument("experiment", type=Path, nargs="?", help="a YAML file (default: every setting's default)")
    doctor.add_argument("--memory", type=float, metavar="GIB", help="of a GPU (default: what is in this machine)")
    doctor.add_argument("settings", nargs="*", metavar="key=value", help="overrides, e.g. launch.devices=8")
    report = verbs.add_parser("report", help="write the report of a run folder again")
    report.add_argument("run", type=Path)
    dashboard = verbs.add_parser("dashboard", help="make the W&B workspace of a project, or its JSON without a login")
    dashboard.add_argument("--project", default="kpod_lightning", help="[ENTITY/]PROJECT (default: kpod_lightning)")
    dashboard.add_argument("--out", type=Path, metavar="FILE", help="write it as JSON too (alone: dashboard.json)")
    return top


def run(arguments: argparse.Namespace) -> int:
    from kpod_lightning.config import load_config
    from kpod_lightning.distributed.ranks import start
    from kpod_lightning.runs.run import run_pipeline

    config = load_config(arguments.experiment, arguments.settings)
    if arguments.verb == "rationales" and is_order(arguments):
        return rationales(arguments, config)
    code = start(config.launch, [sys.executable, "-m", "kpod_lightning", *arguments.words])
    if code is not None:
        return code
    folder = arguments.run or Path("runs") / arguments.experiment.stem
    run_pipeline(config, folder, redo=arguments.redo, until="report" if arguments.verb == "run" else arguments.verb)
    return 0


def is_order(arguments: argparse.Namespace) -> bool:
    """Whether a teacher is to write: an experiment may name the teacher that its rationales were written by."""
    asked = any(pair.startswith(("teacher=", "teacher.name=")) for pair in arguments.settings)
    return asked or arguments.dry_run or arguments.out is not None or arguments.shard is not None


def rationales(arguments: argparse.Namespace, config: "RunConfig") -> int:
    from kpod_lightning.distributed.ranks import start
    from kpod_lightning.teachers.order import check_order, order, parse_shard

    check_order(config, arguments.out, arguments.dry_run)
    if (config.teacher.name or "").startswith("local:") and not arguments.dry_run:
        code = start(config.launch, [sys.executable, "-m", "kpod_lightning", *arguments.words])
        if code is not None:
            return code
    shard = (1, 1) if arguments.shard is None else parse_shard(arguments.shard)
    order(config, arguments.out, shard=shard, dry_run=arguments.dry_run)
    return 0


def rationales_report(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from kpod_lightning.config import load_config
    from kpod_lightning.data.benchmarks import read_problems
    from kpod_lightning.teachers.samples.page import print_statistics, report_samples

    problems = read_problems(load_config(arguments.experiment, arguments.settings))["train"]
    print_statistics(report_samples(arguments.file, problems, arguments.out), Console())
    print(f"page: {arguments.out or arguments.file.with_suffix('.html')}")
    return 0


def rationales_filter(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from kpod_lightning.config import load_config
    from kpod_lightning.data.benchmarks import read_problems
    from kpod_lightning.teachers.samples.filter import filter_samples
    from kpod_lightning.teachers.samples.page import print_statistics

    problems = read_problems(load_config(arguments.experiment, arguments.settings))["train"]
    kept = filter_samples(arguments.file, problems, arguments.out, threshold=arguments.near, most=arguments.most)
    print_statistics(kept, Console())
    print(f"train on them: rationales.source=recorded rationales.teacher={arguments.out}")
    return 0


def rationales_merge(arguments: argparse.Namespace) -> int:
    from kpod_lightning.teachers.samples.merge import merge_samples

    merged = merge_samples(arguments.out, arguments.parts)
    twice = f", {merged.num_duplicates} of the parts' rows stood twice" if merged.num_duplicates else ""
    print(f"{arguments.out}: {merged.num_rows} samples, {merged.cost:.4f} US dollars{twice}")
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    from kpod_lightning.commands.doctor.command import examine
    from kpod_lightning.config import load_config

    experiment, settings = arguments.experiment, arguments.settings
    if experiment is not None and "=" in str(experiment):  # the first setting, where no experiment is named
        experiment, settings = None, [str(experiment), *settings]
    return examine(load_config(experiment, settings), arguments.memory)


def report(arguments: argparse.Namespace) -> int:
    from kpod_lightning.runs.folder import load_run
    from kpod_lightning.runs.report import save_report
    from kpod_lightning.store.files import writing

    run = load_run(arguments.run)
    with writing(run.folder / "report.html") as path:
        save_report(path, run)
    return 0


def prepare(arguments: argparse.Namespace) -> int:
    from kpod_lightning.commands.prepare import prepare as fetched
    from kpod_lightning.config import load_config

    config = load_config(arguments.experiment, arguments.settings)
    for line in fetched(config):
        print(line)
    if arguments.run is not None:
        from kpod_lightning.runs.run import run_pipeline

        run_pipeline(config, arguments.run, until="tokens")
    print("HF_HUB_OFFLINE=1 finds all of it on machines without a network, in the same HF_HOME")
    return 0


def export(arguments: argparse.Namespace) -> int:
    from kpod_lightning.commands.export import export_run

    print(export_run(arguments.run, arguments.out))
    return 0


def submit(arguments: argparse.Namespace) -> int:
    from kpod_lightning.commands.submit import Job, load_site, parse_seeds
    from kpod_lightning.commands.submit import submit as submit_job

    job = Job(
        experiment=arguments.experiment,
        run=arguments.run or Path("runs") / arguments.experiment.stem,
        settings=arguments.settings,
        nodes=arguments.nodes,
        gpus=arguments.gpus if arguments.processes is None else 0,
        processes=1 if arguments.processes is None else arguments.processes,
        cpus=arguments.cpus,
        time=arguments.time,
        lead=arguments.lead,
        seeds=() if arguments.seeds is None else parse_seeds(arguments.seeds),
        after=arguments.after,
    )
    submit_job(job, load_site(arguments.site), dry_run=arguments.dry_run)
    return 0


def status(arguments: argparse.Namespace) -> int:
    from kpod_lightning.commands.status import print_status

    print_status(arguments.folder)
    return 0


def dashboard(arguments: argparse.Namespace) -> int:
    from kpod_lightning.commands.dashboard import dashboard

    print(dashboard(arguments.project, arguments.out))
    return 0


VERBS = {
    "dashboard": dashboard,
    "doctor": doctor,
    "export": export,
    "prepare": prepare,
    "rationales filter": rationales_filter,
    "rationales merge": rationales_merge,
    "rationales report": rationales_report,
    "report": report,
    "status": status,
    "submit": submit,
}
"""Those that take no experiment up to one of its arrows."""


def main(argv: list[str] | None = None) -> int:
    """Exit code 0; 2 with one line for input that cannot be used; 75 where a signal stopped a run, which can go on."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # argparse takes an option after which more positionals follow for the end of them: key=value may stand anywhere.
    words = sys.argv[1:] if argv is None else argv
    named = " ".join(words[:2])  # a verb of two words is one for argparse
    arguments, rest = parser().parse_known_args([named, *words[2:]] if named in VERBS else words)
    if rest and ("settings" not in arguments or any(word.startswith("-") or "=" not in word for word in rest)):
        parser().error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.settings = [*arguments.settings, *rest]
    arguments.words = words
    try:
        with listening():
            return VERBS.get(arguments.verb, run)(arguments)
    except Preempted as stopped:
        return back_into_the_queue(stopped)
    except InputError as error:
        if is_first():  # bad input that one rank meets, all raise
            print(f"kpod: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"kpod: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

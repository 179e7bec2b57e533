"""Command line: ``kpod run EXPERIMENT [--run DIR] [key=value ...]``. Nothing heavy is imported before it is needed."""

import argparse
import os
import sys
from pathlib import Path

from kpod_lightning.errors import InputError

PIPELINE = {
    "run": "the whole pipeline: what is missing in the run folder is done",
    "rationales": "up to the rationales that are trained on",
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
    doctor = verbs.add_parser("doctor", help="check the installation, and plan the memory of an experiment's devices")
    doctor.add_argument("experiment", type=Path, nargs="?", help="a YAML file (default: every setting's default)")
    doctor.add_argument("--memory", type=float, metavar="GIB", help="of a GPU (default: what is in this machine)")
    doctor.add_argument("settings", nargs="*", metavar="key=value", help="overrides, e.g. launch.devices=8")
    report = verbs.add_parser("report", help="write the report of a run folder again")
    report.add_argument("run", type=Path)
    return top


def run(arguments: argparse.Namespace) -> None:
    from kpod_lightning.config import load_config
    from kpod_lightning.run import run_pipeline

    config = load_config(arguments.experiment, arguments.settings)
    folder = arguments.run or Path("runs") / arguments.experiment.stem
    run_pipeline(config, folder, redo=arguments.redo, until="report" if arguments.verb == "run" else arguments.verb)


def doctor(arguments: argparse.Namespace) -> int:
    from kpod_lightning.config import load_config
    from kpod_lightning.doctor import examine

    experiment, settings = arguments.experiment, arguments.settings
    if experiment is not None and "=" in str(experiment):  # the first setting, where no experiment is named
        experiment, settings = None, [str(experiment), *settings]
    return examine(load_config(experiment, settings), arguments.memory)


def report(arguments: argparse.Namespace) -> None:
    from kpod_lightning.pipeline import write_report
    from kpod_lightning.run import load_run

    write_report(load_run(arguments.run))


def main(argv: list[str] | None = None) -> int:
    """Exit code 0, or 2 with one line for input that cannot be used."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # argparse takes an option after which more positionals follow for the end of them: key=value may stand anywhere.
    arguments, rest = parser().parse_known_args(argv)
    if rest and (arguments.verb == "report" or any(word.startswith("-") or "=" not in word for word in rest)):
        parser().error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.settings = [*arguments.settings, *rest]
    try:
        if arguments.verb == "doctor":
            return doctor(arguments)
        (run if arguments.verb in PIPELINE else report)(arguments)
    except InputError as error:
        print(f"kpod: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"kpod: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

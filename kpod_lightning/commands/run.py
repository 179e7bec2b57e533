"""`kpod run`: the pipeline of an experiment, whole or up to a verb; also `kpod weights`, `kpod train` and the like."""

import argparse
import sys

from kpod_lightning.commands.arguments import Verbs, add_experiment, add_run, add_settings, run_folder
from kpod_lightning.config import LaunchConfig, RunConfig
from kpod_lightning.distributed.environment import check_surroundings
from kpod_lightning.runs.verbs import STOPS
from kpod_lightning.store.errors import InputError


def add(verbs: Verbs) -> None:
    whole = verbs.add_parser("run", help="the whole pipeline: what is missing in the run folder is done")
    add_words(whole)
    names = ", ".join(stop.name for stop in STOPS)
    whole.add_argument(
        "--until",
        metavar="NAME",
        default="report",
        help=f"stop early, at one of {names}, or behind a file or folder of the run, e.g. student",
    )
    for stop in STOPS:
        if stop.has_command:
            command = verbs.add_parser(stop.name, help=stop.help)
            add_words(command)
            command.set_defaults(until=stop.name)


def add_words(command: argparse.ArgumentParser) -> None:
    add_experiment(command, "arithmetic")
    add_run(command, "run folder (default: runs/<experiment>)")
    command.add_argument("--redo", action="store_true", help="inputs changed: make again what depends on them")
    add_settings(command, "optim.lr=1e-4")
    command.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> int:
    from kpod_lightning.methods.base import load_experiment
    from kpod_lightning.runs.run import run_pipeline

    config = load_experiment(arguments.experiment, arguments.settings)
    check_until(arguments.until, config)
    check_surroundings(config.launch, config.logging)
    code = started_on_devices(config.launch, arguments)
    if code is not None:
        return code
    run_pipeline(config, run_folder(arguments), redo=arguments.redo, until=arguments.until)
    return 0


def check_until(until: str, config: RunConfig) -> None:
    """Refuse a stop that the run does not have, before a folder is made for it.

    Raises:
        InputError: no verb and no artefact of the run has this name.
    """
    from kpod_lightning.methods.base import method_of
    from kpod_lightning.methods.warm import arrows_before_training

    own = arrows_before_training(config, method_of(config))
    shared = [stop for stop in STOPS if stop.of_every_method]
    artefacts = {name for stop in shared for name in stop.artefacts} | {arrow.artefact for arrow in own}
    first_of_training = [stop.name for stop in shared].index("train")
    names = [stop.name for stop in shared]
    names[first_of_training:first_of_training] = dict.fromkeys(arrow.verb for arrow in own)
    if until not in names and until not in artefacts and not until.startswith("predictions/"):
        raise InputError(
            f"method={config.method} with these settings makes no {until}; it stops at one of {', '.join(names)}"
        )


def started_on_devices(launch: LaunchConfig, arguments: argparse.Namespace) -> int | None:
    """Run this command once for each device of the machine; None where this process is to do the work itself.

    Returns:
        The exit code of the rank that failed first, or 0.
    """
    from kpod_lightning.distributed.ranks import start

    return start(launch, [sys.executable, "-m", "kpod_lightning", *arguments.words])

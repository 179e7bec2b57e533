"""Words that several verbs have in common: the experiment, its settings, the run folder."""

import argparse
from pathlib import Path
from typing import TypeAlias

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""The parsers of all verbs, to which each verb adds its own."""


def add_experiment(command: argparse.ArgumentParser, example: str = "gsm8k") -> None:
    command.add_argument("experiment", type=Path, help=f"a YAML file, e.g. experiments/{example}.yaml")


def add_settings(command: argparse.ArgumentParser, example: str) -> None:
    command.add_argument(
        "settings", nargs="*", default=[], type=setting, metavar="key=value", help=f"overrides, e.g. {example}"
    )


def setting(word: str) -> str:
    """A word of the form ``key=value``.

    Raises:
        ArgumentTypeError: another form, from which argparse makes a line.
    """
    if "=" not in word:
        raise argparse.ArgumentTypeError(f"{word} is no setting: write optim.lr=1e-4, for example")
    return word


def run_folder(arguments: argparse.Namespace) -> Path:
    """``--run``, else the folder that has the experiment's name."""
    return arguments.run or Path("runs") / arguments.experiment.stem

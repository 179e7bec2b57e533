"""Command line: ``kpod VERB ...``. Each verb has a file in commands/, which imports nothing heavy before its main."""

import argparse
import os
import sys

from kpod_lightning.commands import dashboard, export, prepare, rationales, report, run, status, submit
from kpod_lightning.commands.doctor import command as doctor
from kpod_lightning.distributed.console import console
from kpod_lightning.distributed.preemption import Preempted, back_into_the_queue, listening
from kpod_lightning.distributed.ranks import is_first
from kpod_lightning.store.errors import InputError

FILES = (run, rationales, prepare, submit, status, export, doctor, report, dashboard)
"""Files of the verbs, in the order of `kpod --help`."""


def parse(words: list[str]) -> argparse.Namespace:
    """The arguments of a verb; ``main`` among them is the function that runs it. Exits with 2 where they are wrong."""
    parser = argparse.ArgumentParser(
        prog="kpod",
        description="Keypoint-based progressive chain-of-thought distillation, experiment by experiment.",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for file in FILES:
        file.add(verbs)
    num_words = 2 if " ".join(words[:2]) in verbs.choices else 1  # `rationales report` is a verb, as `rationales` is
    verb = verbs.choices.get(" ".join(words[:num_words]))
    if verb is None:
        return parser.parse_args(words)  # prints the help, or that there is no such verb
    arguments = verb.parse_intermixed_args(words[num_words:])  # key=value may stand between and behind options
    arguments.words = words
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Exit code 0; 2 with one line for input that cannot be used; 75 where a signal stopped a run, which can go on."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    arguments = parse(sys.argv[1:] if argv is None else argv)
    console.quiet = not is_first()
    try:
        with listening():
            code: int = arguments.main(arguments)
            return code
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

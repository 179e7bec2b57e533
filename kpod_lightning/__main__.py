"""Command line: ``kpod VERB ...``. Each verb has a file in commands/, which imports nothing heavy before its main."""

from kpod_lightning.distributed import signals

if signals.is_command(__name__):
    signals.note_from_now_on()  # before what takes a third of a second to import

import argparse
import os
import platform
import sys
from importlib import metadata
from typing import Any

from kpod_lightning.commands import (
    compare,
    dashboard,
    export,
    pack,
    prepare,
    rationales,
    report,
    run,
    settings,
    status,
    study,
    submit,
    table,
    verify,
    weights,
)
from kpod_lightning.commands.arguments import Parser, no_such_verb
from kpod_lightning.commands.doctor import command as doctor
from kpod_lightning.distributed.console import console
from kpod_lightning.distributed.environment import check_environment
from kpod_lightning.distributed.preemption import Preempted, back_into_the_queue, by_signals, stop_if_noted
from kpod_lightning.distributed.ranks import is_first
from kpod_lightning.store.errors import InputError, one_line
from kpod_lightning.store.reading import shown

FILES = (
    run,
    settings,
    rationales,
    weights,
    prepare,
    study,
    submit,
    status,
    table,
    compare,
    verify,
    pack,
    export,
    doctor,
    report,
    dashboard,
)
"""Files of the verbs, in the order of `kpod --help`."""

VERSIONS = ("torch", "lightning", "transformers", "peft")
"""Packages whose versions change what a run does."""

OUT_OF_MEMORY = "not enough memory; take a smaller optim.micro_batch_size or student, or see `kpod doctor EXPERIMENT`"


class Versions(argparse.Action):
    """``--version``: what a report of a fault needs. The versions are read from what pip wrote: nothing is loaded."""

    def __init__(self, option_strings: list[str], dest: str, **words: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **words)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"kpod_lightning {version_of('kpod_lightning')}")
        print(", ".join([*(f"{name} {version_of(name)}" for name in VERSIONS), f"Python {platform.python_version()}"]))
        parser.exit()


def version_of(name: str) -> str:
    """Of an installed package; "not installed" of one that is not, such as this one in a bare copy of its source."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def parse(words: list[str]) -> argparse.Namespace:
    """The arguments of a verb; ``main`` among them is the function that runs it. Exits with 2 where they are wrong."""
    parser = Parser(
        prog="kpod",
        description="Keypoint-based progressive chain-of-thought distillation, experiment by experiment.",
    )
    parser.add_argument("--version", action=Versions, help="show the version, and those of torch and the like")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for file in FILES:
        file.add(verbs)
    num_words = 2 if " ".join(words[:2]) in verbs.choices else 1  # `rationales report` is a verb, as `rationales` is
    verb = verbs.choices.get(" ".join(words[:num_words]))
    if verb is None:
        if words and not words[0].startswith("-"):
            parser.error(no_such_verb(words[0], verbs))
        return parser.parse_args(words)  # prints the help, or that a verb is missing
    arguments = verb.parse_intermixed_args(words[num_words:])  # key=value may stand between and behind options
    arguments.words = words
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Exit code 0; 2 with one line for input that cannot be used; 75 where a signal stopped a run, which can go on, and
    130 where that was Ctrl-C.

    An error that nobody has foreseen keeps its traceback, which says where it is to be mended.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that is not UTF-8 shows what it lacks as escapes
            stream.reconfigure(errors="backslashreplace")
    first = True
    try:
        with signals.handled_by(signals.end):
            stop_if_noted()
            arguments = parse(sys.argv[1:] if argv is None else argv)
            check_environment()
            first = is_first()
            console.quiet = not first
            code: int = arguments.main(arguments)
            sys.stdout.flush()
            return code
    except Preempted as stopped:
        return back_into_the_queue(stopped)
    except KeyboardInterrupt:
        return back_into_the_queue(by_signals())
    except FloatingPointError as error:
        sys.stderr.write(one_line(error))
        return 1
    except BrokenPipeError:  # `kpod status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains once more at its end
        sys.stderr.write(one_line("the command that reads the output has ended"))
        return 2
    except Exception as error:
        line = line_of(error)
        if line is None or os.environ.get("KPOD_TRACEBACK"):
            raise
        if first:  # bad input that one rank meets, all raise
            sys.stderr.write(line)
        return 2
    finally:
        signals.received.clear()


def line_of(error: Exception) -> str | None:
    """The line of an error that is no fault of this program: of the input, of the machine. None for any other."""
    if isinstance(error, InputError):
        return one_line(error)
    if isinstance(error, MemoryError) or is_out_of_memory(error):
        return one_line(OUT_OF_MEMORY)
    if isinstance(error, OSError) and error.strerror:
        path = "" if error.filename is None else f"{shown(error.filename)}: "
        return one_line(f"{path}{error.strerror}; KPOD_TRACEBACK=1 shows where")
    return None


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch had no memory left, on a GPU or on the host, for which it has no class of its own."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: " in str(error)


if __name__ == "__main__":
    sys.exit(main())

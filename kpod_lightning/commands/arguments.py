"""Words that several verbs have in common: the experiment, its settings, paths, numbers, the run folder."""

import argparse
import os
import re
import stat
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from kpod_lightning.store.bounds import LARGEST
from kpod_lightning.store.errors import InputError, one_line
from kpod_lightning.store.reading import shown

Verbs: TypeAlias = "argparse._SubParsersAction[Any]"
"""The parsers of all verbs, to which each verb adds its own."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        if re.match(r"unrecognized arguments: -+[a-z_]+\.[a-z_.]+=", message):
            message += " (a setting is written without dashes: optim.lr=1e-4)"
        elif message.startswith("unrecognized arguments: --"):
            near = get_close_matches(message.split()[2].partition("=")[0], self._option_string_actions, n=1)
            message += f" (did you mean {near[0]}?)" if near else ""
        sys.stderr.write(one_line(f"{message}; see {self.prog} --help"))
        sys.exit(2)


def no_such_verb(word: str, verbs: Verbs) -> str:
    near = get_close_matches(word, verbs.choices, n=1, cutoff=0.5)
    way = f"did you mean kpod {near[0]}?" if near else f"there are {', '.join(verbs.choices)}"
    return f"{word} is no VERB; {way}"


def add_experiment(command: argparse.ArgumentParser, example: str = "gsm8k") -> None:
    command.add_argument("experiment", type=a_path, help=f"a YAML file, e.g. experiments/{example}.yaml")


def add_settings(command: argparse.ArgumentParser, example: str) -> None:
    command.add_argument(
        "settings", nargs="*", default=[], type=setting, metavar="key=value", help=f"overrides, e.g. {example}"
    )


def add_run(command: argparse.ArgumentParser, text: str) -> None:
    command.add_argument("--run", type=a_folder, help=text)


def setting(word: str) -> str:
    """A word of the form ``key=value``.

    Raises:
        InputError: another form, from which argparse makes a line.
    """
    if "=" not in word:
        raise argparse.ArgumentTypeError(f"{shown(Path(word))} is no setting: write optim.lr=1e-4, for example")
    return word


def a_path(word: str) -> Path:
    """A path that a file system can have; the shell leaves the ~ of ``--run=~/runs`` as it is.

    Raises:
        InputError: an empty word (Path would take it for the current folder), a NUL, a name that is no UTF-8.
    """
    if not word.strip():
        raise InputError("the path is empty")
    path = Path(os.path.expanduser(word))
    try:
        word.encode()
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # the reader of the file says so, or it is to be made
    except UnicodeEncodeError as error:
        raise InputError(f"{shown(path)}: the name is no UTF-8; rename it") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{shown(path)}: {getattr(error, 'strerror', None) or error}") from error
    return path


def a_folder(word: str) -> Path:
    """A folder that is there, or can be made as far as its name goes.

    Raises:
        InputError: there is a file of this name, or one on the way to it; a link that leads to itself.
    """
    path = a_path(word)
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        if path.is_symlink():
            raise InputError(f"{shown(path)}: a link to nothing; remove it") from None
        return path
    except OSError as error:
        raise InputError(f"{shown(path)}: {error.strerror}; take another folder") from error
    if not is_folder:
        raise InputError(f"{shown(path)}: a file, where a folder is expected")
    return path


def a_file(word: str) -> Path:
    """A file that can be written as far as its name goes.

    Raises:
        InputError: there is a folder or a device of this name, or a file on the way to it; a link to itself.
    """
    path = a_path(word)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{shown(path)}: a folder or a device, where a file is to be written; name the file")
    except FileNotFoundError:
        pass  # it is to be made
    except OSError as error:
        raise InputError(f"{shown(path)}: {error.strerror}; take another name") from error
    return path


def number(option: str, kind: type, least: float, most: float = LARGEST) -> Callable[[str], Any]:
    """A reader of an option's number, from ``least`` to ``most``, which raises InputError.

    Args:
        kind: int or float.
    """

    def read(word: str) -> Any:
        try:
            value = kind(word) if word.isascii() and "_" not in word else None
        except ValueError:
            value = None
        if value is None or value != value:
            raise InputError(f"{option} is a {'whole ' if kind is int else ''}number, got {shown(Path(word))}")
        if not least <= value <= most:
            bound = f"least {least}" if value < least else f"most {most}"
            raise InputError(f"{option} is at {bound}, got {shown(Path(word))}")
        return value

    return read


def run_folder(arguments: argparse.Namespace) -> Path:
    """``--run``, else the folder that has the experiment's name."""
    return arguments.run or Path("runs") / arguments.experiment.stem

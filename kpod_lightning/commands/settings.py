"""`kpod settings`: every setting with its default and meaning; of an experiment the values and where they come from."""

import argparse
from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatch
from itertools import groupby
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from kpod_lightning.commands.arguments import Verbs, a_path
from kpod_lightning.distributed.console import console
from kpod_lightning.store.artefacts import setting
from kpod_lightning.store.described import Described, as_written
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.typed import MISSING

WIDEST = 10_000
"""Columns of a pipe: there a setting is one line, for grep."""

WIDE = 120
"""Columns from which on a terminal has room for the meaning beside a value and its source."""


def add(verbs: Verbs) -> None:
    command = verbs.add_parser("settings", help="every setting: default and meaning; of an experiment its values")
    command.add_argument(
        "chosen",
        nargs="*",
        metavar="PATTERN | key=value",
        help="part of a name, a name with *, or a word of the meaning; or overrides, e.g. optim.lr=1e-4",
    )
    command.add_argument(
        "--experiment", type=a_path, metavar="FILE", help="show its values, and which of them the file gives"
    )
    command.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> int:
    from kpod_lightning.methods.base import described_settings

    patterns = [word for word in arguments.chosen if "=" not in word]
    overrides = [word for word in arguments.chosen if "=" in word]
    if arguments.experiment is not None or overrides:
        print_values(arguments.experiment, overrides, patterns)
        return 0
    rows = chosen(described_settings(), patterns)
    defaults = ["to be given" if row.default == MISSING else as_written(row.default) for row in rows]
    print_table(("setting", "default", "meaning"), [(r.key, d, r.meaning) for r, d in zip(rows, defaults, strict=True)])
    return 0


def print_values(experiment: Path | None, overrides: list[str], patterns: Sequence[str]) -> None:
    """The settings of an experiment, each with its source; those that its method does not read are said to be unused.

    Raises:
        InputError: as ``kpod run`` refuses them.
    """
    from kpod_lightning.methods.base import load_with_sources, method_of
    from kpod_lightning.store.described import described

    config, sources = load_with_sources(experiment, overrides)
    method = method_of(config)
    rows = []
    for row in chosen(described(type(config)), patterns):
        source = sources.get(row.key, "default")
        if source != "default" and row.default not in (MISSING, setting(config, row.key)):
            source += f"; default {as_written(row.default)}"
        if not method.uses(row.key):
            source += "; unused here"
        rows.append((row.key, as_written(setting(config, row.key)), source, row.meaning))
    shown = 4 if not console.is_terminal or console.width >= WIDE else 3
    print_table(("setting", "value", "from", "meaning")[:shown], [row[:shown] for row in rows])


def chosen(settings: Sequence[Described], patterns: Sequence[str]) -> list[Described]:
    """The settings that a pattern names; all of them without a pattern. Small and capital letters are alike.

    Raises:
        InputError: a pattern names none.
    """
    found: set[str] = set()
    for pattern in patterns:
        word = pattern.lower()
        named = [s.key for s in settings if (fnmatch(s.key, word) if "*" in word else word in s.key)]
        named = named or [s.key for s in settings if word.replace("_", " ") in s.meaning.lower()]
        if not named:
            near = get_close_matches(word, [part for s in settings for part in (s.key, s.key.rpartition(".")[2])], n=1)
            way = f"did you mean {near[0]}?" if near else "`kpod settings` shows all of them"
            raise InputError(f"{pattern} is in no setting's name or meaning; {way}")
        found.update(named)
    return [s for s in settings if not patterns or s.key in found]


def print_table(columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> None:
    """A table for each block of settings on a terminal; in a pipe one, with a line for each setting."""
    blocks = [list(block) for _, block in groupby(rows, key=lambda row: row[0].rpartition(".")[0])]
    for block in blocks if console.is_terminal else [list(rows)]:
        table = Table(box=box.SIMPLE if console.is_terminal else None, pad_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold", no_wrap=column == "setting" or not console.is_terminal)
        for row in block:
            table.add_row(*(Text(cell) for cell in row))
        if not console.is_terminal:
            table.width = console.measure(table, options=console.options.update(width=WIDEST)).maximum
        console.print(table, crop=False)

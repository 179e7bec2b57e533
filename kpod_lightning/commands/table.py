"""`kpod table`: the table of a study, from its run folders or from its records."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from kpod_lightning.commands.arguments import Verbs, a_folder, a_path, add_settings
from kpod_lightning.distributed.console import console
from kpod_lightning.store.errors import InputError

if TYPE_CHECKING:
    from kpod_lightning.runs.study_table import ComparisonRow, StudyTable

NAME = "table"
"""Of the files that are written, without their endings."""

BY_SEED = 2
IN_TERMINAL = (0, BY_SEED, 3, 4, 7)
"""Columns of the arms that 80 characters have room for: without seeds, epochs, steps and seconds."""


FEW = 4
"""Comparisons that are shown with all their numbers."""

MANY = {"B − A": 0, "points ± sd": 2, "95 %": 3, "p, Holm": 7, "detectable": 9}
"""Heading -> column of the comparisons, where there are more."""


def add(verbs: Verbs) -> None:
    command = verbs.add_parser("table", help="accuracies and comparisons of a study")
    command.add_argument("study", type=a_path, help="a study file (.yaml), or records of a study (.jsonl)")
    command.add_argument("--runs", type=a_folder, metavar="DIR", help="folder of the runs (default: runs/<study>)")
    command.add_argument("--out", type=a_folder, metavar="DIR", help="where to write (default: the folder of the runs)")
    add_settings(command, "optim.lr=1e-4")
    command.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> int:
    from kpod_lightning.runs.study import load_study
    from kpod_lightning.runs.study_records import RECORDS, load_records, records_of, save_records
    from kpod_lightning.runs.study_table import table_of
    from kpod_lightning.store.files import writing

    if arguments.study.suffix == ".jsonl":
        if arguments.runs or arguments.settings:
            raise InputError(f"{arguments.study}: records stand for themselves; leave out --runs and the settings")
        table = table_of(load_records(arguments.study))
        if arguments.out is not None:
            arguments.out.mkdir(parents=True, exist_ok=True)
            write_forms(table, arguments.out, {})
        show(table)
        return 0
    study = load_study(arguments.study, arguments.settings, arguments.runs)
    records = records_of(study)
    table, out = table_of(records), arguments.out or study.folder
    out.mkdir(parents=True, exist_ok=True)
    with writing(out / RECORDS) as aside:
        save_records(aside, records)
    reports = {run.run: study.folder / run.run / "report.html" for run in records.runs}
    write_forms(table, out, {name: os.path.relpath(path, out) for name, path in reports.items()})
    show(table)
    console.print(f"table: {out / NAME}.html, .md, .tex, .csv; records: {out / RECORDS}", soft_wrap=True)
    return 0


def write_forms(table: "StudyTable", folder: Path, links: dict[str, str]) -> None:
    """The table as a page, as Markdown, LaTeX and CSV.

    Args:
        links: name of a run -> its report, relative to the folder.
    """
    from kpod_lightning.runs.study_forms import as_csv, as_html, as_latex, as_markdown
    from kpod_lightning.store.files import write_text

    forms = {"md": as_markdown(table), "html": as_html(table, links), "tex": as_latex(table), "csv": as_csv(table)}
    for ending, text in forms.items():
        write_text(folder / f"{NAME}.{ending}", text)


def show(table: "StudyTable") -> None:
    """Print the table: a row an arm, then the comparisons, of which a few have a block each and many a row each."""
    from kpod_lightning.runs.study_forms import PAPER, arm_columns, notes, rows_of

    arms, comparisons = rows_of(table)
    of_arms = Table(box=box.SIMPLE, title=table.records.study, title_justify="left", padding=(0, 1, 0, 0))
    columns = arm_columns(table)
    shown = [*IN_TERMINAL, *([columns.index(PAPER)] if PAPER in columns else [])]
    for place in shown:
        # Accuracies of many seeds go on in a second line, and none is cut.
        of_arms.add_column(
            columns[place], justify="right" if place else "left", overflow="fold", no_wrap=place > BY_SEED
        )
    for row in arms:
        of_arms.add_row(*(Text(row[place]) for place in shown))
    console.print(of_arms)
    if len(comparisons) > FEW:
        for question in dict.fromkeys(row.question for row in table.comparisons):
            show_many(question, [row for row in table.comparisons if row.question == question])
    else:
        show_each(comparisons)
    for note in notes(table):
        console.print(note, soft_wrap=True, highlight=False, markup=False)


def show_each(comparisons: list[list[str]]) -> None:
    """A block a comparison, with all that is known of it."""
    from kpod_lightning.runs.study_forms import COMPARISON_COLUMNS

    for row in comparisons:
        block = Table(box=None, show_header=False, title=Text(row[0], style="bold"), title_justify="left")
        for name, cell in zip(COMPARISON_COLUMNS[1:], row[1:], strict=True):
            if cell:
                block.add_row(Text(name), Text(cell))
        console.print(block)
        console.print()


def show_many(question: str, rows: list["ComparisonRow"]) -> None:
    """A row a comparison of one question, with what 80 characters have room for; the files have the rest."""
    from kpod_lightning.runs.study_forms import comparison_cells

    table = Table(box=box.SIMPLE, title=question or None, title_justify="left", padding=(0, 1, 0, 0))
    for name in MANY:
        table.add_column(name, justify="left" if name == "B − A" else "right", overflow="fold", no_wrap=name != "B − A")
    for row in rows:
        cells = comparison_cells(row)
        table.add_row(f"{row.b.name} − {row.a.name}", *(Text(cells[place]) for place in list(MANY.values())[1:]))
    console.print(table)

"""`kpod compare`: two finished runs on the same test problems."""

import argparse
from dataclasses import replace

from kpod_lightning.commands.arguments import Verbs, a_path
from kpod_lightning.distributed.console import console
from kpod_lightning.store.errors import InputError


def add(verbs: Verbs) -> None:
    command = verbs.add_parser("compare", help="two finished runs on the same test problems")
    command.add_argument("a", type=a_path, metavar="RUN", help="run folder A")
    command.add_argument("b", type=a_path, metavar="RUN", help="run folder B; what is shown is B − A")
    command.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> int:
    from kpod_lightning.commands.table import show
    from kpod_lightning.runs.folder import load_run
    from kpod_lightning.runs.study_records import Records, record_of
    from kpod_lightning.runs.study_table import table_of

    if arguments.a.resolve() == arguments.b.resolve():
        raise InputError(f"{arguments.a} is compared with itself: name two runs")
    names = [str(arguments.a), str(arguments.b)]
    runs = [
        record_of(load_run(folder), arm=name) for name, folder in zip(names, (arguments.a, arguments.b), strict=True)
    ]
    seeds = [run.seed for run in runs]
    records = Records(
        study="two runs",
        about="",
        named={"arms": dict.fromkeys(names), "seeds": seeds[:1], "family": [names]},
        planned=2,
        beforehand="",
        runs=(runs[0], replace(runs[1], seed=seeds[0])),
    )
    show(table_of(records))
    if seeds[0] != seeds[1]:
        console.print(
            f"A has seed {seeds[0]} and B {seeds[1]}: their difference is that of the seeds, too.", highlight=False
        )
    return 0

"""`kpod report`: write the report of a finished run again."""

import argparse

from kpod_lightning.commands.arguments import Verbs, a_path


def add(verbs: Verbs) -> None:
    command = verbs.add_parser("report", help="write the report of a run folder again")
    command.add_argument("run", type=a_path)
    command.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> int:
    from kpod_lightning.methods.base import method_of
    from kpod_lightning.runs.folder import load_run

    run = load_run(arguments.run)  # a folder that is no run is refused before torch and plotly are imported
    from kpod_lightning.runs.report import save_report
    from kpod_lightning.store.files import writing

    with writing(run.folder / "report.html") as path:
        save_report(path, run, method_of(run.config).describe(run.folder))
    return 0

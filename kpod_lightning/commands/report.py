"""`kpod report`: write the report of a finished run again, in the run folder or elsewhere."""

import argparse

from kpod_lightning.commands.arguments import Verbs, a_path


def add(verbs: Verbs) -> None:
    command = verbs.add_parser("report", help="write the report of a run folder again")
    command.add_argument("run", type=a_path)
    command.add_argument("--out", type=a_path, metavar="FILE", help="page to write (default: that of the run folder)")
    command.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> int:
    from kpod_lightning.methods.base import method_of
    from kpod_lightning.runs.folder import REPORT, load_run, run_lock

    run = load_run(arguments.run)  # a folder that is no run is refused before torch and plotly are imported
    run.check_all_but(REPORT)
    from kpod_lightning.runs.report import report_of, save_report
    from kpod_lightning.store.files import writing
    from kpod_lightning.store.products import product

    sections = method_of(run.config).describe(run.folder)
    if arguments.out is not None:
        with product(arguments.out, "report") as path:
            path.write_text(report_of(run, sections)[1], encoding="utf-8")
        return 0
    with run_lock(run.folder):
        with writing(run.folder / REPORT) as path:
            save_report(path, run, sections)
        run.record(REPORT)
    return 0

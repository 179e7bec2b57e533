"""`kpod pack`: a study as one archive that somebody else can check and repeat."""

import argparse
import tempfile
from pathlib import Path

from kpod_lightning.commands.arguments import Verbs, a_folder, a_path, add_settings
from kpod_lightning.distributed.console import console
from kpod_lightning.store.reading import shown


def add(verbs: Verbs) -> None:
    command = verbs.add_parser("pack", help="a study as one archive that somebody else can check and repeat")
    command.add_argument("study", type=a_path, help="a study, e.g. experiments/studies/quick.yaml")
    command.add_argument("--runs", type=a_folder, metavar="DIR", help="folder of the runs (default: runs/<study>)")
    command.add_argument("--out", type=a_path, metavar="FILE", help="the archive (default: <study>.zip)")
    command.add_argument("--students", action="store_true", help="with the distilled students")
    add_settings(command, "optim.lr=1e-4")
    command.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> int:
    from kpod_lightning.commands.table import write_forms
    from kpod_lightning.runs.packed import packed, write_archive
    from kpod_lightning.runs.study import load_study
    from kpod_lightning.runs.study_records import RECORDS, records_of, save_records
    from kpod_lightning.runs.study_table import table_of

    study = load_study(arguments.study, arguments.settings, arguments.runs)
    out = arguments.out or Path(f"{study.name}.zip")
    records = records_of(study)
    with tempfile.TemporaryDirectory() as name:
        tables = Path(name)
        save_records(tables / RECORDS, records)
        write_forms(table_of(records), tables, {})
        files = packed(study, arguments.study, arguments.settings, tables, students=arguments.students)
        write_archive(out, study.name, files)
    missing = records.planned - len(records.runs)
    ended = f"{len(records.runs)} run{'s' if len(records.runs) > 1 else ''}"
    open_ones = f", {missing} of the study have not ended" if missing else ""
    size = out.stat().st_size / 1e6
    console.print(f"{shown(out)}: {ended}{open_ones}, {size:.1f} MB", soft_wrap=True, highlight=False)
    return 0

"""`kpod verify`: whether runs are what they say: their files unchanged, their outputs graded the same again."""

import argparse
from pathlib import Path

from kpod_lightning.commands.arguments import Verbs, a_folder, a_path, add_settings
from kpod_lightning.distributed.console import console
from kpod_lightning.store.errors import InputError


def add(verbs: Verbs) -> None:
    command = verbs.add_parser("verify", help="check the files of finished runs, and grade their outputs again")
    command.add_argument("what", type=a_path, metavar="RUN|STUDY", help="a run folder, or a study")
    command.add_argument("--runs", type=a_folder, metavar="DIR", help="of a study (default: runs/<study>)")
    command.add_argument("--packed", action="store_true", help="students may be missing, as in what `kpod pack` made")
    add_settings(command, "data.dir=DIR")
    command.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> int:
    from kpod_lightning.runs.folder import has_ended, load_run
    from kpod_lightning.runs.study import load_study

    folders, missing = [arguments.what], 0
    if not arguments.what.is_dir():
        planned = [run.folder for run in load_study(arguments.what, arguments.settings, arguments.runs).runs]
        folders = [folder for folder in planned if has_ended(folder)]
        missing = len(planned) - len(folders)
        if not folders:
            raise InputError(f"{arguments.what}: none of its {missing} runs has ended; `kpod study` makes them")
    elif arguments.settings or arguments.runs:
        raise InputError(f"{arguments.what}: a run has its own settings; leave out --runs and key=value")
    runs = [load_run(folder) for folder in folders]
    from kpod_lightning.runs.verified import verify

    for run in runs:
        counts = ", ".join(f"{name} {number}" for name, number in verify(run, packed=arguments.packed).items())
        say(f"{run.folder}: {counts} outputs hold")
    say(f"{len(runs)} run{'s' if len(runs) > 1 else ''} verified" + (f", {missing} have not ended" if missing else ""))
    return 0


def say(text: str | Path) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)

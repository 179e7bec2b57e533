"""`kpod export`: the student of a run's newest checkpoint as a Hugging Face folder."""

import argparse
from pathlib import Path

from kpod_lightning.commands.arguments import Verbs, a_path
from kpod_lightning.store.errors import InputError


def add(verbs: Verbs) -> None:
    command = verbs.add_parser("export", help="write the student of a run's newest checkpoint as a Hugging Face folder")
    command.add_argument("run", type=a_path)
    command.add_argument("--out", type=a_path, help="folder to write (default: student-newest in the run folder)")
    command.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> int:
    print(export_run(arguments.run, arguments.out))
    return 0


def export_run(run: Path, out: Path | None = None) -> Path:
    """The student of a run's newest checkpoint, also while or before the run ends.

    Raises:
        InputError: no run folder, no checkpoint in it, or ``out`` is a folder that holds no student.
    """
    from kpod_lightning.runs.folder import load_run_config

    config = load_run_config(run)
    from kpod_lightning.distributed.checkpoints import newest_checkpoint  # imports torch
    from kpod_lightning.store.products import product, refuse_others
    from kpod_lightning.students.export import export_student

    target = out or run / "student-newest"
    refuse_others(target.absolute(), "student")  # before anything slow
    checkpoint = newest_checkpoint(run / "checkpoints")
    if checkpoint is None:
        raise InputError(f"{run / 'checkpoints'}: no checkpoint there; a finished run has its student in {run}/student")
    with product(target, "student") as aside:
        export_student(checkpoint, config.student, aside)
    return target

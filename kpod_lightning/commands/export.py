"""`kpod export`: the student of a run's newest checkpoint as a Hugging Face folder."""

from pathlib import Path

from kpod_lightning.distributed.checkpoints import newest_checkpoint
from kpod_lightning.runs.folder import load_run_config
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import writing
from kpod_lightning.students.export import export_student


def export_run(run: Path, out: Path | None = None) -> Path:
    """The student of a run's newest checkpoint, also while or before the run ends.

    Raises:
        InputError: no run folder, or no checkpoint in it.
    """
    config = load_run_config(run)
    checkpoint = newest_checkpoint(run / "checkpoints")
    if checkpoint is None:
        raise InputError(f"{run / 'checkpoints'}: no checkpoint there; a finished run has its student in {run}/student")
    target = out or run / "student-newest"
    with writing(target) as aside:
        export_student(checkpoint, config.student, aside)
    return target

"""Runs one experiment from its settings: the run folder, then the pipeline in it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kpod_lightning.config import RunConfig
from kpod_lightning.distributed.preemption import ending_together, listening
from kpod_lightning.distributed.ranks import first_rank, is_first, joined
from kpod_lightning.runs.folder import Run, open_run, run_lock
from kpod_lightning.store.errors import InputError


def run_pipeline(config: RunConfig, folder: Path, *, redo: bool = False, until: str = "report") -> Run:
    """Problems → rationales → student before → distillation → student after → report; only what is missing.

    Raises:
        InputError: settings or input that cannot be used; the folder is of something else, or another process writes
            there.
    """
    with joined(config.launch), none_for_nothing(folder), ExitStack() as held, ending_together():

        def opened() -> None:
            held.enter_context(run_lock(folder))
            open_run(folder, config, redo=redo)

        # One lock for all ranks: they are one writer. Settings stay where they are: their class has the blocks of
        # plugins, and cannot be sent to other ranks.
        first_rank(opened, "the run folder")
        run = Run(folder, config, redo)
        from kpod_lightning.runs import pipeline  # imports torch: only once the settings have been read

        with listening():
            pipeline.complete(run, until)
    return run


@contextmanager
def none_for_nothing(folder: Path) -> Iterator[None]:
    """Where input cannot be used and nothing has been made of it, remove the run folder that was made for it.

    Then the same command with other settings is not refused because of a folder that holds nothing.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except InputError:
        if folder in made and is_first() and not (folder / "provenance.json").exists():
            (folder / "config.yaml").unlink(missing_ok=True)
            for path in made:
                if not path.is_dir() or any(path.iterdir()):
                    break
                path.rmdir()
        raise

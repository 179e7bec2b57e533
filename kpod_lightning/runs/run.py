"""Runs one experiment from its settings: the run folder, then the pipeline in it."""

from pathlib import Path

from kpod_lightning.config import RunConfig
from kpod_lightning.distributed.preemption import ending_together
from kpod_lightning.distributed.ranks import first_rank, joined
from kpod_lightning.runs.folder import Run, open_run


def run_pipeline(config: RunConfig, folder: Path, *, redo: bool = False, until: str = "report") -> Run:
    """Problems → rationales → student before → distillation → student after → report; only what is missing."""
    with joined(config.launch), ending_together():
        # Settings stay where they are: their class has the blocks of plugins, and cannot be sent to other ranks.
        first_rank(lambda: bool(open_run(folder, config, redo=redo)), "the run folder")
        run = Run(folder, config, redo)
        from kpod_lightning.runs import pipeline  # imports torch: only once the settings have been read

        pipeline.complete(run, until)
    return run

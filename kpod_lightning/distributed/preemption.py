"""Preemption: a signal asks the run to stop, and the run stops where no work is lost.

The signal only sets a flag. Every rank learns of it at the end of a step (or of a batch, where nothing is trained);
a training then saves a checkpoint, and the command ends. Under Slurm the job goes back into the queue, and the same
command continues the run.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from kpod_lightning.distributed import ranks

T = TypeVar("T")

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
"""SIGUSR1: what `kpod submit` has Slurm send before the time limit or a preemption. SIGTERM: what ends any process."""

STOPPED = 75
"""Exit code of a run that was asked to stop: EX_TEMPFAIL, "try again"."""

_received: set[int] = set()


class Preempted(Exception):
    """The run was asked to stop, and has stopped where it can be resumed.

    Args:
        requeue: whether the run itself has to put its job back into the queue: after the signal before the time limit
            Slurm does not.
    """

    def __init__(self, requeue: bool) -> None:
        super().__init__("stopped by a signal")
        self.requeue = requeue


@contextmanager
def listening() -> Iterator[None]:
    """Within it, SIGUSR1 and SIGTERM set a flag and do not end the process. Enter it before slow imports."""
    _received.clear()
    earlier = {number: signal.signal(number, lambda number, _: _received.add(number)) for number in SIGNALS}
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier[signal.SIGTERM])
        # Python gives up its handlers while it ends: a late signal would turn a finished job into a failed one.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def asked_to_stop() -> Preempted | None:
    """The exception to raise, if any rank got a signal. A collective: every rank has to call it."""
    some, by_user_signal = ranks.summed([len(_received), signal.SIGUSR1 in _received])
    return Preempted(requeue=by_user_signal > 0) if some else None


def stop_if_asked() -> None:
    """Stop if any rank got a signal. Call it on every rank, where no work would be lost.

    Raises:
        Preempted: on every rank.
    """
    stop = asked_to_stop()
    if stop is not None:
        raise stop


def stopping(batches: Iterable[T]) -> Iterator[T]:
    """The same batches, stopping between two of them if asked; every rank must have the same number.

    After the last batch it does not stop, since only the artefact is left to be written.
    """
    for i, batch in enumerate(batches):
        if i:
            stop_if_asked()
        yield batch


@contextmanager
def ending_together() -> Iterator[None]:
    """When stopping, all ranks wait for each other before exiting.

    Slurm kills the rest as soon as one exits, and rank 0 may still be writing.
    """
    try:
        yield
    except Preempted:
        ranks.barrier()
        raise


def back_into_the_queue(stopped: Preempted) -> int:
    """Requeue the Slurm job of a run that has stopped, if that is up to the run. Returns the exit code."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or not stopped.requeue:
        if ranks.is_first():
            print("kpod: stopped by a signal; the same command goes on from here", file=sys.stderr)
        return STOPPED
    if ranks.is_first():
        print(f"kpod: stopped by a signal; job {job} goes back into the queue", file=sys.stderr, flush=True)
        # When Slurm itself preempts, it requeues the job too; then it refuses this call, which does no harm.
        asked = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        if asked.returncode:
            print(f"kpod: scontrol requeue {job}: {' '.join(asked.stderr.split())}", file=sys.stderr)
    return 0


def has_step(folder: Path, step: int) -> bool:
    """Whether a checkpoint is of this optimiser step, which the training has come to."""
    from kpod_lightning.distributed.checkpoints import candidates, global_step  # slow import, only when stopping

    return step in map(global_step, candidates(folder))


def stopping_callback(checkpoint: Any) -> Any:
    """Lightning's callback that saves ``checkpoint`` at the end of a step, and stops.

    Args:
        checkpoint: path to save to; None if nothing is trained, and a resumed run predicts again from the start.
    """
    from lightning.pytorch.callbacks import Callback  # slow import: the signal handlers are set before it

    class StopWhenAsked(Callback):
        def on_train_start(self, trainer: Any, *_: Any) -> None:
            self.step = trainer.global_step

        def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
            # An epoch of a single step has no border inside it, where the run could stop. So it stops here, if the last
            # epoch's checkpoint is of this very step and nothing has to be saved.
            stop = asked_to_stop()
            if stop is not None:
                getattr(trainer.strategy, "finish_writing", lambda: None)()
            if stop is not None and ranks.first_rank(lambda: has_step(checkpoint.parent, trainer.global_step)):
                raise stop

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            # Not between the micro-batches of a step: no checkpoint keeps their gradients. Not after the last batch of
            # an epoch: validation and the epoch's row of metrics follow, and a resumed training would skip them.
            at_border = trainer.global_step != self.step and not trainer.is_last_batch
            stop = asked_to_stop() if at_border else None
            if stop is not None:
                trainer.save_checkpoint(checkpoint)
                raise stop
            self.step = trainer.global_step

        def on_predict_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int, *_: Any) -> None:
            if batch_idx:
                stop_if_asked()

    return StopWhenAsked()

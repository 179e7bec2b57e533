"""Preemption: a signal asks the run to stop, and the run stops where no work is lost.

The signal only sets a flag. Every rank learns of it at the end of a step (or of a batch, where nothing is trained);
a training then saves a checkpoint, and the command ends. Under Slurm the job goes back into the queue, and the same
command continues the run.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from kpod_lightning.distributed import ranks, signals

T = TypeVar("T")

STOPPED = 75
"""Exit code of a run that was asked to stop: EX_TEMPFAIL, "try again"."""

INTERRUPTED = 130
"""Exit code of a run that Ctrl-C has stopped, as shells count it."""


class Preempted(Exception):
    """The run was asked to stop, and has stopped where it can be resumed.

    Args:
        requeue: whether the run itself has to put its job back into the queue: after the signal before the time limit
            Slurm does not.
        interrupted: whether it was Ctrl-C.
    """

    def __init__(self, requeue: bool, interrupted: bool = False) -> None:
        super().__init__("stopped by a signal")
        self.requeue = requeue
        self.interrupted = interrupted


@contextmanager
def listening() -> Iterator[None]:
    """Within it, signals are noted and do not end the process: for work that asks whether to stop."""
    try:
        with signals.handled_by(signals.note):
            yield
    finally:
        signals.received.clear()


def asked_to_stop() -> Preempted | None:
    """The exception to raise, if any rank got a signal. A collective: every rank has to call it."""
    numbers = signals.received
    some, *of_each = ranks.summed([len(numbers), *(number in numbers for number in signals.SIGNALS)])
    return (
        preempted_by({number for number, count in zip(signals.SIGNALS, of_each, strict=True) if count})
        if some
        else None
    )


def preempted_by(numbers: Collection[int]) -> Preempted:
    """The exception for signals that came."""
    return Preempted(requeue=signal.SIGUSR1 in numbers, interrupted=set(numbers) == {signal.SIGINT})


def by_signals() -> Preempted:
    """The exception for the signals that came to this rank, and were not asked for by the work."""
    return preempted_by(signals.received or {signal.SIGINT})


def stop_if_noted() -> None:
    """Stop if this process got a signal while its files were imported.

    Raises:
        Preempted: it did.
    """
    if signals.received:
        raise by_signals()


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
        return INTERRUPTED if stopped.interrupted else STOPPED
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
            # an epoch: Lightning would skip the validation and the epoch's row of metrics when it is resumed there.
            at_border = trainer.global_step != self.step and not trainer.is_last_batch
            stop = asked_to_stop() if at_border else None
            if stop is not None:
                trainer.save_checkpoint(checkpoint)
                raise stop
            self.step = trainer.global_step

        def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
            # A validation stops between its batches. Lightning resumes with all of that validation.
            if isinstance(exception, Preempted) and trainer.validating and checkpoint is not None:
                trainer.save_checkpoint(checkpoint)

        def on_predict_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int, *_: Any) -> None:
            if batch_idx:
                stop_if_asked()

    return StopWhenAsked()

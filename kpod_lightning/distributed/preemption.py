"""Clusters that preempt: a signal asks the run to stop, and it does where nothing is lost.

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
"""Slurm's before the time limit or a preemption, as `kpod submit` asks; and what ends any process."""

STOPPED = 75
"""Exit code of a run that was asked to stop: EX_TEMPFAIL, "try again"."""

_received: set[int] = set()


class Preempted(Exception):
    """The run was asked to stop, and has stopped where it can go on.

    ``requeue``: by the signal before the time limit, after which Slurm does not put the job back by itself.
    """

    def __init__(self, requeue: bool) -> None:
        super().__init__("stopped by a signal")
        self.requeue = requeue


@contextmanager
def listening() -> Iterator[None]:
    """Keep SIGUSR1 and SIGTERM from ending the process at once. To be entered before anything slow."""
    _received.clear()
    earlier = {number: signal.signal(number, lambda number, _: _received.add(number)) for number in SIGNALS}
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier[signal.SIGTERM])
        # Python gives up its handlers while it ends: a late signal would turn a finished job into a failed one.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def asked_to_stop() -> Preempted | None:
    """What to raise where some rank got a signal; every rank has to call it."""
    some, by_user_signal = ranks.summed([len(_received), signal.SIGUSR1 in _received])
    return Preempted(requeue=by_user_signal > 0) if some else None


def stop_if_asked() -> None:
    """Where nothing of worth is under way; every rank has to call it.

    Raises:
        Preempted: on every rank.
    """
    stop = asked_to_stop()
    if stop is not None:
        raise stop


def stopping(batches: Iterable[T]) -> Iterator[T]:
    """The same batches, of which every rank has equally many; stops between two of them.

    Not after the last one: then only its artefact is to be written.
    """
    for i, batch in enumerate(batches):
        if i:
            stop_if_asked()
        yield batch


@contextmanager
def ending_together() -> Iterator[None]:
    """Where ranks stop, none ends before the first has closed its files: Slurm kills the others when one has ended."""
    try:
        yield
    except Preempted:
        ranks.barrier()
        raise


def back_into_the_queue(stopped: Preempted) -> int:
    """The last act of a run that has stopped: its job is requeued. Returns the exit code."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or not stopped.requeue:
        if ranks.is_first():
            print("kpod: stopped by a signal; the same command goes on from here", file=sys.stderr)
        return STOPPED
    if ranks.is_first():
        print(f"kpod: stopped by a signal; job {job} goes back into the queue", file=sys.stderr, flush=True)
        # It may be on its way there already, when Slurm itself preempts: then this is refused, and needless.
        asked = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        if asked.returncode:
            print(f"kpod: scontrol requeue {job}: {' '.join(asked.stderr.split())}", file=sys.stderr)
    return 0


def has_step(folder: Path, step: int) -> bool:
    """Whether the newest checkpoint is of this optimiser step."""
    from kpod_lightning.distributed.checkpoints import (  # slow import, needed when stopping alone
        global_step,
        newest_checkpoint,
    )

    newest = newest_checkpoint(folder)
    return newest is not None and global_step(newest) == step


def stopping_callback(checkpoint: Any) -> Any:
    """Lightning's callback that saves ``checkpoint`` at the end of a step, and stops.

    Args:
        checkpoint: path to save to; None where nothing is trained, and all that is made is made again.
    """
    from lightning.pytorch.callbacks import Callback  # slow import: signals are listened to before it

    class StopWhenAsked(Callback):
        def on_train_start(self, trainer: Any, *_: Any) -> None:
            self.step = trainer.global_step

        def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
            # Where the epoch before has left a checkpoint there is nothing to save: an epoch may have one step only.
            stop = asked_to_stop()
            if stop is not None:
                getattr(trainer.strategy, "finish_writing", lambda: None)()
            if stop is not None and ranks.first_rank(lambda: has_step(checkpoint.parent, trainer.global_step)):
                raise stop

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            # Between micro-batches there are gradients that no checkpoint keeps; and after the last batch validation
            # and the epoch's row are still to come, which a training that resumes there would leave out.
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

"""Results of ``Trainer.predict`` on all ranks, one row of numbers an example, in files: no rank holds all in memory."""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, overload

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback

from kpod_lightning.config import RunConfig
from kpod_lightning.distributed.harmless import without_harmless_warnings
from kpod_lightning.distributed.preemption import stopping_callback
from kpod_lightning.distributed.ranks import barrier, first_rank, rank, world_size
from kpod_lightning.distributed.trainer import trainer_of
from kpod_lightning.store.files import appending


class RowWriter(Callback):
    """Appends what ``predict_step`` returns, a float32 row an example, to this rank's file in a folder of all ranks.

    Use as a context manager round ``Trainer.predict``. BasePredictionWriter needs Lightning's own sampler.

    Args:
        batches: positions of the examples in each of this rank's batches.
    """

    def __init__(self, folder: Path, batches: Sequence[np.ndarray]) -> None:
        self.folder, self.batches = folder, batches
        self.files = ExitStack()

    def __enter__(self) -> "RowWriter":
        with appending(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.values, self.places = (
                self.files.enter_context((self.folder / f"{name}-{rank()}.bin").open("wb"))
                for name in ("values", "places")
            )
        return self

    def __exit__(self, *exception: Any) -> None:
        with appending(self.folder):
            self.files.close()

    def on_predict_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        with appending(self.folder):
            for position, row in zip(self.batches[batch_idx], outputs, strict=True):
                self.values.write(np.ascontiguousarray(row, np.float32).tobytes())
                self.places.write(np.array([position, len(row)], np.int64).tobytes())


class PredictedRows(Sequence[np.ndarray]):
    """The rows of all ranks by the position of their example, from the folder that ``RowWriter`` wrote.

    Raises:
        RuntimeError: an example has no row.
    """

    def __init__(self, folder: Path, num_examples: int) -> None:
        self.values: list[np.ndarray] = []
        self.place = np.full((num_examples, 3), -1, np.int64)  # rank, start, end
        for number in range(world_size()):
            path = folder / f"values-{number}.bin"
            size = path.stat().st_size
            self.values.append(np.memmap(path, np.float32, mode="r") if size else np.zeros(0, np.float32))
            position, length = np.fromfile(folder / f"places-{number}.bin", np.int64).reshape(-1, 2).T
            ends = np.cumsum(length)
            self.place[position] = np.stack([np.full_like(ends, number), ends - length, ends], axis=1)
        missing = np.flatnonzero(self.place[:, 0] < 0)
        if missing.size:
            raise RuntimeError(f"{missing.size} of {num_examples} examples have no row, the first is {missing[0]}")
        barrier()  # the caller may delete the files: every rank has opened them

    def __len__(self) -> int:
        return len(self.place)

    @overload
    def __getitem__(self, position: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, position: slice) -> list[np.ndarray]: ...
    def __getitem__(self, position: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        number, start, end = self.place[position].tolist()
        return self.values[number][start:end]


def predicted(
    config: RunConfig,
    module: L.LightningModule,
    loader: Any,
    batches: Sequence[np.ndarray],
    num_examples: int,
    folder: Path,
) -> PredictedRows:
    """One row an example, through ``Trainer.predict`` on all ranks; every rank can read all rows.

    Args:
        loader: gives the batches of examples at the positions ``batches``, in their order.
        folder: for the rows, seen by all ranks; emptied first.
    """
    first_rank(lambda: shutil.rmtree(folder, ignore_errors=True))
    with RowWriter(folder, batches) as writer, without_harmless_warnings():
        callbacks = [stopping_callback(None), writer]
        trainer = trainer_of(config, "predicting", callbacks, logger=False, enable_checkpointing=False)
        trainer.predict(module, loader, return_predictions=False)
    barrier()
    return PredictedRows(folder, num_examples)

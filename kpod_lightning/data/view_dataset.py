"""ViewDataset: from examples to batches of what a stage shows and asks of them."""

import math
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
from torch.utils.data import Dataset

from kpod_lightning.data.batches import MicroBatch, WholeBatch
from kpod_lightning.data.example_table import kinds_of, num_asked
from kpod_lightning.data.examples import Example
from kpod_lightning.data.stages import Stages
from kpod_lightning.data.views import IGNORE, Batch, View, collate, window_view

Views = Callable[[Sequence[Example], Sequence[int], int], Sequence[View]]
"""From examples that meet in a micro-batch, their positions, and the stage: what each shows and asks."""


class ViewDataset(Dataset[Batch]):
    """Maps a micro-batch, which names its stage, to its batch, packed or padded as ``packed`` says.

    Nothing is made before it is asked for, so that the examples may be more than the memory holds.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        stages: Stages,
        *,
        encoder_decoder: bool,
        pad_token_id: int,
        eos_token_id: int,
        token_weights: Sequence[Sequence[float]] | Sequence[np.ndarray] | None = None,
        views: Views | None = None,
    ) -> None:
        self.examples = examples
        self.stages = stages
        self.encoder_decoder = encoder_decoder
        self.eos_token_id = eos_token_id
        self.token_weights = token_weights
        self.pad_token_id = pad_token_id
        self.views_of = views
        self.packed = False
        self.kinds = kinds_of(examples)

    def __len__(self) -> int:
        return len(self.examples)

    def shown(self, positions: Sequence[int], stage: int) -> tuple[Sequence[View], Sequence[tuple[int, int]]]:
        """What each example shows and asks at a stage, and which of its tokens are asked, ``Stages.windows``; () where
        a method shows views of its own."""
        examples = [self.examples[i] for i in positions]
        if self.views_of is not None:
            return self.views_of(examples, positions, stage), ()
        windows = self.stages.windows(stage, positions, examples)
        views = [
            window_view(
                example,
                window,
                encoder_decoder=self.encoder_decoder,
                eos_token_id=self.eos_token_id,
                # A row of an array at once: number by number it takes ten times as long.
                token_weights=None if self.token_weights is None else np.asarray(self.token_weights[i]).tolist(),
            )
            for i, example, window in zip(positions, examples, windows, strict=True)
        ]
        return views, windows

    def num_asked(self, positions: Sequence[int], stage: int) -> int:
        """Target tokens that are asked of these examples."""
        if self.views_of is not None:
            return sum(map(len, self._weights(positions, stage)))
        if type(self.stages).windows is Stages.windows:  # no example has to be made for it
            input_steps = self.stages.input_steps(stage)
            return sum(num_asked(self.examples, i, int(input_steps[i])) for i in positions)
        windows = self.stages.windows(stage, positions, [self.examples[i] for i in positions])
        return sum(stop - first for first, stop in windows)

    def whole(self, positions: Sequence[int], stage: int, loss_scale: str = "tokens") -> WholeBatch:
        """What every micro-batch of a global batch knows of it.

        Args:
            loss_scale: what the summed loss is divided by, ``OptimConfig.loss_scale``.
        """
        several = bool(self.kinds.any())
        if not several and loss_scale != "mass":
            asked = self.num_asked(positions, stage)
            return WholeBatch(float(asked) if loss_scale == "tokens" else 1.0, asked, len(positions), {})
        rows, kinds = self._weights(positions, stage), self.kinds[list(positions)].tolist()
        asked = sum(map(len, rows))
        of_kind = {
            kind: math.fsum(chain(*(row for row, its in zip(rows, kinds, strict=True) if its == kind)))
            for kind in (sorted(set(kinds)) if several else ())
        }
        divisor = {"sum": 1.0, "tokens": float(asked), "mass": math.fsum(chain(*rows))}[loss_scale]
        return WholeBatch(divisor, asked, len(positions), of_kind)

    def _weights(self, positions: Sequence[int], stage: int) -> list[list[float]]:
        """Weights of all that is asked of each of these examples."""
        views, _ = self.shown(positions, stage)
        return [[w for label, w in zip(v.labels, v.weights, strict=True) if label != IGNORE] for v in views]

    def __getitem__(self, micro_batch: MicroBatch) -> Batch:
        positions = micro_batch.positions
        views, windows = self.shown(positions, micro_batch.stage)
        return collate(
            views,
            [self.examples[i].key for i in positions],
            pad_token_id=self.pad_token_id,
            packed=self.packed,
            stage=micro_batch.stage,
            epoch=micro_batch.epoch,
            positions=positions,
            kinds=tuple(self.kinds[list(positions)].tolist()),
            windows=tuple(windows),
            **micro_batch.whole._asdict(),
        )

"""Budget: when a training ends, by epochs, by optimiser steps or by target tokens, exact to one global batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kpod_lightning.data.stages import Progress


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a training may use. None of the two: it ends by its epochs.

    ``tokens`` are targets, over all ranks. The last epoch is cut behind the global batch with which they are reached,
    so that it ends as any other does: with its validation, its row of metrics and its checkpoint.
    """

    steps: int | None = None
    tokens: int | None = None

    @property
    def is_limited(self) -> bool:
        return self.steps is not None or self.tokens is not None

    def within(
        self, batches: Sequence[Any], progress: Progress, num_asked: Callable[[Any], int], most: int
    ) -> tuple[int, bool]:
        """How many of an epoch's global batches there is budget for, and whether it is used up then.

        Args:
            progress: at the epoch's start.
            num_asked: target tokens of a batch.
            most: tokens that all batches together have at most; the batches are counted only where it might matter.
        """
        count, ends = len(batches), False
        if self.steps is not None and progress.step + count >= self.steps:
            count, ends = max(0, self.steps - progress.step), True
        if self.tokens is not None and progress.tokens + most >= self.tokens:
            used = progress.tokens
            for number, batch in enumerate(batches[:count]):
                if used >= self.tokens:
                    return number, True
                used += num_asked(batch)
            ends = ends or used >= self.tokens
        return count, ends

"""Stages that ask other windows than last steps: what follows a share of the tokens, or the first steps."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kpod_lightning.data.examples import Example
from kpod_lightning.data.stages import PacedStages
from kpod_lightning.data.views import first_asked


class TokenShares(PacedStages):
    """Of n rationale tokens the first ⌊ρ n⌋ are input; ρ depends on the stage alone.

    Args:
        shares: [num_stages + 1] ρ of every stage, in [0, 1].
        others: those of ``PacedStages``.
    """

    def __init__(self, num_examples: int, shares: Sequence[float], **others: Any) -> None:
        super().__init__(num_examples, len(shares) - 1, logged={"schedule/shown_share": shares}, **others)
        self.shares = shares

    def windows(self, stage: int, positions: Sequence[int], examples: Sequence[Example]) -> list[tuple[int, int]]:
        return [
            (num_shown(self.shares[stage], example.num_rationale_tokens), len(example.target_ids))
            for example in examples
        ]

    def is_whole(self, stage: int) -> bool:
        return self.shares[stage] == 0


def num_shown(share: float, num_tokens: int) -> int:
    """⌊share · num_tokens⌋. The product is rounded first: 0.29 · 100 is a little below 29 and would become 28."""
    return int(round(share * num_tokens, 9))


class FirstSteps(PacedStages):
    """The first k steps are asked and what follows is dropped; where k is all of them, so is the answer asked.

    Args:
        rows: [num_stages + 1, num_examples] k_i(t), at least 1 each.
        num_steps: [num_examples] n_i.
        others: those of ``PacedStages``.
    """

    def __init__(self, rows: np.ndarray, num_steps: np.ndarray, **others: Any) -> None:
        super().__init__(len(num_steps), len(rows) - 1, **others)
        self.rows, self.num_steps = rows, num_steps

    def windows(self, stage: int, positions: Sequence[int], examples: Sequence[Example]) -> list[tuple[int, int]]:
        asked = self.rows[stage]
        return [
            (0, first_asked(example, int(asked[i])) if asked[i] < example.num_steps else len(example.target_ids))
            for i, example in zip(positions, examples, strict=True)
        ]

    def is_whole(self, stage: int) -> bool:
        return bool((self.rows[stage] >= self.num_steps).all())

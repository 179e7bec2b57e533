"""Whether keypoints were found, judged by what the heaviest tokens of held-out rationales are worth to the answers."""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from kpod_lightning.evaluation.statistics import bootstrap_interval

SMALLEST_EFFECT = 0.1
"""Nats. If the whole rationale lowers its answer's loss by less, a share of that says nothing."""

SMALLEST_SPREAD = 0.05
"""Standard deviation of w. Below it the network does not tell tokens apart."""

FEWEST_JUDGED = 25
"""Held-out rationales, at least, before the judgement is made: of fewer the bootstrap's intervals are too narrow."""

ERROR = 0.05
"""Chance that the intervals miss what they are to hold, over all looks together; each look has an equal part of it."""


@dataclass(frozen=True, kw_only=True)
class Sufficiency:
    """Held-out answer losses, in nats, and the judgement that follows from them.

    ``value`` = (none - top) / (none - all): the share of what the whole rationale is worth to its answer that the
    top ``share`` of its tokens is worth. ``over_random`` is the interval of the mean loss with a random choice less
    that with the top tokens, ``worth`` that of the mean loss with none less that with all. ``value`` and its
    ``interval`` are undefined (None) where none and all differ by less than ``SMALLEST_EFFECT``, ``worth`` where a
    loss is no number. Intervals hold at once with a confidence of 1 - ``ERROR``, however many looks at the held-out
    rationales there may be.
    """

    share: float
    num_rationales: int
    mean_nats: dict[str, float]
    value: float | None
    interval: tuple[float, float] | None
    over_random: tuple[float, float]
    worth: tuple[float, float] | None
    spread: float

    @property
    def decided(self) -> bool:
        """Whether more held-out rationales would hardly change the judgement: each interval lies on one side."""
        low, high = self.worth or (math.nan, math.nan)
        if not high >= SMALLEST_EFFECT:
            return True
        if low < SMALLEST_EFFECT:
            return False
        return self.spread < SMALLEST_SPREAD or self.over_random[0] > 0 or self.over_random[1] < 0

    @property
    def reason(self) -> str | None:
        """Why no keypoints were found; None where they were."""
        if not self.mean_nats["none"] - self.mean_nats["all"] >= SMALLEST_EFFECT:
            return (
                f"the answer model does no better with the rationale ({self.mean_nats['all']:.2f} nats) "
                f"than without ({self.mean_nats['none']:.2f})"
            )
        if self.spread < SMALLEST_SPREAD:
            return f"all tokens weigh the same (standard deviation {self.spread:.3f})"
        if not self.over_random[0] > 0:
            return (
                f"the top {self.share:.0%} of the tokens ({self.mean_nats[f'top {self.share}']:.2f} nats) serve the "
                f"answer no better than a random choice ({self.mean_nats[f'random {self.share}']:.2f})"
            )
        return None


def looks(num_held_out: int) -> list[int]:
    """How many held-out rationales have been read at each look: a half, a quarter, ... of all, rising, then all."""
    numbers = [num_held_out]
    while numbers[0] // 2 >= FEWEST_JUDGED:
        numbers.insert(0, numbers[0] // 2)
    return numbers


def sufficiency(nats: dict[str, np.ndarray], share: float, spread: float, num_looks: int = 1) -> Sufficiency:
    """Judge held-out answer losses, one value a rationale under each name of ``held_out_nats``.

    Args:
        num_looks: that may be taken at growing numbers of rationales, until one decides.
    """
    none, whole, top, drawn = (nats[name] for name in ("none", "all", f"top {share}", f"random {share}"))
    defined = float(none.mean() - whole.mean()) >= SMALLEST_EFFECT
    interval = partial(bootstrap_interval, confidence=1 - ERROR / num_looks)
    return Sufficiency(
        share=share,
        num_rationales=len(none),
        mean_nats={name: float(values.mean()) for name, values in nats.items()},
        value=float((none.mean() - top.mean()) / (none.mean() - whole.mean())) if defined else None,
        interval=interval([none, top, whole], lambda n, t, a: (n - t) / (n - a)) if defined else None,
        over_random=interval([drawn, top], lambda d, t: d - t),
        worth=interval([none, whole], lambda n, a: n - a) if math.isfinite(none.mean() - whole.mean()) else None,
        spread=spread,
    )

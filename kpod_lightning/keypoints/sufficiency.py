"""Whether keypoints were found, judged by what the heaviest tokens of held-out rationales are worth to the answers."""

from dataclasses import dataclass

import numpy as np

from kpod_lightning.evaluation.statistics import bootstrap_interval

SMALLEST_EFFECT = 0.1
"""Nats. If the whole rationale lowers its answer's loss by less, a share of that says nothing."""

SMALLEST_SPREAD = 0.05
"""Standard deviation of w. Below it the network does not tell tokens apart."""


@dataclass(frozen=True, kw_only=True)
class Sufficiency:
    """Held-out answer losses, in nats, and the judgement that follows from them.

    ``value`` = (none - top) / (none - all): the share of what the whole rationale is worth to its answer that the
    top ``share`` of its tokens is worth. ``over_random`` is the 95 % interval of the mean loss with a random choice
    less that with the top tokens. Undefined (None) where none and all differ by less than ``SMALLEST_EFFECT``.
    """

    share: float
    num_rationales: int
    mean_nats: dict[str, float]
    value: float | None
    interval: tuple[float, float] | None
    over_random: tuple[float, float]
    spread: float

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


def sufficiency(nats: dict[str, np.ndarray], share: float, spread: float) -> Sufficiency:
    """Judge held-out answer losses, one value a rationale under each name of ``held_out_nats``."""
    none, whole, top, drawn = (nats[name] for name in ("none", "all", f"top {share}", f"random {share}"))
    defined = float(none.mean() - whole.mean()) >= SMALLEST_EFFECT
    return Sufficiency(
        share=share,
        num_rationales=len(none),
        mean_nats={name: float(values.mean()) for name, values in nats.items()},
        value=float((none.mean() - top.mean()) / (none.mean() - whole.mean())) if defined else None,
        interval=bootstrap_interval([none, top, whole], lambda n, t, a: (n - t) / (n - a)) if defined else None,
        over_random=bootstrap_interval([drawn, top], lambda d, t: d - t),
        spread=spread,
    )

"""RandomShare: a control in which a random share of a rationale's tokens weighs 1 and the rest 0."""

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kpod_lightning.keypoints.base import OF_TABLES, Weighting
from kpod_lightning.store.bounds import check, within

if TYPE_CHECKING:
    import numpy as np

    from kpod_lightning.data.examples import Example
    from kpod_lightning.store.ragged import Ragged


@dataclass(frozen=True, kw_only=True)
class RandomSettings:
    """The block ``random:``."""

    share: float = field(default=0.3, metadata=within("(0, 1]"))
    """Share of a rationale's tokens that weigh 1, at least one token; KPOD's ρ (``weights.share``)."""

    def __post_init__(self) -> None:
        check(self, "random")


class RandomShare(Weighting):
    """Which tokens follows from the run's seed and the rationale alone: neither their order nor ranks change it."""

    Settings = RandomSettings

    reads = OF_TABLES

    def table(self, context: Any) -> "Ragged":
        from kpod_lightning.keypoints.in_loss import with_ones

        return with_ones(map(self.row, context.examples), context.examples)

    def row(self, example: "Example") -> "np.ndarray":
        """[num_rationale_tokens] 1 for the chosen tokens, 0 for the others."""
        import numpy as np

        number = example.num_rationale_tokens
        weights = np.zeros(number)
        name, sample = example.key
        chosen = random.Random(f"{self.config.seed}/{name}/{sample}").sample(
            range(number), min(number, max(1, round(self.settings.share * number)))
        )
        weights[chosen] = 1.0
        return weights

"""KPOD: the loss weighs keypoints (Eq. 15), and a rationale is learned from its last steps to the whole (Eqs. 8-13)."""

from typing import TYPE_CHECKING

from kpod_lightning.config import RunConfig
from kpod_lightning.curricula.base import Curriculum, find_curriculum
from kpod_lightning.keypoints.base import Weighting, find_weighting
from kpod_lightning.keypoints.learned import IN_LOSS
from kpod_lightning.methods.base import Method
from kpod_lightning.store.errors import InputError

if TYPE_CHECKING:
    from kpod_lightning.methods.context import Context


class KPOD(Method):
    """Token weights and a curriculum, each by its name: ``weights.kind=learned`` and ``curriculum=in_rationale``."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.weighting = find_weighting(config.weights.kind)(config)
        self.curriculum = find_curriculum(config.curriculum)(config)
        self.context: Context | None = None

    def check(self) -> None:
        super().check()
        kind = self.config.weights.kind
        if self.config.weights.permuted and self.weighting.reads_step and type(self.weighting).table is Weighting.table:
            raise InputError(
                f"weights.permuted=true shuffles a table of weights, and weights.kind={kind} has none: it makes its "
                "weights in the step; drop it, or take weights.kind=random as a control"
            )

    def begin(self, context: "Context") -> None:
        super().begin(context)
        self.context = context

    def uses(self, key: str) -> bool:
        return key in ("weights.kind", "curriculum") or super().uses(key)

    def training_settings(self) -> tuple[str, ...]:
        parts: dict[str, Weighting | Curriculum] = {
            self.config.weights.kind: self.weighting,
            self.config.curriculum: self.curriculum,
        }
        own = tuple(name for name, part in parts.items() if part.Settings is not None)
        return (*super().training_settings(), "curriculum", *self.curriculum.training_settings(), *IN_LOSS, *own)

    def batch_sizes(self) -> dict[str, int]:
        sizes = super().batch_sizes()
        learned = self.weighting.uses("weights.batch_size") and any(arrow.verb == "weights" for arrow in self.arrows())
        return sizes | ({"weights.batch_size": self.config.weights.batch_size} if learned else {})

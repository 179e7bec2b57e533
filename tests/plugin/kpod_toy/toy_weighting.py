"""PowerOfProbability: a token weighs p^alpha, where p is the probability that the student gives it in this step."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kpod_lightning.keypoints.base import Weighting
from kpod_lightning.store.bounds import at_least, check

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PowerSettings:
    """The block ``p_alpha:`` of an experiment."""

    alpha: float = field(default=1.0, metadata=at_least(0))
    """0 weighs every token 1."""

    def __post_init__(self) -> None:
        check(self, "p_alpha")


class PowerOfProbability(Weighting):
    Settings = PowerSettings

    def in_step(self, logits: "Tensor", nll: "Tensor", targets: "Tensor", weights: "Tensor") -> "Tensor":
        return weights * (-self.settings.alpha * nll).exp()

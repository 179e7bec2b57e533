"""Weights from the probability p of a target under the student that learns: DFT, its powers, and a threshold."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kpod_lightning.keypoints.base import OF_ALL, Weighting
from kpod_lightning.store.bounds import at_least, check, within

if TYPE_CHECKING:
    from torch import Tensor


class OfProbability(Weighting):
    """What the weights of this file have in common."""

    reads = OF_ALL


class DFT(OfProbability):
    """w = p without a gradient (arXiv 2508.05629): the loss has the gradient of 1 - p."""

    def in_step(self, logits: "Tensor", nll: "Tensor", targets: "Tensor", weights: "Tensor") -> "Tensor":
        return weights * (-nll).exp()


@dataclass(frozen=True, kw_only=True)
class PowerSettings:
    """The block ``power:``."""

    alpha: float = field(default=1.0, metadata=at_least(0, most=1000))
    """α of p^α: 0 is plain NLL, 1 is ``dft``."""

    def __post_init__(self) -> None:
        check(self, "power")


class Power(OfProbability):
    """w = p^α without a gradient (arXiv 2510.00526): the loss has the gradient of (1 - p^α) / α."""

    Settings = PowerSettings

    def in_step(self, logits: "Tensor", nll: "Tensor", targets: "Tensor", weights: "Tensor") -> "Tensor":
        return weights * (-self.settings.alpha * nll).exp()


@dataclass(frozen=True, kw_only=True)
class ThresholdSettings:
    """The block ``threshold:``."""

    q: float = field(default=0.2, metadata=within("[0, 1]"))
    """Probability from which on a target weighs 1; the paper's 0.2."""
    invert: bool = False
    """Let the targets up to q weigh 1, and those above it 0."""

    def __post_init__(self) -> None:
        check(self, "threshold")


class Threshold(OfProbability):
    """w = 1 where p >= q, else 0 (arXiv 2510.00526)."""

    Settings = ThresholdSettings

    def in_step(self, logits: "Tensor", nll: "Tensor", targets: "Tensor", weights: "Tensor") -> "Tensor":
        p = (-nll).exp()
        kept = p <= self.settings.q if self.settings.invert else p >= self.settings.q
        return weights * kept.to(weights.dtype)

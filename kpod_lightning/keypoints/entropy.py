"""Weights from the entropy of what the student predicts: EAFT, and the most uncertain targets of an example alone."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kpod_lightning.keypoints.base import OF_ALL, Weighting
from kpod_lightning.store.bounds import at_least, check, within

if TYPE_CHECKING:
    from torch import Tensor

    from kpod_lightning.data.views import Batch


def entropies(logits: "Tensor") -> "Tensor":
    """[n] entropy in nats of the softmax of [n, V] logits; rounding leaves none below 0."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1).clamp(max=0)


@dataclass(frozen=True, kw_only=True)
class EAFTSettings:
    """The block ``eaft:``."""

    alpha: float = field(default=1.0, metadata=at_least(0, most=1000))
    """α: power of the entropy's share of its largest value; 0 weighs every target 1."""
    top: int = field(default=20, metadata=at_least(2))
    """K: the likeliest tokens, whose renormalised probabilities have the entropy; at most the vocabulary."""

    def __post_init__(self) -> None:
        check(self, "eaft")


class EAFT(Weighting):
    """w = (H_K / ln K)^α, H_K the entropy of the K likeliest tokens, without a gradient (arXiv 2601.02151)."""

    Settings = EAFTSettings

    reads = OF_ALL

    def in_step(self, logits: "Tensor", nll: "Tensor", targets: "Tensor", weights: "Tensor") -> "Tensor":
        top = min(self.settings.top, logits.shape[-1])
        share = entropies(logits.topk(top, -1).values) / math.log(top)
        return weights * share**self.settings.alpha


@dataclass(frozen=True, kw_only=True)
class EntropyTopSettings:
    """The block ``entropy_top:``."""

    share: float = field(default=0.2, metadata=within("(0, 1]"))
    """k: share of an example's targets that weigh 1, at least one; SE-KD's 0.2."""

    def __post_init__(self) -> None:
        check(self, "entropy_top")


class EntropyTop(Weighting):
    """w = 1 on the share of an example's targets at which the student is least certain, else 0 (arXiv 2602.01395)."""

    Settings = EntropyTopSettings

    reads = OF_ALL

    def in_step(self, logits: "Tensor", nll: "Tensor", targets: "Tensor", weights: "Tensor") -> "Tensor":
        return entropies(logits)

    def chosen(self, nll: "Tensor", weights: "Tensor", batch: "Batch") -> "Tensor":
        from kpod_lightning.keypoints.in_step import top_share

        return top_share(weights, batch.example_of, self.settings.share)

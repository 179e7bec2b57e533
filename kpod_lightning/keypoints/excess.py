"""Weights from excess loss: the targets on which the student has gained most since before distillation."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kpod_lightning.keypoints.base import OF_ALL, Weighting
from kpod_lightning.store.artefacts import Arrow
from kpod_lightning.store.bounds import check, within

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor

    from kpod_lightning.data.views import Batch


@dataclass(frozen=True, kw_only=True)
class ExcessSettings:
    """The block ``excess:``."""

    share: float = field(default=0.6, metadata=within("(0, 1]"))
    """ρ: share of an example's targets that weigh 1, at least one; ssToken's 0.6."""

    def __post_init__(self) -> None:
        check(self, "excess")


class Excess(Weighting):
    """w = 1 on the share of an example's targets with the largest loss before minus loss now, else 0.

    ssToken (arXiv 2510.18250) without its attention term, the student before distillation as its history.
    """

    Settings = ExcessSettings

    reads = OF_ALL

    def arrows(self) -> list[Arrow]:
        from kpod_lightning.students.losses_before import loss_arrow

        return [loss_arrow()]

    def table(self, context: Any) -> None:
        from kpod_lightning.students.losses_before import losses_before

        self.before: Sequence[np.ndarray] = losses_before(context)

    def chosen(self, nll: "Tensor", weights: "Tensor", batch: "Batch") -> "Tensor":
        import numpy as np
        import torch

        from kpod_lightning.keypoints.in_step import top_share

        rows = [self.before[i][slice(*window)] for i, window in zip(batch.positions, batch.windows, strict=True)]
        before = torch.from_numpy(np.concatenate(rows)).to(nll)
        return top_share(before - nll, batch.example_of, self.settings.share)

"""The loss with weights that are computed in the step: floor and rescaling act on them here, for all weightings."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kpod_lightning.config import WeightsConfig
from kpod_lightning.students.linear_nll import LossSums, Weigh
from kpod_lightning.students.nll import losses

if TYPE_CHECKING:
    from kpod_lightning.data.views import Batch
    from kpod_lightning.students.student import Student


def weighted_in_step(
    student: "Student",
    batch: "Batch",
    given: Tensor,
    use: WeightsConfig,
    in_step: Weigh | None,
    chosen: Callable[[Tensor, Tensor, "Batch"], Tensor] | None,
) -> LossSums:
    """Σ c f(w_j) g_j ℓ_j: w of the step, f raises it to ``weights.floor``, c makes the mean of f(w) over the targets of
    this micro-batch 1 (``weights.rescale=mean``; all of them 0 stay 0), g is the table's weight.

    Ranks and accumulated micro-batches have means of their own; ``weights.rescale=none`` depends on neither.

    Args:
        given: [N] g.
        in_step: ``Weighting.in_step``; None: 1.
        chosen: ``Weighting.chosen``, from the weights before; None: those as they are.
    """
    found: list[Tensor] = []

    def raised(own: Tensor) -> Tensor:
        return use.floor + (1 - use.floor) * own

    def own_of(logits: Tensor, nll: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        ones = torch.ones_like(weights)
        return ones if in_step is None else in_step(logits, nll, targets, ones)

    def weigh(logits: Tensor, nll: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        found.append(raised(own_of(logits, nll, targets, weights)))
        return found[-1] * weights

    def choose(nll: Tensor, own: Tensor) -> Tensor:
        assert chosen is not None
        found.append(raised(chosen(nll, own if in_step is not None else torch.ones_like(own), batch)))
        return found[-1] * given

    if chosen is None:
        sums = losses(student, batch, weigh, weights=given)[0]
    else:
        sums = losses(student, batch, None if in_step is None else own_of, weights=given, choose=choose)[0]
    if use.rescale == "none":
        return sums
    # The loss is linear in the weights: scaling its sums spares the logits a second pass. Where a student's logits turn
    # out to be changed behind its head they are made twice, the second time for good.
    own = torch.cat(found)[-batch.num_targets :].to(sums.mass.dtype)
    factor = torch.where(own.sum() > 0, len(own) / own.sum(), 1.0)
    return sums._replace(
        weighted=sums.weighted * factor, mass=sums.mass * factor, squares=sums.squares * factor * factor
    )


def top_share(scores: Tensor, example_of: Tensor, share: float) -> Tensor:
    """1 for the share of each example's targets with the highest scores, at least one of them; 0 for the others.

    Of equal scores the earlier target comes first.

    Args:
        scores: [N].
        example_of: [N] index of the example, in ascending order.
        share: in (0, 1]; of n targets the smallest number that is at least share n is taken.

    Returns:
        [N], float.
    """
    falling = torch.argsort(scores, descending=True, stable=True)
    order = falling[torch.argsort(example_of[falling], stable=True)]
    counts = torch.bincount(example_of)
    starts = counts.cumsum(0) - counts
    place = torch.arange(len(scores), device=scores.device) - starts[example_of]  # of order[i] within its example
    wanted = (share * counts.double() - 1e-9).ceil().clamp(min=1)
    chosen = torch.zeros_like(scores, dtype=torch.float32)
    chosen[order] = (place < wanted[example_of]).float()
    return chosen

"""What is random in one update of the weight network: masks, Eq. (4), and prefixes, Eq. (5)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kpod_lightning.config import WeightsConfig
from kpod_lightning.keypoints.batches import KeypointBatch
from kpod_lightning.keypoints.prefixes import prefix_ends


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The random part of an update, for B rationales in L padded positions.

    random_mask: [B, L] 1 for tokens that are kept, of a random share of each row.
    chosen: [B, 1] rows whose mask comes from the weight network instead; none in the warm-up.
    uniform: [B, L] random numbers in [0, 1) from which the weight network's masks are sampled.
    ends, shares: [B, K] prefixes and how much each counts, see ``prefix_ends``.
    num_rows, num_chosen: rows and chosen rows of the whole batch, also where this is one rank's part of it.
    """

    random_mask: Tensor
    chosen: Tensor
    uniform: Tensor
    ends: Tensor
    shares: Tensor
    num_rows: int
    num_chosen: int

    def rows(self, part: slice) -> "Draws":
        """The part of one rank."""
        names = ("random_mask", "chosen", "uniform", "ends", "shares")
        return replace(self, **{name: getattr(self, name)[part] for name in names})


def draw_masks(batch: KeypointBatch, config: WeightsConfig, *, both_learn: bool, largest_masked: float = 1.0) -> Draws:
    """Draw masks and prefixes for a whole batch. Every rank draws the same, so that their number changes nothing.

    Args:
        batch: of all ranks.
        config: prefixes, and the share of rows that get a random mask though the weight network learns.
        both_learn: whether the weight network learns too; in the warm-up the answer model learns alone.
        largest_masked: the most of a rationale that a random mask hides on average, in [0, 1].
    """
    inside = batch.rationale_mask
    num_rows, device = len(inside), inside.device
    random_mask = random_masks(inside, largest_masked)
    chosen, uniform = torch.zeros(num_rows, 1, dtype=torch.bool, device=device), torch.zeros_like(random_mask)
    if both_learn:
        chosen = torch.rand(num_rows, 1, device=device) >= config.random_share
        uniform = torch.rand(inside.shape, device=device)
    ends, shares = prefix_ends(batch, config.prefixes, config.num_prefixes)
    return Draws(
        random_mask=random_mask,
        chosen=chosen,
        uniform=uniform,
        ends=ends,
        shares=shares,
        num_rows=num_rows,
        num_chosen=int(chosen.sum()),
    )


def random_masks(inside: Tensor, largest_masked: float) -> Tensor:
    """[B, L] masks: each row has a rate of its own, uniform in [0, ``largest_masked``], at which its tokens are hidden.

    Args:
        inside: [B, L]; gives shape and device.
        largest_masked: in [0, 1]; at 0 everything is kept.
    """
    rates = largest_masked * torch.rand(len(inside), 1, device=inside.device)
    return (torch.rand(inside.shape, device=inside.device) >= rates).float()

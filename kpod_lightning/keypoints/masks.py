"""Masks of rationale tokens, Eq. (4): the budget on their mean, hard and soft samples, the score-function surrogate."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# ---- Weights and masks ----


def budget_logits(scores: Tensor, mask: Tensor, share: float) -> Tensor:
    """Scores shifted in each row so that the mean of w = sigmoid(score - b) is ``share``.

    b is found by bisection. Its derivative is exact, by the implicit function theorem: db = Σ κ_j dg_j with
    κ_j ∝ w_j (1 - w_j).

    Args:
        scores: [B, L] g.
        mask: [B, L] tokens that count; every row has one.
        share: ρ in (0, 1).

    Returns:
        [B, L] g - b; positions outside ``mask`` hold arbitrary numbers.
    """
    with torch.no_grad():
        g = scores.double()
        shift = math.log(share / (1 - share))
        low = g.masked_fill(~mask, math.inf).amin(-1, keepdim=True) - shift
        high = g.masked_fill(~mask, -math.inf).amax(-1, keepdim=True) - shift
        count = mask.sum(-1, keepdim=True)
        for _ in range(60):  # halves an interval of at most 12 nats to less than the last bit
            offset = (low + high) / 2
            too_much = (torch.sigmoid(g - offset) * mask).sum(-1, keepdim=True) / count > share
            low, high = torch.where(too_much, offset, low), torch.where(too_much, high, offset)
        w = torch.sigmoid(g - offset)
        kappa = w * (1 - w) * mask
        kappa = (kappa / kappa.sum(-1, keepdim=True)).to(scores.dtype)
    # This sum has the value 0 and the gradient of b.
    moved = torch.where(mask, kappa * (scores - scores.detach()), 0.0).sum(-1, keepdim=True)
    return scores - (offset.to(scores.dtype) + moved)


def sample_masks(logits: Tensor, temperature: float, *, hard: bool = True, uniform: Tensor | None = None) -> Tensor:
    """Binary masks by the Gumbel softmax over the classes (kept, masked), Eq. (4).

    With two classes, log-probabilities log w and log(1 - w), the difference of their two Gumbel variables is logistic.

    Args:
        logits: log(w / (1 - w)).
        hard: values are 0 or 1, with the gradient of the relaxed sample (straight through); else the relaxed sample.
        uniform: the random numbers, in [0, 1); drawn here if not given.
    """
    uniform = (torch.rand_like(logits) if uniform is None else uniform).clamp(1e-6, 1 - 1e-6)
    soft = torch.sigmoid((logits + torch.logit(uniform)) / temperature)
    if not hard:
        return soft
    return (soft > 0.5).to(soft.dtype) + (soft - soft.detach())


def score_surrogate(
    losses: Tensor,
    masks: Tensor,
    logits: Tensor,
    inside: Tensor,
    *,
    total: float | None = None,
    count: int | None = None,
) -> Tensor:
    """A number whose gradient estimates that of the mean loss under masks drawn from w = sigmoid(logits).

    The score-function estimator ∇E[f(m)] = E[(f(m) - b) ∇ log P(m)], without bias for any f, however unsmooth; b is
    the mean loss of the other rows, which does not depend on the row's own mask.

    Args:
        losses: [B] f(m), one a row.
        masks: [B, L] the masks drawn, 0 or 1.
        logits: [B, L] log(w / (1 - w)), which get the gradient.
        inside: [B, L] tokens that were drawn.
        total: sum of the losses of the whole batch, if these rows are only one rank's part of it.
        count: number of rows of the whole batch.
    """
    losses, masks = losses.detach(), masks.detach()
    count = len(losses) if count is None else count
    if count < 2:
        return logits.sum() * 0.0  # a single row has no other to be compared with
    mean = (losses.sum() if total is None else total) / count
    advantage = (losses - mean) * count / (count - 1)
    log_probability = -F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    return (advantage * torch.where(inside, log_probability, 0.0).sum(1)).sum() / count


def top_share(weights: Tensor, mask: Tensor, share: float) -> Tensor:
    """[B, L] 1 for the ``share`` of each row's tokens with the largest weights (at least one), else 0."""
    count = (mask.sum(-1, keepdim=True) * share).round().clamp(min=1)
    order = weights.masked_fill(~mask, -math.inf).argsort(dim=-1, descending=True, stable=True)
    return ((order.argsort(-1) < count) & mask).to(weights.dtype)

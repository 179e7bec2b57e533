"""The loss of weight network and answer model, Eqs. (5)-(7), as plain functions."""

from collections.abc import Callable

import torch
from torch import Tensor

from kpod_lightning.config import WeightsConfig
from kpod_lightning.keypoints.draws import Draws
from kpod_lightning.keypoints.masks import score_surrogate

PAPER_ALPHA = 0.5
"""α of Eq. (7), appendix A."""


def prediction_losses(nll: Tensor, shares: Tensor, lengths: Tensor, normalise: str) -> Tensor:
    """[B] L_p of Eq. (5) of each rationale, in nats.

    Args:
        nll: [B, K] answer loss after each prefix that was drawn, in nats.
        shares: [B, K] how much each prefix counts; a row sums to 1.
        lengths: [B] tokens of the rationales, n.
        normalise: ``sum`` over the n + 1 prefixes, as the paper writes it; else their mean.
    """
    mean = (shares * nll).sum(1)
    return (lengths + 1) * mean if normalise == "sum" else mean


def size_losses(kept: Tensor, inside: Tensor, normalise: str) -> Tensor:
    """[B] L_m of Eq. (6) of each rationale: how much of it is kept.

    Args:
        kept: [B, L] masks, or the probabilities w of keeping a token.
        inside: [B, L] tokens of the rationale.
        normalise: ``sum`` over the n tokens, as the paper writes it; else their mean.
    """
    lengths = inside.sum(1)
    size = (kept * inside).sum(1)
    return lengths * size / lengths if normalise == "sum" else size / lengths


def keypoint_loss(
    nll: Tensor,
    mask: Tensor,
    inside: Tensor,
    draws: Draws,
    config: WeightsConfig,
    *,
    logits: Tensor | None = None,
    over_ranks: Callable[[float], float] = float,
) -> Tensor:
    """One rank's part of L_k, Eq. (7), the mean over the rows of the whole batch; the ranks' parts add up to it.

    With ``gradient=score`` a surrogate is added whose gradient is the weight network's; its value means nothing.

    Args:
        nll: [B, K] answer loss after each prefix of the masked rationale, in nats.
        mask: [B, L] the masks behind ``nll``.
        inside: [B, L] tokens of the rationale.
        draws: of the same rows.
        config: form of the loss, estimator of the gradient, α.
        logits: [B, L] log(w / (1 - w)) of the weight network; None in the warm-up, where L_p is all.
        over_ranks: sum of a number over the ranks; called on every rank if on any.
    """
    prediction = prediction_losses(nll, draws.shares, inside.sum(1), config.normalise)
    loss = prediction.sum() / draws.num_rows
    if logits is None:
        return loss
    if config.gradient == "score":
        rows = draws.chosen[:, 0]
        total = over_ranks(float(prediction.detach()[rows].sum()))
        parts = (prediction[rows], mask[rows], logits[rows], inside[rows])
        loss = loss + score_surrogate(*parts, total=total, count=draws.num_chosen)
    if config.form == "penalty":
        kept = torch.sigmoid(logits) if config.gradient == "score" else mask
        alpha = PAPER_ALPHA if config.alpha is None else config.alpha
        loss = loss + alpha * size_losses(kept, inside, config.normalise).sum() / draws.num_rows
    return loss

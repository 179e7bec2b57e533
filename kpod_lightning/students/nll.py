"""Token losses of a student: logits of the asked positions, their negative log-likelihood, and the sum of Eq. (15)."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from kpod_lightning.data.views import IGNORE, Batch
from kpod_lightning.students.student import Student


class LossSums(NamedTuple):
    """Sums over the targets of a micro-batch, each in float32 at least.

    ``weighted``: Σ w ℓ in nats, which is trained on. ``mass``: Σ w. ``nats``: Σ ℓ, without a gradient, which compares
    between methods whose weights differ.
    """

    weighted: Tensor
    mass: Tensor
    nats: Tensor


def logits_and_targets(student: Student, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Logits with the targets and weights that belong to the same positions.

    Encoder-decoder logits at t predict label t; decoder-only logits at t predict label t + 1, so they are shifted here,
    and only here. Positions before the first target of the batch get no logits: the head takes a large part of a
    small student's time, and the logits a large part of a large student's memory.

    Returns:
        logits [B, T', V], targets [B, T'], weights [B, T']: from the first target of the batch on.
    """
    if student.encoder_decoder:
        output = student.model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            decoder_input_ids=student.model.prepare_decoder_input_ids_from_labels(labels=batch.labels),
            use_cache=False,
        )
        return output.logits, batch.labels, batch.weights
    first = batch.first_target
    kept = batch.input_ids.shape[1] - first + 1  # the last prompt token predicts the first target
    output = student.model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, logits_to_keep=kept, use_cache=False
    )
    return output.logits[:, -kept:-1], batch.labels[:, first:], batch.weights[:, first:]


def token_nll(logits: Tensor, targets: Tensor, ignore_index: int = IGNORE) -> Tensor:
    """Loss ℓ_j of each token: the negative log-likelihood of its target in nats, 0 where there is no target.

    Args:
        logits: [..., T, V]; position t predicts ``targets[t]``: the two are aligned, nothing is shifted here.
        targets: [..., T] token ids, or ``ignore_index``.

    Returns:
        [..., T], in float32 at least: bfloat16 has three digits.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    flat = logits.reshape(-1, logits.shape[-1]).to(wide)
    nll = F.cross_entropy(flat, targets.reshape(-1), ignore_index=ignore_index, reduction="none")
    return nll.view(targets.shape)


def weighted_token_nll(logits: Tensor, targets: Tensor, weights: Tensor, ignore_index: int = IGNORE) -> LossSums:
    """Weighted negative log-likelihood of the targets, Eq. (15), summed over tokens.

    Args:
        logits: [..., T, V]; position t predicts ``targets[t]``: the two are aligned, nothing is shifted here.
        targets: [..., T] token ids, ``ignore_index`` where there is no target.
        weights: [..., T] w_j; read only where there is a target.

    Returns:
        The sums, in float32 at least: a sum of thousands of terms in bfloat16 would lose most of them.
    """
    nll = token_nll(logits, targets, ignore_index)
    kept = torch.where(targets != ignore_index, weights.to(nll.dtype), 0.0)
    return LossSums((kept * nll).sum(), kept.sum(), nll.detach().sum())

"""Losses of a student's targets, Eq. (15): a forward pass in which the head sees what predicts a target, and no more.

Padding, prompts and input steps ask nothing, and the head is a large part of a small student's time; so its input is
cut to the targets here, in one place for training, step difficulties, and every method.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kpod_lightning.data.views import IGNORE, Batch
from kpod_lightning.students.forward import run
from kpod_lightning.students.last_block import feed_forward_at
from kpod_lightning.students.linear_nll import LossSums, Weigh, linear_nll, scored
from kpod_lightning.students.student import Student

Choose = Callable[[Tensor, Tensor], Tensor]
"""From losses [N] and weights [N] of all targets of a batch to the weights [N] that they get."""

# ---- The head ----


@contextmanager
def head_of(student: Student, batch: Batch, compute: Any = None) -> Iterator[None]:
    """Within the block the head sees the hidden states [1, N, D] which predict the batch's targets.

    Encoder-decoder states at t predict label t; decoder-only states at t predict label t + 1, so they are shifted here,
    and only here.

    Args:
        compute: what stands in for the head, from [N, D]; its result is what the student gives as logits.
    """
    places = batch.asked if student.encoder_decoder else batch.asked - 1
    head = student.model.get_output_embeddings()
    seen: list[Tensor] = []

    def before(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        chosen = args[0].flatten(0, 1)[places][None]
        seen.append(chosen[0])
        return (chosen if compute is None else chosen[:, :0],)

    def after(_: nn.Module, args: tuple[Tensor], logits: Tensor) -> Tensor | None:
        computed: Tensor | None = None if compute is None else compute(head, seen.pop())
        return computed

    # Behind the last attention no position reads another, so what is not asked needs no feed-forward part there.
    packed = batch.lengths is not None and not student.encoder_decoder
    hooks = [head.register_forward_pre_hook(before), head.register_forward_hook(after)]
    try:
        with feed_forward_at(student.model, places) if packed else nullcontext():
            yield
    finally:
        for hook in hooks:
            hook.remove()


def logits_and_targets(student: Student, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of the targets with what they are to predict, for losses that need whole distributions.

    Returns:
        logits [N, V], targets [N], weights [N], over all targets of the batch, example by example.
    """
    with head_of(student, batch):
        logits = run(student, batch).logits
    return logits[0], batch.targets, batch.target_weights


# ---- Losses ----


def losses(
    student: Student,
    batch: Batch,
    weigh: Weigh | None = None,
    *,
    weights: Tensor | None = None,
    choose: Choose | None = None,
) -> tuple[LossSums, Tensor]:
    """Weighted loss of the targets, Eq. (15), without their logits in memory where the student's head allows it.

    Args:
        weigh: weights that follow from what the student predicts of a token, see ``linear_nll``.
        weights: [N] of the targets; None: the batch's.
        choose: weights that follow from the losses of all targets of the batch together: from losses [N] and weights
            [N], both without a gradient, to weights [N]. Where ``weigh`` is given as well, its weights are what is
            chosen from, and the logits are made twice.

    Returns:
        The sums, and the losses [N] in nats, without a gradient, example by example.
    """
    return losses_and_logits(student, batch, None, weigh, weights=weights, choose=choose)[:2]


def losses_and_logits(
    student: Student,
    batch: Batch,
    rows: Tensor | None,
    weigh: Weigh | None = None,
    *,
    weights: Tensor | None = None,
    choose: Choose | None = None,
) -> tuple[LossSums, Tensor, Tensor]:
    """As ``losses``, in the same forward pass with the logits of a few targets, for losses that compare distributions.

    Args:
        rows: [R] which of the N targets; None: none of them.
        weigh, weights, choose: those of ``losses``.

    Returns:
        The sums, the losses [N], and logits [R, V] of which row r predicts target ``rows[r]``; they have a gradient.
    """
    given = batch.target_weights if weights is None else weights
    rows = batch.asked[:0] if rows is None else rows
    if student.ends_with_head and type(student.model.get_output_embeddings()) is nn.Linear:
        found: list[tuple[LossSums, Tensor, Tensor]] = []

        def compute(head: nn.Linear, hidden: Tensor) -> Tensor:
            last, used = weigh, given
            if choose is not None:
                scores, nll = scored(hidden, head.weight, head.bias, batch.targets, used, weigh)
                last, used = None, choose(nll, scores)
            few = F.linear(hidden[rows], head.weight, head.bias) if len(rows) else hidden.new_empty(0, len(head.weight))
            found.append((*linear_nll(hidden, head.weight, head.bias, batch.targets, used, last), few))
            return found[0][0].weighted

        with head_of(student, batch, compute):
            output = run(student, batch).logits
        if output is found[0][0].weighted:
            return found[0]
        student.ends_with_head = False  # logits are scaled or capped behind it, as Gemma 2 and Granite do
    logits, targets, _ = logits_and_targets(student, batch)
    nll = token_nll(logits, targets)
    if weigh is not None:
        given = weigh(logits.detach(), nll.detach(), targets, given)
    if choose is not None:
        given = choose(nll.detach(), given)
    return weighted_sums(nll, given), nll.detach(), logits[rows]


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


def weighted_sums(nll: Tensor, weights: Tensor) -> LossSums:
    """Sums of losses of targets that all count, in the type of the losses."""
    weights = weights.to(nll.dtype)
    return LossSums((weights * nll).sum(), weights.sum(), (weights * weights).sum(), nll.detach().sum())


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
    return weighted_sums(nll, torch.where(targets != ignore_index, weights.to(nll.dtype), 0.0))

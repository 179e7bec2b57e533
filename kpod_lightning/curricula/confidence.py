"""Confidence of a student in the targets of a batch: how little their losses vary under dropout."""

from contextlib import nullcontext

import torch
from torch import Tensor

from kpod_lightning.data.batches import seed_batch
from kpod_lightning.data.views import Batch
from kpod_lightning.students.dropout import dropout_in_blocks
from kpod_lightning.students.nll import losses
from kpod_lightning.students.student import Student


def losses_under_dropout(student: Student, batch: Batch, *, num_passes: int, rate: float | None, seed: int) -> Tensor:
    """[num_passes, N] losses of the batch's targets in nats, each pass with other dropout, without a gradient.

    What is dropped depends on (seed, epoch, the batch's examples, pass) alone, and the generators of the training stay
    where they are: neither a resume nor these passes change what the training draws.

    Args:
        student: in training mode, so that its own dropout is on.
        rate: of dropout in the blocks of a student that has none of its own; None: it has.
    """
    device = batch.input_ids.device
    dropout = nullcontext() if rate is None else dropout_in_blocks(student.model, rate)
    passes = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad(), dropout:
        for number in range(num_passes):
            seed_batch(seed, batch.epoch, number, *batch.positions)
            passes.append(losses(student, batch)[1])
    return torch.stack(passes)


def confidences(nll: Tensor, example_of: Tensor, num_examples: int, exponent: float) -> Tensor:
    """Confidence f = c · C of each target of a batch, Wan et al. (2020).

    A pass m gives log p_m(t_j) = -nll. u_mj is it over the least one of the batch, which lies in [0, 1], and
    c_j = (1 - Var_m u_mj)^k with the unbiased variance. C_i is the same of the sums over the targets of an example.

    Args:
        nll: [M, N] losses in nats, M at least 2.
        example_of: [N] in [0, num_examples).
        exponent: k.

    Returns:
        [N], in [0, 1].
    """
    of_examples = nll.new_zeros(len(nll), num_examples).index_add_(1, example_of, nll)
    of_tokens, of_examples = ((1.0 - _of_least(values).var(0)) ** exponent for values in (nll, of_examples))
    return of_tokens * of_examples[example_of]


def _of_least(nll: Tensor) -> Tensor:
    """[M, n] each log-probability as a share of the least one of its pass; 0 where all are 0."""
    return nll / nll.amax(1, keepdim=True).clamp_min(torch.finfo(nll.dtype).tiny)


def normalised(values: Tensor, how: str) -> Tensor:
    """Factors [N] from confidences [N]; those of ``softmax`` and ``mean`` have the mean 1.

    Args:
        how: softmax (N times the softmax of all of the batch), mean (over their mean), or none.
    """
    if how == "softmax":
        return len(values) * values.softmax(0)
    return values / values.mean() if how == "mean" else values

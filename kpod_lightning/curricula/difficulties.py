"""Step difficulties: how hard each step is for the student before distillation, Eq. (8)."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from kpod_lightning.data.examples import Example


def step_difficulties(nll: Tensor, weights: Tensor, step_of: Tensor, num_steps: int) -> Tensor:
    """Difficulty of each step of one rationale, Eq. (8): d_k = Σ ŵ_j ℓ_j over the tokens of step k.

    ŵ is the softmax of w within the step, so a difficulty is a weighted mean of token losses and does not grow with
    the length of the step. A weight lies in (0, 1), so two tokens of a step differ at most by a factor e; equal
    weights give the plain mean, which is the ablation "w/o sig in difficulty".

    Args:
        nll: [T] loss ℓ_j of each rationale token under the student before distillation, in nats.
        weights: [T] probability w_j of keeping each token, Eq. (3).
        step_of: [T] index of the token's step, in [0, num_steps); every step has a token.
        num_steps: n_i in the paper.

    Returns:
        [num_steps] difficulties d_k, in nats.

    Raises:
        ValueError: shapes differ, a step has no token, or a loss or weight is not finite.
    """
    if not nll.shape == weights.shape == step_of.shape or nll.ndim != 1:
        raise ValueError(f"nll, weights and step_of are all [T], got {nll.shape}, {weights.shape}, {step_of.shape}")
    if num_steps < 1:
        raise ValueError(f"a rationale has at least one step, got num_steps = {num_steps}")
    if not (torch.isfinite(nll).all() and torch.isfinite(weights).all()):
        raise ValueError("a token's loss or weight is not finite")
    # Subtracting the largest weight changes no quotient and keeps exp from overflowing, whatever the weights.
    mass = (weights - weights.amax()).exp().to(nll.dtype) if len(weights) else weights
    total = mass.new_zeros(num_steps).index_add_(0, step_of, mass)
    if not (total > 0).all():
        raise ValueError(f"step {int((total > 0).int().argmin())} of {num_steps} has no token")
    return mass.new_zeros(num_steps).index_add_(0, step_of, mass * nll) / total


def difficulties_of(
    examples: Sequence[Example],
    nll: Sequence[np.ndarray],
    weights: Sequence[np.ndarray] | None,
) -> Iterator[np.ndarray]:
    """Step difficulties of every example.

    Args:
        examples: the train set's.
        nll: losses of each example's target tokens, in nats; those of the answer phrase are not used.
        weights: [n] w_j of each example's rationale tokens; None: all weigh the same.

    Yields:
        One [num_steps] float64 array an example.

    Raises:
        ValueError: a loss is not finite, or a step has no token.
    """
    for position, example in enumerate(examples):
        n = example.num_rationale_tokens
        losses = torch.tensor(nll[position][:n], dtype=torch.float64)
        w = torch.ones_like(losses) if weights is None else torch.tensor(weights[position], dtype=torch.float64)
        try:
            row = step_difficulties(losses, w, torch.tensor(example.step_of[:n]), example.num_steps)
        except ValueError as error:
            raise ValueError(f"problem {example.key[0]}, rationale {example.key[1]}: {error}") from error
        yield row.numpy()

"""Weighted loss from hidden states and head, a few tokens at a time: the logits of all targets are never held at once.

For one token with logits z = W h + b and weight w, ∂(w ℓ)/∂z = w (softmax z - onehot y). So the gradients for h, W and
b are made in the same pass as the losses, and a chunk of logits is let go before the next is made.

``torch.nn.functional.linear_cross_entropy`` knows weights of classes, not of tokens: with ``reduction="none"`` it makes
the logits a second time in the backward pass, and was 1.2 to 1.4 times slower than this at vocabularies of 6,600 to
152,000 (torch 2.13, CPU). Liger and cut-cross-entropy need a GPU.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK_BYTES = {"cpu": 2**26, "cuda": 2**28}
"""Most bytes of float32 logits at a time. On a CPU few stay in its caches; on a GPU small products are slow."""

Weigh = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""From logits [n, V], losses [n], targets [n] and weights [n] of some tokens to the weights [n] that they get."""


class LossSums(NamedTuple):
    """Sums over the targets of a micro-batch, each in float32 at least.

    ``weighted``: Σ w ℓ in nats, which is trained on, with what a method adds to it. ``mass``: Σ w. ``squares``: Σ w².
    ``nats``: Σ ℓ, without a gradient, which compares between methods whose weights differ. ``more``: a method's own
    sums, by the names of ``Method.sums``.
    """

    weighted: Tensor
    mass: Tensor
    squares: Tensor
    nats: Tensor
    more: Mapping[str, Tensor] = MappingProxyType({})


def linear_nll(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, weights: Tensor, weigh: Weigh | None = None
) -> tuple[LossSums, Tensor]:
    """Weighted negative log-likelihood of the targets, Eq. (15), from hidden states and the matrix of the head.

    Within ``torch.autocast`` products are made in its type, as a linear map would; losses, weights and sums are float32
    at least.

    Args:
        hidden: [N, D]; row j predicts ``targets[j]``.
        weight: [V, D].
        bias: [V] or None.
        targets: [N] token ids; each is a target.
        weights: [N] w_j, any numbers.
        weigh: weights that follow from what the student predicts; it is called once for each chunk of tokens.

    Returns:
        The sums, of which ``weighted`` has a gradient for hidden, weight and bias, once; and the losses [N] in nats,
        without one.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        kind = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(kind), weight.to(kind)
        bias = None if bias is None else bias.to(kind)
    if not torch.is_grad_enabled():  # inside the function nothing tells: it would make gradients that nobody asks for
        hidden, weight, bias = hidden.detach(), weight.detach(), None if bias is None else bias.detach()
    weighted, mass, squares, nll = _LinearNLL.apply(hidden, weight, bias, targets, weights, weigh)
    return LossSums(weighted, mass, squares, nll.sum()), nll


def scored(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, weights: Tensor, weigh: Weigh | None
) -> tuple[Tensor, Tensor]:
    """What ``linear_nll`` weighs each target, and its loss, both [N], without a gradient for anything.

    Args: as those of ``linear_nll``.
    """
    found: list[Tensor] = []

    def keep(logits: Tensor, nll: Tensor, few: Tensor, given: Tensor) -> Tensor:
        found.append(given if weigh is None else weigh(logits, nll, few, given))
        return found[-1]

    with torch.no_grad():
        _, nll = linear_nll(hidden, weight, bias, targets, weights, keep)
    return torch.cat(found), nll


class _LinearNLL(torch.autograd.Function):
    """Σ w ℓ with the gradients made on the way; see ``linear_nll``."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        weights: Tensor,
        weigh: Weigh | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        for_hidden, for_weight, for_bias = ctx.needs_input_grad[:3]
        ctx.kinds = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        ctx.grads = (
            torch.empty_like(hidden) if for_hidden else None,
            torch.zeros_like(weight, dtype=wide) if for_weight else None,
            torch.zeros_like(bias, dtype=wide) if for_bias and bias is not None else None,
        )
        grad_hidden, grad_weight, grad_bias = ctx.grads
        nll = torch.empty(len(hidden), dtype=wide, device=hidden.device)
        used = weights.to(wide)
        if weigh is not None:
            used = used.clone()
        chunks = _chunks(len(hidden), len(weight), hidden.device.type)
        # One buffer for all chunks: memory that is new to the process costs a quarter of the product that fills it.
        buffer = hidden.new_empty(max(chunk.stop - chunk.start for chunk in chunks), len(weight))
        with torch.autocast(hidden.device.type, enabled=False):
            for rows in chunks:
                few, asked = hidden[rows], targets[rows, None]
                logits = buffer[: len(few)]
                if bias is None:
                    torch.mm(few, weight.T, out=logits)
                else:
                    torch.addmm(bias, few, weight.T, out=logits)
                logits = logits.to(wide)
                peak = logits.amax(1, keepdim=True)
                at_target = logits.gather(1, asked)
                # In place unless ``weigh`` is to read the logits: a chunk of them is the largest thing here.
                mass = (logits - peak if weigh is not None else logits.sub_(peak)).exp_()
                total = mass.sum(1, keepdim=True)
                nll[rows] = (total.log() + peak - at_target)[:, 0]
                if weigh is not None:
                    used[rows] = weigh(logits, nll[rows], targets[rows], used[rows]).to(wide)
                if not any(ctx.needs_input_grad[:3]):
                    continue
                w = used[rows, None]
                error = mass.mul_(w / total).scatter_add_(1, asked, -w)  # w (softmax z - onehot y)
                if grad_bias is not None:
                    grad_bias += error.sum(0)
                error = error.to(hidden.dtype)
                if grad_hidden is not None:
                    torch.mm(error, weight, out=grad_hidden[rows])
                if grad_weight is not None and grad_weight.dtype == error.dtype:
                    grad_weight.addmm_(error.T, few)
                elif grad_weight is not None:
                    grad_weight += error.T @ few
        weighted, mass_of_weights, squares = (used * nll).sum(), used.sum(), (used * used).sum()
        ctx.mark_non_differentiable(mass_of_weights, squares, nll)
        return weighted, mass_of_weights, squares, nll

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.grads is None:
            raise RuntimeError("the gradients of this loss were used: they are kept for one backward pass")
        grads, ctx.grads = ctx.grads, None
        scaled = [
            None if grad is None else grad.mul_(grad_outputs[0]).to(kind)
            for grad, kind in zip(grads, ctx.kinds, strict=True)
        ]
        return *scaled, None, None, None


def _chunks(num_tokens: int, vocabulary: int, device: str) -> list[slice]:
    """Slices of the tokens, as even as they get, of at most ``CHUNK_BYTES`` of logits each."""
    most = max(1, CHUNK_BYTES.get(device, CHUNK_BYTES["cuda"]) // (4 * vocabulary))
    num = max(1, -(-num_tokens // most))
    return [slice(num_tokens * i // num, num_tokens * (i + 1) // num) for i in range(num)]

"""The last block of a decoder, whose feed-forward part is computed only where its result is asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


def last_feed_forward(model: Any) -> nn.Module | None:
    """The feed-forward part of the last block, if it computes every position by itself; else None.

    None too where it is not clear which block is the last (a model of text and images), where the part holds more than
    linear maps (experts, whose routing may compare tokens), and where activations are computed again in the backward
    pass.
    """
    if model.training and any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        return None
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and all(hasattr(b, "mlp") for b in m)]
    if len(stacks) != 1 or not len(stacks[0]):
        return None
    part = stacks[0][-1].get_submodule("mlp")
    linear = {id(p) for m in part.modules() if isinstance(m, nn.Linear | Conv1D) for p in m.parameters()}
    return part if linear and all(id(p) in linear for p in part.parameters()) else None


@contextmanager
def feed_forward_at(model: Any, positions: Tensor) -> Iterator[None]:
    """Within the block the last feed-forward part is computed at some positions alone; the others get zeros from it.

    Behind the last attention no position reads another, so the final hidden states at these positions are what they
    are without this, and those at the others mean nothing. In a small model the part is a sixth of a step.

    Args:
        positions: [N] of the model's input, the same ones in every row; ascending.
    """
    part = last_feed_forward(model)
    if part is None:
        yield
        return
    shapes: list[Any] = []

    def before(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        if shapes:
            raise RuntimeError(f"{type(model).__name__} runs its last block more than once in a pass")
        shapes.append(args[0].shape)
        return (args[0].index_select(1, positions),)

    def after(_: nn.Module, args: tuple[Tensor], result: Tensor) -> Tensor:
        return result.new_zeros(shapes[0]).index_copy(1, positions, result)

    hooks = [part.register_forward_pre_hook(before), part.register_forward_hook(after)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

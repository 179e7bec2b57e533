"""Dropout for students that have none: on what each block adds to the hidden states, for some passes alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


def has_dropout(model: nn.Module) -> bool:
    """Whether a pass of the model in training mode drops anything: a dropout layer's rate, or one of attention."""
    return any(
        isinstance(rate, float) and rate > 0 and (name == "p" if isinstance(module, nn.Dropout) else "drop" in name)
        for module in model.modules()
        for name, rate in vars(module).items()
    )


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The blocks of all stacks of a model, of encoder and decoder alike: lists of modules that lie in no other list."""
    stacks = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    return [
        block
        for name, stack in stacks.items()
        if not any(name.startswith(f"{other}.") for other in stacks)
        for block in stack
    ]


@contextmanager
def dropout_in_blocks(model: nn.Module, rate: float) -> Iterator[None]:
    """Within the block each block of the model adds to the hidden states what dropout leaves of it.

    It is where T5 and GPT-2 have theirs. The hidden states that pass a block by are left alone: a dropped dimension
    would else be missing in all later blocks.

    Args:
        rate: share of the numbers that are dropped.
    """

    def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        before: Tensor = args[0] if args else kwargs["hidden_states"]
        whole = output[0] if isinstance(output, tuple) else output
        dropped = before + F.dropout(whole - before, rate)
        return (dropped, *output[1:]) if isinstance(output, tuple) else dropped

    hooks = [block.register_forward_hook(after, with_kwargs=True) for block in blocks_of(model)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

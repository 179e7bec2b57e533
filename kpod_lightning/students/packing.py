"""Packing: examples end to end in one row, without padding, where each attends to itself alone.

Everything in a transformer but attention works on single tokens, so a packed row gives what the examples give one by
one if attention is called for each by itself and positions start anew with each. ``packed_attention`` does that under
the name of an attention implementation of transformers. Whether a student's other layers allow it is tried out, in
``forward.py``.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from kpod_lightning.data.views import Lengths

NAME = "sdpa_packed"
"""Of the attention implementation, which is torch's scaled dot product where a batch is not packed."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    lengths: Lengths | None = None,
    position_bias: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention of every packed example to itself, or to its own encoder states.

    Args:
        module: the layer that calls; ``is_causal`` and, for T5, ``is_decoder`` are read.
        query: [1, H, ΣQ, D]; key and value: [1, H', ΣK, D].
        attention_mask: of an unpacked batch.
        lengths: of the examples; None: the batch is not packed.
        position_bias: T5's, [1, H, Q, K] of at least the longest example; the same for all examples.

    Returns:
        [1, ΣQ, H, D], and None, as every attention implementation of transformers.
    """
    if lengths is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, position_bias=position_bias, **others)
    queries, keys = lengths_of_call(module, lengths)
    if _has_kernel(query, position_bias, others):
        return _by_kernel(module, query, key, value, queries, keys, others), None
    outputs = []
    parts = zip(query.split(queries, 2), key.split(keys, 2), value.split(keys, 2), strict=True)
    for q, k, v in parts:
        bias = None if position_bias is None else position_bias[:, :, : q.shape[2], : k.shape[2]]
        outputs.append(sdpa_attention_forward(module, q, k, v, None, position_bias=bias, **others)[0])
    return torch.cat(outputs, dim=1), None


def lengths_of_call(module: nn.Module, lengths: Lengths) -> tuple[list[int], list[int]]:
    """Lengths of the queries and of the keys of each example, in a layer of an encoder or a decoder."""
    inputs, targets = list(lengths.inputs), list(lengths.targets)
    if not getattr(module, "is_decoder", False) or not hasattr(module, "has_relative_attention_bias"):
        return inputs, inputs  # an encoder, or a decoder-only student
    return (targets, targets) if module.is_causal else (targets, inputs)


def _has_kernel(query: Tensor, position_bias: Tensor | None, others: dict[str, Any]) -> bool:
    """Whether torch's own kernel for rows of many lengths takes this call: a GPU, half precision, nothing added."""
    half = query.dtype in (torch.bfloat16, torch.float16)
    return query.is_cuda and half and position_bias is None and not others.get("dropout") and query.shape[-1] <= 256


@lru_cache(maxsize=8)
def _starts(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """[N + 1] where each example starts, and the end; all layers of a pass ask for the same ones."""
    return torch.tensor([0, *lengths]).cumsum(0).int().to(device)


def _by_kernel(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    queries: list[int],
    keys: list[int],
    others: dict[str, Any],
) -> Tensor:
    """As ``packed_attention``, in one call for all examples."""
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (states[0].transpose(0, 1).contiguous() for states in (query, key, value))
    causal = others.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    output = varlen_attn(
        q,
        k,
        v,
        _starts(tuple(queries), query.device),
        _starts(tuple(keys), query.device),
        max(queries),
        max(keys),
        scale=others.get("scaling"),
        window_size=(-1, 0) if causal else (-1, -1),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(output, Tensor)
    return output[None]


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def _one_bias_for_all(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
    """Give T5's attention the bias of the longest example: it depends on distances alone, and a packed row's is huge.

    It runs as a hook of the attention, whose layers hand on the bias that the first of them has made.
    """
    lengths = kwargs.get("lengths")
    if lengths is None or kwargs.get("position_bias") is not None:
        return None
    queries, keys = lengths_of_call(module, lengths)
    longest_query, longest_key = max(queries), max(keys)
    if module.has_relative_attention_bias:
        bias = module.compute_bias(longest_query, longest_key, device=args[0].device)
    else:
        bias = args[0].new_zeros(1, 1, 1, 1).expand(1, module.n_heads, longest_query, longest_key)
    return args, kwargs | {"position_bias": bias}


def prepare_packing(model: Any) -> None:
    """Let a model take packed rows; what it computes of padded ones stays the same."""
    model.set_attn_implementation(NAME)
    for module in model.modules():
        if hasattr(module, "compute_bias") and hasattr(module, "has_relative_attention_bias"):
            module.register_forward_pre_hook(_one_bias_for_all, with_kwargs=True)

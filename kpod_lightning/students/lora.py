"""Which maps of a model LoRA adapts: every linear one inside its blocks, found by structure and not by name."""

import re
from collections import Counter
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from kpod_lightning.store.errors import InputError

IN_BLOCK = re.compile(r"\.\d+\.")
"""Blocks stand in lists, so the names of what they hold have a number in them."""


def linear_maps(model: Any, name: str) -> dict[str, nn.Module]:
    """The linear maps (``nn.Linear`` and GPT-2's ``Conv1D``) in the blocks of a model, by their full names.

    Embeddings, the head and maps outside of the blocks are none of them. KPOD follows MCC-KD, which adapts all maps.

    Raises:
        InputError: there is none; or weights of the blocks are held in another form, so that LoRA would adapt a part of
            them only (experts that are one tensor).
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    found: dict[str, nn.Module] = {}
    for place, module in model.named_modules():
        if not IN_BLOCK.search(place) or module is head:
            continue
        if isinstance(module, (nn.Linear, Conv1D)):
            found[place] = module
            continue
        for kind, weights in module.named_parameters(recurse=False):
            if weights.ndim >= 3 and not isinstance(module, (nn.Conv1d, nn.Conv2d)):
                raise InputError(
                    f"student {name}: {place}.{kind} holds several linear maps in one tensor (experts), which LoRA "
                    "would leave out; set student.lora_rank=null"
                )
    if not found:
        raise InputError(f"student {name}: its blocks have no linear map to adapt; set student.lora_rank=null")
    return found


def said(maps: dict[str, nn.Module], rank: int) -> str:
    """One line that names the adapted maps."""
    counts = Counter(place.rpartition(".")[2] for place in maps)
    listed = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    return f"LoRA of rank {rank} adapts {len(maps)} linear maps: {listed}"


def transposed(model: Any) -> set[str]:
    """Names of the maps whose weight is [in, out] (``Conv1D``), and not [out, in] as that of ``nn.Linear``."""
    return {place for place, module in model.named_modules() if isinstance(module, Conv1D)}

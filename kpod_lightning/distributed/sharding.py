"""Fully sharded data parallelism (FSDP2): parameters, gradients and optimiser states spread over the ranks.

Every module with parameters is sharded: one that is not would get no gradient of the other ranks, and no error.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from kpod_lightning.config import LaunchConfig


def blocks_of(model: Any) -> Iterator[nn.Module]:
    """The blocks that transformers says are not to be split, e.g. every LlamaDecoderLayer."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    names = set(getattr(base, "_no_split_modules", None) or ())
    return (module for module in model.modules() if type(module).__name__ in names)


def recompute_activations(model: Any) -> None:
    """Keep only what enters a block, and compute the rest again in the backward pass."""
    model.activation_checkpointing_enable({"use_reentrant": False})


def shard(
    root: nn.Module,
    model: nn.Module,
    mesh: DeviceMesh | None,
    launch: LaunchConfig,
    precision: str,
    methods: Sequence[str] = (),
) -> None:
    """Shard the blocks of ``model`` one by one, and all else of ``root`` together; without a mesh nothing is sharded.

    Parameters are gathered for a block's forward and backward pass alone, and those of the root for its own.

    Args:
        methods: of ``root``, that compute like ``forward`` and so need its parameters gathered.
    """
    if mesh is None or isinstance(root, FSDPModule):
        return
    # With bf16-mixed the gathered copies are bfloat16, which halves what is sent; sums of gradients stay float32.
    mixed = {"param_dtype": torch.bfloat16, "reduce_dtype": torch.float32} if precision == "bf16-mixed" else {}
    settings: dict[str, Any] = {
        "mesh": mesh["data_parallel"],
        "mp_policy": MixedPrecisionPolicy(**mixed),  # type: ignore[arg-type]
        "offload_policy": CPUOffloadPolicy() if launch.cpu_offload else OffloadPolicy(),
    }
    for block in blocks_of(model):
        fully_shard(block, **settings)
    fully_shard(root, **settings)
    for method in methods:
        register_fsdp_forward_method(root, method)

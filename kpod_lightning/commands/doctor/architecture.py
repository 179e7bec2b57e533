"""Shape of a model: the widths, depths and numbers of parameters from which its memory is computed."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from kpod_lightning.store.errors import InputError
from kpod_lightning.students.forward import narrow_window
from kpod_lightning.students.lora import IN_BLOCK
from kpod_lightning.students.student import load_config

_LLAMA = {"model_type": "llama", "hidden_act": "silu"}

_FLAN_T5 = {
    "model_type": "t5",
    "feed_forward_proj": "gated-gelu",
    "vocab_size": 32128,
    "d_kv": 64,
    "dropout_rate": 0.1,
    "tie_word_embeddings": False,
}

SHAPES: dict[str, dict[str, Any]] = {
    "llama-7b": _LLAMA
    | {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "llama-3.2-1b": _LLAMA
    | {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "tie_word_embeddings": True,
    },
    "qwen3-0.6b": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
    "smollm2-135m": _LLAMA
    | {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
    "smollm2-360m": _LLAMA
    | {
        "vocab_size": 49152,
        "hidden_size": 960,
        "intermediate_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
        "tie_word_embeddings": True,
    },
    "flan-t5-base": _FLAN_T5 | {"d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12},
    "flan-t5-large": _FLAN_T5 | {"d_model": 1024, "d_ff": 2816, "num_layers": 24, "num_heads": 16},
    "flan-t5-xl": _FLAN_T5 | {"d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_heads": 32},
}
"""Shapes of the presets, from their published ``config.json``: plans need no network."""

ACTIVATION_TENSORS = {"gelu_new": 5, "silu": 2, "gelu": 2, "relu": 1}
"""Tensors of the feed-forward width that autograd keeps for an activation, its result among them. transformers computes
gelu_new step by step and keeps x, tanh, 1 + tanh, x / 2 and the product."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Shape of a model, and its parameters as counted on the model itself."""

    encoder_decoder: bool
    vocabulary: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_width: int
    layers: int
    """Of the decoder-only model, or of the encoder."""
    decoder_layers: int
    activation: str
    gated: bool
    normed_heads: bool
    """Queries and keys are normalised (Qwen3)."""
    dropout: float
    tied: bool
    """The head is the input embedding."""
    parameters: int
    block_parameters: int
    """Of the largest block, FSDP's unit."""
    all_block_parameters: int
    linear_parameters: int
    """Of all linear maps, the head included; autocast makes lower-precision copies of these."""
    largest_parameter: int
    packs: bool
    """Whether its attention reaches over a whole row, so that a training packs rows; see ``students/forward.py``."""
    lora_ranked: int
    """Σ (inputs + outputs) of the linear maps that LoRA adapts; times the rank it is LoRA's number of parameters."""

    @property
    def num_blocks(self) -> int:
        return self.layers + self.decoder_layers


def shape_of(config: Any, source: str) -> dict[str, Any]:
    """Width, depth and heads from a transformers configuration.

    Raises:
        InputError: a family that the plan does not know.
    """
    if config.model_type == "t5":
        return {
            "hidden": config.d_model,
            "intermediate": config.d_ff,
            "heads": config.num_heads,
            "kv_heads": config.num_heads,
            "head_width": config.d_kv,
            "layers": config.num_layers,
            "decoder_layers": config.num_decoder_layers,
            "activation": config.dense_act_fn,
            "gated": config.is_gated_act,
            "normed_heads": False,
            "dropout": config.dropout_rate,
        }
    if not (hasattr(config, "intermediate_size") and hasattr(config, "num_key_value_heads")):
        raise InputError(f"{source}: memory is planned for Llama-like models and T5, not for {config.model_type}")
    return {
        "hidden": config.hidden_size,
        "intermediate": config.intermediate_size,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "head_width": getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        "layers": config.num_hidden_layers,
        "decoder_layers": 0,
        "activation": config.hidden_act,
        "gated": True,
        "normed_heads": config.model_type == "qwen3",
        "dropout": 0.0,
    }


def architecture(config: Any, source: str = "student") -> Architecture:
    """Shape of a configuration, and parameters counted on its model, which is built without memory (device meta).

    Raises:
        InputError: a family that the plan does not know.
    """
    shape = shape_of(config, source)
    if shape["activation"] not in ACTIVATION_TENSORS:
        raise InputError(f"{source}: memory is not planned for the activation {shape['activation']}")
    family = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device("meta"):
        model = family.from_config(config)
        if not getattr(config, "scale_decoder_outputs", True):  # T5 1.1: its checkpoints have a head of their own
            model.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
    maps = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    blocks = [
        sum(parameter.numel() for parameter in module.parameters())
        for module in model.modules()
        if type(module).__name__ in (model._no_split_modules or ())
    ]
    return Architecture(
        encoder_decoder=config.is_encoder_decoder,
        vocabulary=config.vocab_size,
        tied=model.get_output_embeddings().weight is model.get_input_embeddings().weight,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        block_parameters=max(blocks),
        all_block_parameters=sum(blocks),
        linear_parameters=sum(module.weight.numel() for _, module in maps),
        largest_parameter=max(parameter.numel() for parameter in model.parameters()),
        packs=narrow_window(config) is None,
        lora_ranked=sum(module.in_features + module.out_features for name, module in maps if IN_BLOCK.search(name)),
        **shape,
    )


def known_architecture(name: str) -> Architecture | None:
    """Architecture of a preset; None if ``SHAPES`` does not have it."""
    if name not in SHAPES:
        return None
    shape = dict(SHAPES[name])
    return architecture(AutoConfig.for_model(shape.pop("model_type"), **shape), name)


def architecture_of(name: str) -> Architecture:
    """Architecture of a student: of a preset from ``SHAPES``, of any other from its configuration.

    Raises:
        InputError: its configuration cannot be loaded, or is of a family that the plan does not know.
    """
    return known_architecture(name) or architecture(load_config(name), f"student.name={name}")

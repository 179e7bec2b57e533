"""Greedy decoding of a batch without its finished rows, in place of the loop inside transformers' ``generate()``.

The loop of the library computes every row until the last one ends. Here finished rows leave the batch, keys and values
included. All else is the library's: it reads the prompts' settings, runs the encoder, makes the cache, and calls this
function in the place of its own loop (``custom_generate``). The tokens are the same.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from transformers import GenerationConfig, GenerationMixin
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer, EncoderDecoderCache

KEPT = 0.75
"""Rows are taken out when at most this share of the batch goes on: each time the cache is copied."""

ROOM = 32
"""Positions that keys and values may grow by without being copied."""

BY_ROW = ("attention_mask", "position_ids", "decoder_attention_mask", "decoder_position_ids", "encoder_outputs")
"""What a step is given beside the cache that has rows."""


LAYERS = {DynamicLayer, DynamicSlidingWindowLayer}
"""Kinds of layers of a cache that hold keys and values alone, a row for each row of the batch."""


class RoomyLayer(DynamicLayer):
    """Keys and values of a layer, written into tensors with room for ``ROOM`` more positions.

    The library's layer copies all of them at every step, to append one position.
    """

    room: tuple[Tensor, ...] = ()

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append [B, heads, T, width] keys and values, and return all there are."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held, length = self.get_seq_length(), self.get_seq_length() + key_states.shape[-2]
        new = (key_states, value_states)
        if self.room and length <= self.room[0].shape[-2]:
            for room, part in zip(self.room, new, strict=True):
                room[:, :, held:length] = part
        else:
            old = (self.keys, self.values)
            free = (part.new_empty(*part.shape[:2], ROOM, part.shape[-1]) for part in new)
            self.room = tuple(torch.cat(parts, dim=-2) for parts in zip(old, new, free, strict=True))  # type: ignore[arg-type]
        self.keys, self.values = (room[:, :, :length] for room in self.room)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        length = self.get_seq_length()
        self.room = tuple(room[indices] for room in self.room)
        self.keys, self.values = (room[:, :, :length] for room in self.room)


def _with_room(cache: Cache) -> None:
    """Give layers of the plainest kind room; one whose layers come later, or have a window, stays as it is."""
    growing = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
    growing.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in growing.layers]


def can_retire(model: Any) -> bool:
    """Whether ``generate()`` of this model takes ``custom_generate=greedily``: it is the library's own, on one rank.

    Ranks that share a model compute every step together, until the last of them has finished; the library sees to it.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # the one within LoRA's wrapper
    own = type(base).generate is GenerationMixin.generate
    return own and not any(isinstance(part, FSDPModule) for part in base.modules())


def _rows_can_leave(inputs: dict[str, Any]) -> bool:
    """Whether all that has rows is known: states of linear attention, or of images, would keep those that have left."""
    caches = [value for value in inputs.values() if isinstance(value, Cache)]
    parts = [
        part
        for cache in caches
        for part in (
            (cache.self_attention_cache, cache.cross_attention_cache)
            if isinstance(cache, EncoderDecoderCache)
            else (cache,)
        )
    ]
    others = {name for name, value in inputs.items() if not isinstance(value, bool | int | float | str | Cache | None)}
    return (
        len(caches) == 1
        and all(type(part) is DynamicCache and {type(layer) for layer in part.layers} <= LAYERS for part in parts)
        and others <= set(BY_ROW)
        and set(inputs.get("encoder_outputs") or ("last_hidden_state",)) == {"last_hidden_state"}
    )


def _keep_rows(inputs: dict[str, Any], rows: Tensor) -> None:
    for name, value in inputs.items():
        if isinstance(value, Cache):
            value.batch_select_indices(rows)
        elif name == "encoder_outputs":
            value.last_hidden_state = value.last_hidden_state[rows]
        elif name in BY_ROW and value is not None:
            inputs[name] = value[rows]


def greedily(
    model: Any,
    input_ids: Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: GenerationConfig,
    **inputs: Any,
) -> Tensor:
    """``custom_generate`` of ``generate()``: its most likely continuations, without the steps of rows that have ended.

    A model with a state that is not known to have rows goes through the library's loop.

    Args:
        model: in eval mode; its ``generate()`` calls this.
        input_ids: [B, T] prompts, padded on the left; of an encoder-decoder, what the decoder starts with.
        logits_processor: must be empty: greedy without penalties.
        stopping_criteria: those of ``generation_config``, which are read from there.
        generation_config: with ``max_length``, the ends and the padding as the library has prepared them.
        inputs: what a step takes: cache, masks, positions, outputs of the encoder.

    Returns:
        [B, T + longest continuation] ids; an end is followed by padding.
    """
    if logits_processor or not _rows_can_leave(inputs):
        return model._sample(input_ids, logits_processor, stopping_criteria, generation_config, **inputs)
    _with_room(next(value for value in inputs.values() if isinstance(value, Cache)))
    pad, ends = generation_config._pad_token_tensor, generation_config._eos_token_tensor
    assert pad is not None and ends is not None  # the settings name both
    num_prompt = input_ids.shape[1]
    found = pad.repeat(len(input_ids), generation_config.max_length)
    found[:, :num_prompt] = input_ids
    rows = torch.arange(len(input_ids), device=input_ids.device)  # of ``found``, of what is still in the batch
    goes_on = torch.ones_like(rows, dtype=torch.bool)
    step = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **inputs)
    for length in range(num_prompt, generation_config.max_length):
        outputs = model(**step, return_dict=True)
        ids = torch.where(goes_on, outputs.logits[:, -1].float().argmax(-1), pad)
        found[rows, length] = ids
        goes_on &= ~torch.isin(ids, ends)
        num_left = int(goes_on.sum())
        if not num_left:
            return found[:, : length + 1]
        inputs = model._update_model_kwargs_for_generation(outputs, inputs, model.config.is_encoder_decoder)
        if num_left <= KEPT * len(rows):
            kept = goes_on.nonzero()[:, 0]
            rows, goes_on, ids = rows[kept], goes_on[kept], ids[kept]
            _keep_rows(inputs, kept)
        step = model.prepare_inputs_for_generation(ids[:, None], next_sequence_length=1, **inputs)
    return found

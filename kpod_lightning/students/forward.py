"""A student's forward pass over a batch, padded or packed, and whether its rows can be packed at all."""

from typing import Any

import torch
from torch import Tensor

from kpod_lightning.data.views import Batch, Lengths, View, collate
from kpod_lightning.distributed.console import console
from kpod_lightning.store.errors import InputError
from kpod_lightning.students.packing import NAME, prepare_packing
from kpod_lightning.students.student import Student


def run(student: Student, batch: Batch) -> Any:
    """The student's output for a batch."""
    model, lengths, device = student.model, batch.lengths, batch.input_ids.device
    inputs: dict[str, Any] = {"attention_mask": batch.attention_mask}
    if lengths is not None:
        inputs = {"attention_mask": _no_mask(device), "lengths": lengths}
    if student.encoder_decoder:
        inputs["decoder_input_ids"] = _shifted(model, batch.labels, lengths)
        if lengths is not None:
            inputs["decoder_attention_mask"] = _no_mask(device)
    elif lengths is not None:
        inputs["position_ids"] = torch.cat([torch.arange(n) for n in lengths.inputs])[None].to(device)
    return model(input_ids=batch.input_ids, use_cache=False, **inputs)


def _no_mask(device: torch.device) -> Tensor:
    """A mask that nothing reads: transformers hands on what has four axes, and else makes one of [ΣT, ΣT]."""
    return torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=device)


def _shifted(model: Any, labels: Tensor, lengths: Lengths | None) -> Tensor:
    """[B, T] input of a decoder: each example's labels one to the right, behind the token that starts a decoder."""
    shifted: Tensor = model.prepare_decoder_input_ids_from_labels(labels=labels)
    if lengths is not None:
        starts = torch.tensor([0, *lengths.targets[:-1]]).cumsum(0)
        shifted[0, starts.to(labels.device)] = model.config.decoder_start_token_id
    return shifted


# ---- Packing ----

ROUNDING = 1e-4
"""Largest difference of logits, as a share of the largest logit, that float32 makes between two ways."""


def packs(student: Student, *, must: bool = False) -> bool:
    """Prepare a student for packed rows, if it takes them, and say so if it does not.

    Args:
        must: refuse a student that takes none.

    Raises:
        InputError: it takes none, and must.
    """
    reason = why_not_packed(student)
    if reason is not None and must:
        raise InputError(f"optim.packing=true: {student.name} cannot be packed: {reason}; take optim.packing=null")
    if reason is not None:
        console.print(f"{student.name} is trained on padded batches: {reason}")
    return reason is None


def narrow_window(config: Any) -> int | None:
    """How many tokens back attention reaches, if these are fewer than a row may have; else None."""
    window = getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None)
    return window if window is not None and window < getattr(config, "max_position_embeddings", window + 1) else None


@torch.no_grad()
def why_not_packed(student: Student) -> str | None:
    """Prepare a student for packed rows; why they would not give what its examples give one by one, or None.

    Two short examples are run both ways, without dropout: nothing in a configuration says for certain that positions
    can be given, and that no layer but attention looks at other tokens.
    """
    model = student.model.get_base_model() if hasattr(student.model, "get_base_model") else student.model
    config = model.config
    window = narrow_window(config)
    if window is not None:
        return f"its attention reaches back {window} tokens only"
    if config._attn_implementation == NAME:
        return None  # prepared and tried before
    if config._attn_implementation != "sdpa" or not model._can_set_attn_implementation():
        return "its attention is not torch's scaled dot product"
    was_training = student.model.training
    student.model.eval()
    prepare_packing(model)
    try:
        differ = _packed_differs(student)
    except (TypeError, ValueError, RuntimeError) as error:
        differ = f"it takes no packed rows ({type(error).__name__})"
    finally:
        student.model.train(was_training)
    if differ is not None:
        model.set_attn_implementation("sdpa")
    return differ


def _packed_differs(student: Student) -> str | None:
    device = student.model.device
    vocabulary = student.model.get_input_embeddings().weight.shape[0]
    views = [_probe(length, vocabulary, student.encoder_decoder) for length in (7, 4)]

    def logits(few: list[View], packed: bool) -> Tensor:
        batch = collate(few, [("", 0)] * len(few), pad_token_id=student.pad_token_id, divisor=1, packed=packed)
        found: Tensor = run(student, batch.to(device)).logits
        return found

    together, alone = logits(views, True), torch.cat([logits([v], False) for v in views], dim=1)
    if together.shape != alone.shape or (together - alone).abs().max() > ROUNDING * alone.abs().max():
        return "an example's logits depend on what it is packed with"
    return None


def _probe(length: int, vocabulary: int, encoder_decoder: bool) -> View:
    """An example of ids that lie far apart."""
    ids = [(length + 1) * 31 * j % vocabulary for j in range(length)]
    labels = ids[: length - 2] if encoder_decoder else ids
    return View(input_ids=ids, labels=labels, weights=[1.0] * len(labels))

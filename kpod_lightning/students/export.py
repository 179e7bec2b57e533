"""Writes a checkpoint's student as a Hugging Face folder, a few blocks at a time: memory never holds a whole model."""

import json
import re
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

from kpod_lightning.config import StudentConfig
from kpod_lightning.distributed.checkpoints import Torn, check, read_meta
from kpod_lightning.store.errors import InputError
from kpod_lightning.students.lora import transposed
from kpod_lightning.students.student import load_config, pretrained

SHARD_BYTES = 2**30
"""Least size of a file of the student, except the last one. Memory holds one file at a time."""

OF_MODULE = "model."
"""Prefix of the student's parameters in the trained module."""


class Tensors(Mapping[str, Tensor]):
    """The student's parameters in a checkpoint (a file or a sharded folder), read one at a time on access.

    Raises:
        InputError: the checkpoint is torn, or its pickle names something that no checkpoint of ours has.
    """

    def __init__(self, checkpoint: Path) -> None:
        try:
            check(checkpoint)
        except Torn as error:
            raise InputError(f"{error}; remove {checkpoint.parent}, and the same command trains anew") from error
        self.reader = FileSystemReader(checkpoint) if checkpoint.is_dir() else None
        if self.reader is None:
            state = read_meta(checkpoint)["state_dict"]
            self.held = {n.removeprefix(OF_MODULE): value for n, value in state.items() if n.startswith(OF_MODULE)}
        else:
            entries = self.reader.read_metadata().state_dict_metadata
            start = f"state_dict.{OF_MODULE}"
            self.held = {name.removeprefix(start): entry for name, entry in entries.items() if name.startswith(start)}

    def __getitem__(self, name: str) -> Tensor:
        held = self.held[name]
        if self.reader is None:
            return held
        tensor = torch.empty(held.size, dtype=held.properties.dtype)
        key = f"state_dict.{OF_MODULE}{name}"
        dcp.load({key: tensor}, storage_reader=FileSystemReader(self.reader.path), no_dist=True)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.held)

    def __len__(self) -> int:
        return len(self.held)


def merged(tensors: Mapping[str, Tensor], scale: float, of_conv1d: Container[str] = ()) -> Iterator[tuple[str, Tensor]]:
    """Parameters with LoRA adapters merged (W + scale · B A), under the names of the student without adapters.

    Args:
        scale: α / r.
        of_conv1d: maps whose weight W is [in, out], so that (B A)ᵀ is added.
    """
    for name in tensors:
        if ".lora_" in name:
            continue
        value = tensors[name]
        if name.endswith(".base_layer.weight"):
            place = name.removesuffix(".base_layer.weight")
            a, b = (tensors[f"{place}.lora_{side}.default.weight"] for side in "AB")
            added = b.to(value.dtype) @ a.to(value.dtype)
            added = added.T if place.removeprefix("base_model.model.") in of_conv1d else added
            value = (value + scale * added).to(value.dtype)
        yield name.removeprefix("base_model.model.").replace(".base_layer.", "."), value


def shards(parameters: Iterator[tuple[str, Tensor]], least: int) -> Iterator[dict[str, Tensor]]:
    """Group parameters, block by block, into shards of at least ``least`` bytes; the last one may be smaller."""
    shard: dict[str, Tensor] = {}
    size, block = 0, None
    for name, value in parameters:
        number = re.search(r"\.\d+\.", name)
        now = None if number is None else name[: number.end()]
        if shard and now != block and size >= least:
            yield shard
            shard, size = {}, 0
        shard[name], block = value.contiguous(), now
        size += value.nbytes
    if shard:
        yield shard


def export_student(checkpoint: Path, student: StudentConfig, folder: Path, *, least: int = SHARD_BYTES) -> None:
    """Write ``folder``: safetensors with adapters merged, configuration, generation configuration, tokenizer."""
    source, revision = pretrained(student.name)
    trusted = {"trust_remote_code": student.trust_remote_code}
    config = load_config(student.name, **trusted, allow_pickle=student.allow_pickle)
    family: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    tensors = Tensors(checkpoint)
    with torch.device("meta"):
        skeleton = family.from_config(config, **trusted)
    expected = set(skeleton.state_dict())
    # Of tied parameters one is written; loading the student makes the other from it.
    tied = set(getattr(skeleton, "all_tied_weights_keys", None) or ())
    rank = student.lora_rank or 1
    scale = (rank if student.lora_alpha is None else student.lora_alpha) / rank

    folder.mkdir(parents=True)
    written: list[set[str]] = []
    size, dtype = 0, torch.float32
    kept = ((name, value) for name, value in merged(tensors, scale, transposed(skeleton)) if name not in tied)
    for shard in shards(kept, least):
        save_file(shard, folder / f"part-{len(written)}", metadata={"format": "pt"})
        written.append(set(shard))
        size += sum(value.nbytes for value in shard.values())
        dtype = next(iter(shard.values())).dtype
    missing, strange = expected - tied - set().union(*written), set().union(*written) - expected
    if missing or strange:
        raise InputError(f"{checkpoint} is of another student than {student.name}: {sorted(missing | strange)[0]}")
    names = [
        "model.safetensors" if len(written) == 1 else f"model-{i + 1:05d}-of-{len(written):05d}.safetensors"
        for i in range(len(written))
    ]
    for i, name in enumerate(names):
        (folder / f"part-{i}").replace(folder / name)
    if len(written) > 1:
        weight_map = {name: file for file, part in zip(names, written, strict=True) for name in sorted(part)}
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    config.dtype, config.architectures, config.use_cache = dtype, [type(skeleton).__name__], True
    config.save_pretrained(folder)
    try:
        GenerationConfig.from_pretrained(source, revision=revision).save_pretrained(folder)
    except OSError:  # a student without one of its own
        skeleton.generation_config.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, revision=revision, **trusted).save_pretrained(folder)

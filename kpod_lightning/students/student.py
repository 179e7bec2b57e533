"""Students: presets, loading from the hub or a folder, LoRA adapters."""

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from kpod_lightning.config import StudentConfig
from kpod_lightning.distributed.console import console
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import ASSETS
from kpod_lightning.students.faults import (
    check_config,
    check_embeddings,
    check_folder,
    check_name,
    check_tokenizer,
    check_weights,
    told,
)
from kpod_lightning.students.lora import linear_maps, said

PRESETS: dict[str, str] = {
    "flan-t5-base": "google/flan-t5-base",
    "flan-t5-large": "google/flan-t5-large",
    "flan-t5-xl": "google/flan-t5-xl",
    "llama-7b": "huggyllama/llama-7b",
    "llama-3.2-1b": "meta-llama/Llama-3.2-1B",
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "smollm2-135m": "HuggingFaceTB/SmolLM2-135M",
    "smollm2-360m": "HuggingFaceTB/SmolLM2-360M",
}
"""Short names of hub models. tiny-llama, tiny-t5 and smollm2-135m-q4 are folders instead (``resolve``).

A name or hub id may end with ``@`` and a revision (a commit, tag or branch): ``flan-t5-large@0613663d``.
"""

SHIPPED = ("tiny-llama", "tiny-t5")


@dataclass
class Student:
    """A model with its tokenizer."""

    name: str
    model: Any
    tokenizer: Any
    encoder_decoder: bool
    ends_with_head: bool = field(default=True, init=False)
    """Whether the logits are what the head gives, so that losses need none; false once it was seen not to be."""

    @property
    def pad_token_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id)

    @property
    def end_token_ids(self) -> list[int]:
        """Ids that end an output: the tokenizer's, and those of the model's generation settings, often several."""
        ends = self.model.generation_config.eos_token_id
        return sorted(
            {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [] if ends is None else [ends])}
        )

    @property
    def normalise(self) -> Callable[[str], str] | None:
        """Length-preserving text change for a tokenizer that loses newlines (the old T5 vocabulary), else None."""
        return _newlines_to_blanks if _loses_newlines(self.tokenizer) else None


def _newlines_to_blanks(text: str) -> str:
    """Replace newlines by blanks, and an empty line behind a word by a full stop and a blank; the length stays."""
    return re.sub(r"(?<=[^\s.,:;!?])\n\n", ". ", text).replace("\n", " ")


def _loses_newlines(tokenizer: Any) -> bool:
    ids = tokenizer("one\ntwo", add_special_tokens=False).input_ids
    return "\n" not in tokenizer.decode(ids, skip_special_tokens=True)


def cache_dir() -> Path:
    """Folder of fetched students: ``$KPOD_CACHE`` or ``~/.cache/kpod_lightning``."""
    return Path(os.environ.get("KPOD_CACHE", Path.home() / ".cache" / "kpod_lightning"))


def resolve(name: str) -> str:
    """Folder or hub id of a student's name.

    Raises:
        InputError: ``smollm2-135m-q4`` has not been fetched.
    """
    if name in SHIPPED:
        return str(ASSETS / name)
    if name == "smollm2-135m-q4":
        folder = cache_dir() / "students" / name
        if not folder.is_dir():
            raise InputError(f"student {name}: {folder} is not there; fetch it with `make student-smollm2`")
        return str(folder)
    return PRESETS.get(name, name)


def pretrained(name: str) -> tuple[str, str]:
    """Folder or hub id of a student's name, and its revision there.

    Raises:
        InputError: a folder with a revision; or as ``resolve``.
    """
    bare, _, revision = name.partition("@")
    if not revision or os.path.lexists(name):
        return resolve(name), "main"
    if os.path.lexists(resolve(bare)):
        raise InputError(f"student.name={name}: {bare} is a folder, which has no revisions; drop @{revision}")
    return resolve(bare), revision


def contents(name: str) -> list[tuple[str, str]]:
    """Names and SHA-256 of the files of a student's local folder; none for a hub id."""
    folder = Path(resolve(name))
    hashes = []
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        if path.is_file():
            with path.open("rb") as file:
                hashes.append((path.name, hashlib.file_digest(file, "sha256").hexdigest()))
    return hashes


def load_config(name: str, *, trust_remote_code: bool = False, allow_pickle: bool = False) -> Any:
    """The model's configuration. It is small, so a run reads it first and stops early if there is no such student.

    Args:
        trust_remote_code: let code run that lies beside the weights (``auto_map``).
        allow_pickle: take weights that are pickled.

    Raises:
        InputError: the name is no model folder, and no preset or hub id that can be downloaded or is in the cache; or
            the folder's files cannot be used.
    """
    check_name(name, [*SHIPPED, *PRESETS, "smollm2-135m-q4"])
    source, revision = pretrained(name)
    if os.path.isdir(source):  # a name may be too long for a path: Path would raise
        check_folder(name, Path(source), allow_pickle=allow_pickle)
    with told(
        f"student.name={name}: cannot load {source}",
        "give a local folder, or take the shipped student.name=tiny-llama",
    ):
        try:
            config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
        except ValueError as error:
            if "trust_remote_code" not in str(error):
                raise
            raise InputError(
                f"student.name={name}: it is computed by code of its own (auto_map in config.json), which is not run; "
                "if you trust it, set student.trust_remote_code=true"
            ) from error
    check_config(name, config)
    return config


def load_tokenizer(name: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a student.

    Raises:
        InputError: it cannot be read, is not fast, or has no end-of-sequence token.
    """
    source, revision = pretrained(name)
    with told(f"student.name={name}: {source} has no tokenizer that can be read", "fetch it anew"):
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
    check_tokenizer(name, tokenizer)
    return tokenizer


def check_student(settings: StudentConfig) -> Any:
    """The model's configuration, where its tokenizer can be read, too, and a local folder has parameters.

    It takes tenths of a second: a run asks before anything is made, and loads the parameters when it needs them.

    Raises:
        InputError: as ``load_config`` and ``load_tokenizer``; files of parameters are missing or damaged.
    """
    name, trusted = settings.name, settings.trust_remote_code
    config = load_config(name, trust_remote_code=trusted, allow_pickle=settings.allow_pickle)
    load_tokenizer(name, trust_remote_code=trusted)
    folder = Path(pretrained(name)[0])
    for file in sorted(folder.glob("*.safetensors")) if folder.is_dir() else []:
        with told(f"{file}: damaged", "fetch it anew"), safe_open(file, "pt") as tensors:
            if not tensors.keys():
                raise InputError(f"{file}: holds no parameters; fetch it anew")
    return config


def load_student(
    name: str,
    *,
    dtype: torch.dtype | str = torch.float32,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
) -> Student:
    """Load a student from a preset, a hub id or a folder.

    Args:
        trust_remote_code: let code run that lies beside the weights (``auto_map``).
        allow_pickle: take weights that are pickled.

    Raises:
        InputError: it cannot be loaded whole, has no fast tokenizer or no end-of-sequence token.
    """
    config = load_config(name, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle)
    source, revision = pretrained(name)
    family: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    trusted = {"revision": revision, "trust_remote_code": trust_remote_code}
    tokenizer = load_tokenizer(name, trust_remote_code=trust_remote_code)
    safe = {} if allow_pickle else {"use_safetensors": True}
    with told(f"student.name={name}: {source} is incomplete or damaged", "fetch it anew"):
        model, info = family.from_pretrained(
            source, config=config, dtype=dtype, output_loading_info=True, weights_only=True, **safe, **trusted
        )
    check_weights(name, model, info)
    check_embeddings(name, tokenizer, model)
    model.config.use_cache = True
    return Student(name=name, model=model, tokenizer=tokenizer, encoder_decoder=bool(config.is_encoder_decoder))


def load_before(settings: StudentConfig, folder: Path | None = None) -> Student:
    """The configured student before distillation.

    Args:
        folder: that a run has tuned it into, see ``methods.context.Context.student``; None: as it came.
    """
    name = settings.name if folder is None else str(folder)
    found = load_student(name, trust_remote_code=settings.trust_remote_code, allow_pickle=settings.allow_pickle)
    found.name = settings.name
    return found


def add_lora(student: Student, rank: int, alpha: int | None, seed: int) -> Student:
    """Wrap the student in LoRA adapters on all linear maps of its blocks; alpha = rank (no scaling) unless given.

    Raises:
        InputError: LoRA cannot adapt all of them.
    """
    from peft import LoraConfig, get_peft_model  # slow import, needed by few

    maps = linear_maps(student.model, student.name)
    console.print(said(maps, rank))
    torch.manual_seed(seed)
    lora = LoraConfig(
        r=rank,
        lora_alpha=rank if alpha is None else alpha,
        lora_dropout=0.0,
        target_modules=list(maps),
        fan_in_fan_out=not any(isinstance(module, torch.nn.Linear) for module in maps.values()),
        task_type="SEQ_2_SEQ_LM" if student.encoder_decoder else "CAUSAL_LM",
    )
    return Student(
        name=student.name,
        model=get_peft_model(student.model, lora),
        tokenizer=student.tokenizer,
        encoder_decoder=student.encoder_decoder,
    )

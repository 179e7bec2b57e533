"""Students: presets, loading from the hub or a folder, LoRA adapters."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED

from kpod_lightning.distributed.console import console
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import ASSETS
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


def load_config(name: str) -> Any:
    """The model's configuration. It is small, so a run reads it first and stops early if there is no such student.

    Raises:
        InputError: the name is no model folder, and no preset or hub id that can be downloaded or is in the cache.
    """
    source, revision = pretrained(name)
    if os.path.isfile(source):
        raise InputError(f"student.name={name}: a file, where a model's folder is expected")
    way = "give a local folder, or take the shipped student.name=tiny-llama"
    with _readable(f"student.name={name}: cannot load {source}", way):
        config = AutoConfig.from_pretrained(source, revision=revision)
    if not config.is_encoder_decoder and config.model_type in MASKED and not getattr(config, "is_decoder", False):
        raise InputError(f"student.name={name}: a {config.model_type} fills gaps and cannot write; {way}")
    return config


@contextmanager
def _readable(what: str, way_out: str) -> Iterator[None]:
    """Whatever the libraries meet in the files of a model is one line; they fail in any way, and check little.

    Raises:
        InputError: anything but a lack of memory. The cause stays chained.
    """
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if "DefaultCPUAllocator" in str(error):
            raise
        lines = str(error).strip().splitlines() or [""]
        kind = "" if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: "
        raise InputError(f"{what} ({kind}{lines[0][:150]}); {way_out}") from error


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a student.

    Raises:
        InputError: it cannot be read, is not fast, or has no end-of-sequence token.
    """
    source, revision = pretrained(name)
    with _readable(f"student.name={name}: {source} has no tokenizer that can be read", "fetch it anew"):
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    if not tokenizer.is_fast:
        raise InputError(f"student.name={name}: its tokenizer gives no character offsets; choose one that is fast")
    if tokenizer.eos_token_id is None:
        raise InputError(f"student.name={name}: its tokenizer has no end-of-sequence token")
    return tokenizer


def check_student(name: str) -> Any:
    """The model's configuration, where its tokenizer can be read, too, and a local folder has parameters.

    It takes tenths of a second: a run asks before anything is made, and loads the parameters when it needs them.

    Raises:
        InputError: as ``load_config`` and ``load_tokenizer``; files of parameters are missing or damaged.
    """
    config, _ = load_config(name), load_tokenizer(name)
    folder = Path(pretrained(name)[0])
    if not folder.is_dir():
        return config
    files = sorted(folder.glob("*.safetensors"))
    if not files and not any(folder.glob("*.bin")):
        raise InputError(f"student.name={name}: {folder} has no parameters (*.safetensors); fetch it anew")
    for file in files:
        with _readable(f"{file}: damaged", "fetch it anew"), safe_open(file, "pt") as tensors:
            if not tensors.keys():
                raise InputError(f"{file}: holds no parameters; fetch it anew")
    return config


def load_student(name: str, *, dtype: torch.dtype | str = torch.float32) -> Student:
    """Load a student from a preset, a hub id or a folder.

    Raises:
        InputError: it cannot be loaded, has no fast tokenizer or no end-of-sequence token.
    """
    config, (source, revision) = load_config(name), pretrained(name)
    family = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    tokenizer = load_tokenizer(name)
    with _readable(f"student.name={name}: {source} is incomplete", "fetch it anew"):
        loaded: Any = family.from_pretrained(source, revision=revision, dtype=dtype, output_loading_info=True)
    model, found = loaded
    if found["missing_keys"]:  # transformers would draw them at random
        missing = sorted(found["missing_keys"])
        raise InputError(
            f"student.name={name}: {source} lacks {len(missing)} parameters, such as {missing[0]}; fetch it anew"
        )
    model.config.use_cache = True
    return Student(name=name, model=model, tokenizer=tokenizer, encoder_decoder=bool(config.is_encoder_decoder))


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

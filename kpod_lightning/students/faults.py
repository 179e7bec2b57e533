"""What is wrong with a student's folder, said in one line before anything is computed with it."""

import difflib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from kpod_lightning.store.errors import InputError
from kpod_lightning.store.reading import read_object

BENIGN = re.compile(r"rotary_emb\.inv_freq$|\.position_ids$|\.attn\.(masked_)?bias$|\.attention\.(masked_)?bias$")
"""Tensors of older files that models compute by themselves now."""

CLOSE = 0.8
"""Likeness from which on a name is taken for a mistyped one; t5-base, a model of the hub, is less like flan-t5-base."""


@contextmanager
def told(what: str, way_out: str) -> Iterator[None]:
    """Say whatever a library stumbles over in a model's files as one line.

    Raises:
        InputError: a file was missing, torn, or of another form. Lack of memory stays what it is.
    """
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    # tokenizers raises bare Exceptions, and each of the libraries errors of its own.
    except Exception as error:
        if "DefaultCPUAllocator" in str(error):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        kind = "" if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: "
        reason = f"{kind}{lines[0][:200] if lines else ''}"
        raise InputError(f"{what} ({reason}); {way_out}") from error


def check_name(name: str, known: list[str]) -> None:
    """Stop at a name that is no folder and that the hub need not be asked about.

    Raises:
        InputError: it is empty, a file, a folder that is not there, or nearly the name of a student.
    """
    if not name.strip():
        raise InputError("student.name is empty: give a preset, a hub id or a folder, e.g. student.name=tiny-llama")
    if os.path.isfile(name):  # a name may be too long for a path: Path would raise
        raise InputError(f"student.name={name}: a file, where a model's folder is expected")
    if os.path.lexists(name):
        return
    if name.startswith(("/", "./", "../", "~")) or name.count("/") > 1:
        raise InputError(
            f"student.name={name}: no such folder; a model's folder, a hub id or a preset is expected, e.g. tiny-llama"
        )
    bare = name.partition("@")[0]
    close = difflib.get_close_matches(bare.lower(), known, n=1, cutoff=CLOSE)
    if "/" not in bare and bare not in known and close:
        raise InputError(
            f"student.name={name}: no such student; did you mean {close[0]}? A model of the hub is written OWNER/MODEL"
        )


def check_folder(name: str, folder: Path, *, allow_pickle: bool) -> None:
    """Look at the files of a student's folder.

    Raises:
        InputError: it has no configuration, no weights, weights that run code, or is an adapter without its model.
    """
    files = {path.name for path in folder.iterdir()}
    if "config.json" not in files:
        if "adapter_config.json" in files:
            raise InputError(
                f"student.name={name}: an adapter without its model; merge it into its model first "
                "(peft: merge_and_unload, then save_pretrained)"
            )
        what = "an empty folder" if not files else "no config.json in it"
        raise InputError(f"student.name={name}: {what}; give a folder that save_pretrained wrote")
    read_object(folder / "config.json")
    if any(file.endswith(".safetensors") for file in files):
        return
    pickled = sorted(file for file in files if re.fullmatch(r"pytorch_model.*\.bin", file))
    if pickled and not allow_pickle:
        raise InputError(
            f"student.name={name}: {pickled[0]} is a pickle, which can run code; save it as safetensors, or set "
            "student.allow_pickle=true"
        )
    if not pickled:
        raise InputError(f"student.name={name}: {folder} has no parameters (*.safetensors); fetch it anew")


def check_config(name: str, config: Any) -> None:
    """See that the model writes.

    Raises:
        InputError: it only encodes, or its decoder has no token to start with.
    """
    if config.is_encoder_decoder:
        if getattr(config, "decoder_start_token_id", None) is None or getattr(config, "pad_token_id", None) is None:
            raise InputError(
                f"student.name={name}: its config.json has no decoder_start_token_id or no pad_token_id, so its "
                "decoder has nothing to start with; add both"
            )
    elif config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False):
        raise InputError(
            f"student.name={name}: a {config.model_type} fills gaps and cannot write; choose a decoder or an "
            "encoder-decoder"
        )


def check_weights(name: str, model: Any, info: dict[str, Any]) -> None:
    """Compare the tensors of the files with those of the model.

    Args:
        info: what ``from_pretrained`` says about its loading.

    Raises:
        InputError: a tensor is missing, of another shape, has no place in the model, or holds NaN or infinity.
    """
    faults = {
        "lack": sorted(map(str, info["missing_keys"])),
        "have in another shape": sorted(str(key) for key in info["mismatched_keys"]),
        "have, without a place for it,": sorted(key for key in info["unexpected_keys"] if not BENIGN.search(key)),
    }
    for what, keys in faults.items():
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise InputError(
                f"student.name={name}: its files {what} {keys[0]}{more} of a {type(model).__name__}; it would not be "
                "the model that was saved: fetch it anew"
            )
    for key, tensor in model.named_parameters():
        if not bool(tensor.isfinite().all()):
            raise InputError(f"student.name={name}: {key} holds NaN or infinity; fetch it anew")


def check_tokenizer(name: str, tokenizer: Any) -> None:
    """See that texts can be cut into tokens with their places, and outputs can end.

    Raises:
        InputError: the tokenizer gives no character offsets or has no end-of-sequence token.
    """
    if not tokenizer.is_fast:
        raise InputError(f"student.name={name}: its tokenizer gives no character offsets; choose one that is fast")
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"student.name={name}: its tokenizer has no end-of-sequence token; name one in tokenizer_config.json "
            "(eos_token)"
        )


def check_embeddings(name: str, tokenizer: Any, model: Any) -> None:
    """See that every token has an embedding.

    Raises:
        InputError: the tokenizer has no tokens, or some that the model has no embedding of.
    """
    largest, rows = max(tokenizer.get_vocab().values(), default=-1), model.get_input_embeddings().weight.shape[0]
    if largest < 0 or largest >= rows:
        raise InputError(
            f"student.name={name}: its tokenizer has ids up to {largest}, and the model embeddings of {rows} tokens; "
            "the two do not belong together"
        )

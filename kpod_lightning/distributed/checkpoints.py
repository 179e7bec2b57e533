"""Checkpoints of a training, each a file or a sharded folder: the newest whole one, and how one replaces another."""

import io
import pickle
import shutil
import struct
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.metadata import BytesStorageMetadata

from kpod_lightning.distributed.ranks import first_rank
from kpod_lightning.store.digests import digest
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import remove, sync_names, unwritable, write_text, writing

META = "meta.pt"
"""File of a sharded folder with all of Lightning's checkpoint but parameters and optimiser states."""

INDEX = ".metadata"
"""File of a sharded folder in which torch keeps where each tensor lies."""

OLD = ".old"
"""Suffix of a sharded checkpoint that is being replaced, until the new one has its name."""

DIGEST = ".sha256"
"""Suffix of the file with the SHA-256 of another file of a sharded folder. A checkpoint file has CRCs of its own."""

IN_AN_INDEX = {
    *(
        ("torch.distributed.checkpoint.metadata", name)
        for name in (
            "Metadata",
            "TensorStorageMetadata",
            "BytesStorageMetadata",
            "ChunkStorageMetadata",
            "TensorProperties",
            "MetadataIndex",
            "StorageMeta",
            "_MEM_FORMAT_ENCODING",
        )
    ),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    ("pathlib", "PosixPath"),
    *(("torch", name) for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)),
}
"""All that the pickle in a sharded folder's index may name: module and attribute."""


class Torn(InputError):
    """A checkpoint is not what was written: cut off, or with bits that have changed."""


# ---- What lies on the disk ----


def check(checkpoint: Path) -> None:
    """Find out whether a checkpoint is whole, and can be read without running code that somebody put into it.

    It reads all of the checkpoint once.

    Raises:
        Torn: it is not whole.
        InputError: its pickle names something that no checkpoint of ours has, or it is no checkpoint of a training.
    """
    if not checkpoint.exists():
        raise Torn(f"{checkpoint} is missing")
    if checkpoint.is_dir():
        check_digests(checkpoint)
        check_index(checkpoint)
    else:
        check_archive(checkpoint)
    needed = {"global_step"} if checkpoint.is_dir() else {"global_step", "state_dict"}
    if missing := needed - read_meta(checkpoint).keys():
        raise InputError(
            f"{checkpoint} is no checkpoint of a training: it has no {', '.join(sorted(missing))}. Remove it"
        )


def check_archive(path: Path) -> None:
    """Compare the CRC of every entry of a file that ``torch.save`` wrote.

    Raises:
        Torn: one differs, or the table of entries, which is written last, is missing.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # torch neither compresses nor sets attributes. A bit that says otherwise is outside the CRCs: zipfile would
            # meet any kind of error, and torch reads zeros where an entry has the attribute of a folder.
            changed = any(e.compress_type or e.flag_bits & 1 or e.external_attr for e in archive.infolist())
            changed = changed or archive.testzip() is not None
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise Torn(f"{path} is torn: {error}") from error
    if changed:
        raise Torn(f"{path} is damaged: its bytes are not those that were written")


def check_digests(folder: Path) -> None:
    """Compare the files of a sharded folder with their digests; earlier versions wrote none.

    Raises:
        Torn: one differs or is missing.
    """
    for name in (INDEX, META, *(path.name.removesuffix(DIGEST) for path in folder.glob(f"*{DIGEST}"))):
        path, written = folder / name, folder / f"{name}{DIGEST}"
        if not path.is_file():
            raise Torn(f"{folder} is torn: {name} is missing")
        if written.is_file() and written.read_text(encoding="utf-8") != digest(path):
            raise Torn(f"{folder} is damaged: the bytes of {name} are not those that were written")


class IndexUnpickler(pickle.Unpickler):
    """Reads a sharded folder's index, and calls nothing but what is in ``IN_AN_INDEX``."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in IN_AN_INDEX:
            raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {module}.{name}")
        return super().find_class(module, name)


def check_index(folder: Path) -> None:
    """Read the two kinds of pickle that torch reads without asking: the index, and values that are no tensors.

    Raises:
        Torn: they cannot be read.
        InputError: one of them names something that no checkpoint of ours has.
    """
    with reading(folder):
        index = IndexUnpickler(io.BytesIO((folder / INDEX).read_bytes())).load()
        for entry, place in index.storage_data.items():
            if isinstance(index.state_dict_metadata[entry.fqn], BytesStorageMetadata):
                with (folder / place.relative_path).open("rb") as file:
                    file.seek(place.offset)
                    torch.load(io.BytesIO(file.read(place.length)), weights_only=True)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say in one line why a checkpoint cannot be read.

    Raises:
        Torn: it is damaged.
        InputError: it names something that no checkpoint of ours has.
    """
    try:
        yield
    except pickle.UnpicklingError as error:
        named = str(error).partition("GLOBAL ")[2].split(" ")[0].strip(".,")
        found = f"calls {named}" if named else "is no checkpoint of tensors and plain values"
        raise InputError(
            f"{path} {found}, and is not read: no checkpoint of a training does that. Remove it if it is not yours"
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, AttributeError, TypeError, ValueError, IndexError) as error:
        raise Torn(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error


def load(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """A file of tensors and plain values, on the host. Nothing in it can make this run other code.

    Args:
        mmap: map the tensors instead of reading them.

    Raises:
        Torn: it is damaged.
        InputError: it names something that no checkpoint of ours has.
    """
    with reading(path):
        return dict(torch.load(path, map_location="cpu", weights_only=True, mmap=mmap))


def read_meta(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's entries. Tensors in a file are mapped and not read; those of a sharded folder are left out."""
    return load(checkpoint / META if checkpoint.is_dir() else checkpoint, mmap=True)


def global_step(checkpoint: Path) -> int:
    return int(read_meta(checkpoint)["global_step"])


def candidates(folder: Path) -> list[Path]:
    """The checkpoints that a training may go on from: of the last finished epoch, and of the last interruption."""
    names = [name + suffix for name in ("last.ckpt", "step.ckpt") for suffix in ("", OLD)]
    return [folder / name for name in names if (folder / name).exists()]


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; of each torn one a line is printed, and it is left out.

    Raises:
        InputError: one of them names something that no checkpoint of ours has.
    """
    whole: list[Path] = []
    torn: list[str] = []
    for path in candidates(folder):
        try:
            check(path)
            whole.append(path)
        except Torn as error:
            torn.append(str(error))
    newest = max(whole, key=global_step, default=None)
    instead = "none is whole, so a training begins anew" if newest is None else f"{newest.name} is taken instead"
    for line in torn:
        print(f"kpod: {line}; {instead}", file=sys.stderr, flush=True)
    return newest


# ---- Writing ----


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise what the disk said: where a write fails, torch ends its archive all the same and then raises another error.

    Raises:
        OSError: it was behind a RuntimeError.
    """
    try:
        yield
    except RuntimeError as error:
        behind: BaseException | None = error
        while behind is not None and not isinstance(behind, OSError):
            behind = behind.__cause__ or behind.__context__
        if behind is None:
            raise
        raise behind from None


def save(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint file aside, in the same folder, and rename it; an earlier one stays whole until then.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
    """
    with writing(path) as aside, disk_errors(), aside.open("wb") as file:
        torch.save(content, file)


def add_digest(path: Path) -> None:
    """Leave the digest of a file beside it."""
    path.with_name(path.name + DIGEST).write_text(digest(path), encoding="utf-8")


class CheckpointFiles(TorchCheckpointIO):
    """How Lightning writes and reads checkpoint files. Its own way goes through the system's temporary folder, from
    where a file is copied, not renamed, if the run folder lies on another disk: a kill would leave it torn."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        save(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        return load(Path(path))


class KeptCheckpoint(ModelCheckpoint):
    """A checkpoint in the run folder that goes on where the folder was moved or copied to.

    Lightning remembers absolute paths, and would forget the best epoch or go to the old folder.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        paths = {name: here(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | paths | {"best_k_models": best, "dirpath": self.dirpath})


def put_in_place(aside: Path, path: Path) -> None:
    """Rename a complete checkpoint to ``path``, replacing the file or folder that is there.

    If the process is killed at any moment, ``newest_checkpoint`` finds the earlier or the new one.

    Args:
        aside: the new checkpoint, under its temporary name.
    """
    old = path.with_name(path.name + OLD)
    if path.exists():
        remove(old)
        path.replace(old)
    aside.replace(path)
    sync_names(path.parent)
    remove(old)


def forget_other_checkpoints(folder: Path, settings: str) -> None:
    """Remove the checkpoints if they are of other settings: resuming one of them would mix two runs.

    Args:
        settings: fingerprint of this training's settings.
    """
    stamp = folder / "settings"

    def forget() -> None:
        if folder.is_dir() and (not stamp.is_file() or stamp.read_bytes() != settings.encode()):
            shutil.rmtree(folder)
        write_text(stamp, settings)

    first_rank(forget)


def numbered(optimizer: dict[str, Any]) -> dict[str, Any]:
    """An optimiser's state as an unsharded training keeps it, by a parameter's number; a sharded one keeps it by name.

    Args:
        optimizer: ``state`` and ``param_groups`` by the parameters' names.
    """
    names = [name for group in optimizer["param_groups"] for name in group["params"]]
    number = {name: i for i, name in enumerate(names)}
    groups = [group | {"params": [number[name] for name in group["params"]]} for group in optimizer["param_groups"]]
    return {"state": {number[name]: row for name, row in optimizer["state"].items()}, "param_groups": groups}


def make_one_file(checkpoint: Path) -> None:
    """Turn a sharded folder into the file, of the same name, that an unsharded training resumes from.

    For a while the disk holds the tensors three times; the memory of the host holds them once.

    Args:
        checkpoint: one that was checked.

    Raises:
        InputError: the disk is full.
    """
    tensors, aside = (checkpoint.with_name(f".{checkpoint.name}.{end}") for end in ("tensors", "part"))
    try:
        with disk_errors():
            dcp_to_torch_save(checkpoint, tensors)
    except OSError as error:
        tensors.unlink(missing_ok=True)
        raise unwritable(checkpoint, error) from error
    state = load(tensors, mmap=True)
    optimizers = [numbered(state[name]) for name in sorted(state) if name.startswith("optimizer_")]
    save(read_meta(checkpoint) | {"state_dict": state["state_dict"], "optimizer_states": optimizers}, aside)
    tensors.unlink()
    put_in_place(aside, checkpoint)

"""Checkpoints of a training, each a file or a sharded folder: the newest, its content, and how one replaces another."""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from kpod_lightning.distributed.ranks import first_rank
from kpod_lightning.store.files import write_text

META = "meta.pt"
"""File of a sharded folder with all of Lightning's checkpoint but parameters and optimiser states."""

OLD = ".old"
"""Suffix of a checkpoint that is being replaced, until the new one has its name."""


def read_meta(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's entries. Tensors in a file are mapped and not read; those of a sharded folder are left out."""
    path = checkpoint / META if checkpoint.is_dir() else checkpoint
    return dict(torch.load(path, map_location="cpu", weights_only=False, mmap=True))


def global_step(checkpoint: Path) -> int:
    return int(read_meta(checkpoint)["global_step"])


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to resume from: of the last finished epoch or of the last interruption, whichever came later."""
    names = [name + suffix for name in ("last.ckpt", "step.ckpt") for suffix in ("", OLD)]
    return max((folder / name for name in names if (folder / name).exists()), key=global_step, default=None)


def put_in_place(aside: Path, path: Path) -> None:
    """Rename a finished checkpoint to ``path``, replacing the file or folder that is there.

    If the process is killed at any moment, ``newest_checkpoint`` finds the earlier or the new one.

    Args:
        aside: the new checkpoint, under its temporary name.
    """
    old = path.with_name(path.name + OLD)
    if path.exists():
        remove(old)
        path.replace(old)
    aside.replace(path)
    remove(old)


def remove(path: Path) -> None:
    """Remove a checkpoint, file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def forget_other_checkpoints(folder: Path, settings: str) -> None:
    """Remove the checkpoints if they are of other settings: resuming one of them would mix two runs.

    Args:
        settings: fingerprint of this training's settings.
    """
    stamp = folder / "settings"

    def forget() -> None:
        if folder.is_dir() and (not stamp.is_file() or stamp.read_text(encoding="utf-8") != settings):
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
    """
    tensors, aside = (checkpoint.with_name(f".{checkpoint.name}.{end}") for end in ("tensors", "part"))
    dcp_to_torch_save(checkpoint, tensors)
    state = torch.load(tensors, map_location="cpu", weights_only=False, mmap=True)
    optimizers = [numbered(state[name]) for name in sorted(state) if name.startswith("optimizer_")]
    torch.save(read_meta(checkpoint) | {"state_dict": state["state_dict"], "optimizer_states": optimizers}, aside)
    tensors.unlink()
    put_in_place(aside, checkpoint)

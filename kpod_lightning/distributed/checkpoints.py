"""Checkpoints of a training: which is the newest, and what is in it, whether a file or a sharded folder."""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

from kpod_lightning.distributed.ranks import first_rank
from kpod_lightning.store.files import write_text

META = "meta.pt"
"""In a sharded folder: everything but parameters and optimiser states, as Lightning writes it."""

OLD = ".old"
"""End of the name of a checkpoint while another takes its place."""


def read_meta(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint has beside its tensors, which are not read."""
    path = checkpoint / META if checkpoint.is_dir() else checkpoint
    return dict(torch.load(path, map_location="cpu", weights_only=False, mmap=True))


def global_step(checkpoint: Path) -> int:
    return int(read_meta(checkpoint)["global_step"])


def newest_checkpoint(folder: Path) -> Path | None:
    """Where an interrupted training goes on: the later one of the last epoch's end and of the last step kept."""
    names = [name + suffix for name in ("last.ckpt", "step.ckpt") for suffix in ("", OLD)]
    return max((folder / name for name in names if (folder / name).exists()), key=global_step, default=None)


def put_in_place(aside: Path, path: Path) -> None:
    """Rename a whole checkpoint to ``path``, file or folder, whichever of them was there: a kill leaves one of both."""
    old = path.with_name(path.name + OLD)
    if path.exists():
        remove(old)
        path.replace(old)
    aside.replace(path)
    remove(old)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def forget_other_checkpoints(folder: Path, settings: str) -> None:
    """Remove checkpoints of a training with other settings: resuming one of them would mix two runs."""
    stamp = folder / "settings"

    def forget() -> None:
        if folder.is_dir() and (not stamp.is_file() or stamp.read_text(encoding="utf-8") != settings):
            shutil.rmtree(folder)
        write_text(stamp, settings)

    first_rank(forget)


def read_sharded(checkpoint: Path) -> dict[str, Any]:
    """A sharded folder in the memory of this process alone."""
    state: dict[str, Any] = {}
    planner = _EmptyStateDictLoadPlanner()
    _load_state_dict(state, storage_reader=FileSystemReader(checkpoint), planner=planner, no_dist=True)
    return state


def numbered(optimizer: dict[str, Any]) -> dict[str, Any]:
    """State of an optimiser by the number of a parameter, as an unsharded training keeps it, from that by name."""
    names = [name for group in optimizer["param_groups"] for name in group["params"]]
    number = {name: i for i, name in enumerate(names)}
    groups = [group | {"params": [number[name] for name in group["params"]]} for group in optimizer["param_groups"]]
    return {"state": {number[name]: row for name, row in optimizer["state"].items()}, "param_groups": groups}


def make_one_file(checkpoint: Path) -> None:
    """Turn a sharded folder into the file, of the same name, that an unsharded training resumes from."""
    aside = checkpoint.with_name(f".{checkpoint.name}.part")
    state = read_sharded(checkpoint)
    optimizers = [numbered(state[name]) for name in sorted(state) if name.startswith("optimizer_")]
    torch.save(read_meta(checkpoint) | {"state_dict": state["state_dict"], "optimizer_states": optimizers}, aside)
    put_in_place(aside, checkpoint)

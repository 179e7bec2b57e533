"""A checkpoint is written whole, found torn where it is, and runs no code that somebody put into it."""

import os
import pickle
import random
import resource

import pytest
import torch
import torch.distributed.checkpoint as dcp

from kpod_lightning.__main__ import main
from kpod_lightning.distributed.checkpoints import (
    INDEX,
    META,
    Torn,
    add_digest,
    check,
    global_step,
    load,
    newest_checkpoint,
    save,
)
from kpod_lightning.store.errors import InputError


def content(step: int) -> dict:
    generator = torch.Generator().manual_seed(step)
    return {"state_dict": {"weight": torch.randn(8, 8, generator=generator)}, "global_step": step}


# torch.distributed.checkpoint says so where a process is alone
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def sharded(folder, step: int):
    """A folder as a sharded training leaves it."""
    state = content(step)
    optimizer = {"param_groups": [{"lr": 0.5, "params": ["weight"]}]}
    dcp.save({"state_dict": state["state_dict"], "optimizer_0": optimizer}, checkpoint_id=folder, no_dist=True)
    save({"global_step": step}, folder / META)
    for name in (INDEX, META, "__0_0.distcp"):
        add_digest(folder / name)
    return folder


class CreatesAFile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


# ---- Torn and damaged ones ----


def test_a_file_that_is_cut_off_anywhere_is_torn(tmp_path):
    path = tmp_path / "last.ckpt"
    save(content(3), path)
    whole = path.read_bytes()
    check(path)
    for length in range(0, len(whole), 41):
        path.write_bytes(whole[:length])
        with pytest.raises(Torn, match=r"last\.ckpt is torn"):
            check(path)


def test_a_flipped_bit_is_found_wherever_it_would_change_what_is_read(tmp_path):
    path = tmp_path / "last.ckpt"
    save(content(3), path)
    whole = path.read_bytes()
    found = 0
    for place in random.Random(0).sample(range(8 * len(whole)), 600):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            check(path)
        except Torn:
            found += 1
        else:  # in the padding between entries
            assert torch.equal(load(path)["state_dict"]["weight"], content(3)["state_dict"]["weight"])
    assert found > 200


@pytest.mark.parametrize("name", [INDEX, META, "__0_0.distcp"])
def test_a_sharded_folder_with_a_flipped_bit_or_a_missing_file_is_torn(tmp_path, name):
    folder = sharded(tmp_path / "last.ckpt", 3)
    check(folder)
    whole = bytearray((folder / name).read_bytes())
    whole[len(whole) // 2] ^= 1
    (folder / name).write_bytes(whole)
    with pytest.raises(Torn, match=f"the bytes of {name}"):
        check(folder)
    (folder / name).unlink()
    with pytest.raises(Torn, match=f"{name} is missing"):
        check(folder)


def test_the_newest_whole_checkpoint_is_taken_and_a_torn_one_is_named_in_a_line(tmp_path, capsys):
    for name, step in (("last.ckpt", 4), ("step.ckpt", 6)):
        save(content(step), tmp_path / name)
    newest = newest_checkpoint(tmp_path)
    assert newest == tmp_path / "step.ckpt" and not capsys.readouterr().err
    with newest.open("r+b") as file:
        file.truncate(100)
    newest = newest_checkpoint(tmp_path)
    said = capsys.readouterr().err
    assert newest is not None and global_step(newest) == 4
    assert said.count("\n") == 1 and "step.ckpt is torn" in said and "last.ckpt is taken instead" in said
    newest.write_bytes(b"")
    assert newest_checkpoint(tmp_path) is None
    assert capsys.readouterr().err.count("none is whole, so a training begins anew") == 2


def test_a_file_of_tensors_that_is_no_checkpoint_is_named(tmp_path):
    torch.save({"weight": torch.ones(3)}, tmp_path / "last.ckpt")
    with pytest.raises(
        InputError, match=r"last\.ckpt is no checkpoint of a training: it has no global_step, state_dict"
    ):
        newest_checkpoint(tmp_path)


# ---- Code in a checkpoint ----


def crafted(path, of: str, made) -> None:
    if of == "file":
        torch.save(content(1) | {"callbacks": CreatesAFile(made)}, path)
        return
    folder = sharded(path, 1)
    index = pickle.loads((folder / INDEX).read_bytes())
    if of == "index":
        index.planner_data = CreatesAFile(made)
        (folder / INDEX).write_bytes(pickle.dumps(index))
        add_digest(folder / INDEX)
    elif of == "meta":
        torch.save({"global_step": 1, "callbacks": CreatesAFile(made)}, folder / META)
        add_digest(folder / META)
    else:
        place = next(place for entry, place in index.storage_data.items() if entry.fqn.endswith(".lr"))
        file = folder / "__0_0.distcp"
        place.offset = file.stat().st_size
        with file.open("ab") as appended:
            torch.save(CreatesAFile(made), appended)
        place.length = file.stat().st_size - place.offset
        (folder / INDEX).write_bytes(pickle.dumps(index))
        add_digest(file)
        add_digest(folder / INDEX)


@pytest.mark.parametrize("of", ["file", "index", "meta", "value"])
def test_code_in_a_checkpoint_is_not_run_and_named_in_a_line(tmp_path, of):
    made = tmp_path / "made"
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    crafted(folder / "last.ckpt", of, made)
    for read in (check, lambda path: newest_checkpoint(path.parent)):
        with pytest.raises(InputError, match=r"last\.ckpt.* calls posix\.mkdir, and is not read") as error:
            read(folder / "last.ckpt")
        assert not isinstance(error.value, Torn) and "\n" not in str(error.value)
    assert not made.exists()


@pytest.mark.parametrize("verb", ["export", "run"])
def test_a_command_that_meets_code_in_a_checkpoint_refuses_it(tmp_path, capsys, verb):
    run, made = tmp_path / "run", tmp_path / "made"
    small = ["method=plain", "data.num_train=8", "data.num_validation=2", "data.num_test=2", "optim.epochs=1"]
    words = ["experiments/arithmetic.yaml", "--run", str(run), *small, "logging.wandb=disabled"]
    assert main(["run", *words]) == 0
    crafted(run / "checkpoints" / "last.ckpt", "file", made)
    if verb == "run":  # the training would go on from the checkpoint
        (run / "student").rename(tmp_path / "student")
    capsys.readouterr()
    assert main(["export", str(run)] if verb == "export" else ["run", *words]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "calls posix.mkdir, and is not read" in said[-1] and "Traceback" not in said
    assert not made.exists()


# ---- A disk that takes no more ----


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.999])
def test_a_write_that_fails_is_one_line_and_leaves_the_earlier_checkpoint_whole(tmp_path, share):
    path = tmp_path / "last.ckpt"
    large = {"state_dict": {"weight": torch.ones(100_000)}}
    save(large | {"global_step": 1}, path)
    size = path.stat().st_size
    earlier = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * size), earlier[1]))
    try:
        with pytest.raises(InputError, match=r"last\.ckpt: File too large; free space"):
            save(large | {"global_step": 2}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, earlier)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    check(path)
    assert global_step(path) == 1

"""What several processes compute together is what one computes alone."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from kpod_lightning.__main__ import main
from kpod_lightning.config import LaunchConfig
from kpod_lightning.distributed import ranks
from kpod_lightning.store.errors import InputError

PROGRAM = Path(__file__).parents[1] / "parity.py"
ENVIRONMENT = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
TWO = {
    "ddp": ["--devices", "2"],
    "fsdp": ["--devices", "2", "--strategy", "fsdp"],
    "ddp-lora-accumulated": ["--devices", "2", "--lora", "--accumulate", "2"],
    "fsdp-lora": ["--devices", "2", "--strategy", "fsdp", "--lora", "--checkpointing"],
}


class Trained:
    """What ``parity.py`` wrote of a training."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ranks = [json.loads(path.read_text()) for path in sorted(folder.glob("rank*.json"))]

    @property
    def losses(self) -> dict[int, float]:
        """Loss of every step, over all ranks and micro-batches."""
        found: Counter[int] = Counter()
        for rank in self.ranks:
            for step, part in rank["parts"]:
                found[step] += part
        return dict(found)

    @property
    def seen(self) -> Counter:
        """How often an example was trained on in an epoch."""
        return Counter((epoch, key) for rank in self.ranks for epoch, key in rank["seen"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Trains once for each choice of words, in a folder that is kept for the module."""
    folder = tmp_path_factory.mktemp("parity")
    found: dict[tuple[str, ...], Trained] = {}

    def run(*words: str) -> Trained:
        if words not in found:
            place = folder / str(len(found))
            command = [sys.executable, str(PROGRAM), "--out", str(place), *words]
            done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
            assert done.returncode == 0, done.stderr[-3000:]
            found[words] = Trained(place)
        return found[words]

    return run


SLOW = pytest.mark.slow  # said twice of what the others show, in the other family or the other way round


@pytest.mark.parametrize(
    ("name", "how"),
    [("tiny-llama", how) for how in TWO]
    + [("tiny-t5", "fsdp"), *(pytest.param("tiny-t5", how, marks=SLOW) for how in TWO if how != "fsdp")],
)
def test_losses_of_two_ranks_are_those_of_one(trained, name, how):
    words = TWO[how]
    one = trained("--student", name, *(["--lora"] if "--lora" in words else []))
    two = trained("--student", name, *words)
    assert len(one.losses) == 20 and len(two.ranks) == 2
    for step, loss in one.losses.items():
        assert two.losses[step] == pytest.approx(loss, abs=1e-9 if step < 5 else 1e-7), step
    assert min(rank["moved"] for rank in (*one.ranks, *two.ranks)) > 1e-3  # 20 steps of 1e-3 or 3e-4 have moved it


@pytest.mark.parametrize("how", TWO)
def test_every_example_is_seen_once_an_epoch_and_ranks_agree_on_all_parameters(trained, how):
    two = trained("--student", "tiny-llama", *TWO[how])
    assert set(two.seen.values()) == {1} and len(two.seen) == 5 * 48
    first, second = two.ranks
    assert first["sums"] == second["sums"] and first["norm"] == second["norm"]


@pytest.mark.parametrize(
    ("saved_by", "resumed_by"),
    [
        pytest.param(["--devices", "2", "--strategy", "fsdp"], ["--devices", "1", "--strategy", "fsdp"], marks=SLOW),
        (["--devices", "2", "--strategy", "fsdp"], ["--devices", "3", "--strategy", "fsdp"]),
        (["--devices", "2", "--strategy", "fsdp"], ["--devices", "1"]),
        pytest.param(["--devices", "2"], ["--devices", "2", "--strategy", "fsdp"], marks=SLOW),
        (["--devices", "2"], ["--devices", "3", "--accumulate", "2"]),
    ],
    ids=["fsdp2-fsdp1", "fsdp2-fsdp3", "fsdp2-single", "ddp2-fsdp2", "ddp2-ddp3"],
)
def test_a_checkpoint_goes_on_with_other_ranks_and_another_strategy(trained, tmp_path, saved_by, resumed_by):
    """It was saved after ten steps, inside the third epoch."""
    one = trained("--student", "tiny-llama")
    before = trained("--student", "tiny-llama", *saved_by, "--stop", "10")
    shutil.copytree(before.folder / "checkpoints", tmp_path / "checkpoints")  # going on may convert it
    after = trained("--student", "tiny-llama", *resumed_by, "--resume", str(tmp_path / "checkpoints"))
    assert len(before.losses) == 10
    assert sorted(after.losses) == list(range(10, 20))
    for step, loss in after.losses.items():
        assert loss == pytest.approx(one.losses[step], abs=1e-7), step
    assert set((before.seen + after.seen).values()) == {1} and len(before.seen + after.seen) == 5 * 48


SMALL = [
    "data.num_train=48",
    "data.num_validation=12",
    "data.num_test=101",
    "optim.epochs=2",
    "optim.batch_size=12",
    "schedule.num_stages=1",
    "weights.num_train=24",
    "weights.num_held_out=8",
    "weights.warmup_epochs=1",
    "weights.epochs=1",
    "weights.batch_size=8",
    "weights.if_not_found=uniform",
    "evaluation.batch_size=10",
    "evaluation.max_new_tokens=24",
    "logging.wandb=disabled",
    "launch.accelerator=cpu",
]


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    """The whole of KPOD on one, two and three ranks, and sharded on two; each in a folder with a cache of its own."""
    found = {}
    for name, words in {
        "1": ["launch.devices=1"],
        "2": ["launch.devices=2"],
        "3": ["launch.devices=3"],
        "fsdp": ["launch.devices=2", "launch.strategy=fsdp"],
    }.items():
        folder = tmp_path_factory.mktemp(f"ranks-{name}") / "run"
        command = [sys.executable, "-m", "kpod_lightning", "run", "experiments/arithmetic.yaml", "--run", str(folder)]
        done = subprocess.run([*command, *SMALL, *words], capture_output=True, text=True, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr[-3000:]
        found[name] = folder
    return found


@pytest.mark.parametrize("how", ["2", "3", "fsdp"])
def test_the_pipeline_on_several_ranks_gives_the_predictions_of_one(pipelines, how):
    """101 problems in 11 batches on up to 3 ranks: each is answered once, in the order of the problems."""
    one, other = pipelines["1"], pipelines[how]
    for name in ("test-before", "test", "validation", "ood"):
        path = Path("predictions") / f"{name}.jsonl"
        assert (one / path).read_bytes() == (other / path).read_bytes(), name
    records = (other / "predictions" / "test.jsonl").read_text().splitlines()
    assert len({json.loads(line)["problem_id"] for line in records}) == 101


@pytest.mark.parametrize("how", ["2", "3", "fsdp"])
def test_weights_and_difficulties_on_several_ranks_are_those_of_one(pipelines, how):
    from kpod_lightning.keypoints.table import WeightTable

    one, other = (WeightTable.load(pipelines[n] / "weights.safetensors") for n in ("1", how))
    assert one.rows.keys() == other.rows.keys()
    for key, row in one.rows.items():
        assert other.rows[key].values == pytest.approx(row.values, abs=1e-3)
    for left, right in zip(
        *((pipelines[n] / "difficulties.jsonl").read_text().splitlines() for n in ("1", how)), strict=True
    ):
        assert json.loads(left)["difficulties"] == pytest.approx(json.loads(right)["difficulties"], abs=1e-4)


@pytest.mark.parametrize("how", ["2", "fsdp"])
def test_bad_input_that_is_found_late_is_one_line_and_code_2_on_several_ranks(tmp_path, how):
    settings = ["student.max_length=5", "launch.devices=2", *(["launch.strategy=fsdp"] if how == "fsdp" else [])]
    command = [
        sys.executable,
        "-m",
        "kpod_lightning",
        "run",
        "experiments/arithmetic.yaml",
        "--run",
        str(tmp_path / "r"),
    ]
    done = subprocess.run([*command, *SMALL, *settings], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line.startswith("kpod:")] == [
        "kpod: student.max_length=5 tokens leaves none of 48 examples a target: raise it"
    ]
    assert "Traceback" not in done.stderr


def test_several_machines_without_anything_that_starts_them_are_refused(tmp_path, capsys, monkeypatch):
    for name in ("WORLD_SIZE", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    words = ["run", "experiments/arithmetic.yaml", "--run", str(tmp_path / "r"), "launch.num_nodes=2"]
    assert main(words) == 2
    assert "srun" in capsys.readouterr().err and not (tmp_path / "r").exists()


def test_numbers_of_processes_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert ranks.devices_of(LaunchConfig(num_nodes=2)) == 2
    with pytest.raises(InputError, match="4 processes were started"):
        ranks.devices_of(LaunchConfig(num_nodes=2, devices=4))
    with pytest.raises(InputError, match="single is one"):
        ranks.devices_of(LaunchConfig(strategy="single"))


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("num_batches", [0, 1, 2, 6, 7])
def test_batches_are_dealt_so_that_each_is_done_and_all_ranks_do_equally_many(monkeypatch, world_size, num_batches):
    shares = []
    for rank in range(world_size):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(ranks, "world_size", lambda: world_size)
        shares.append(ranks.share_of(range(num_batches)))
    assert len({len(share) for share in shares}) == 1
    assert {batch for share in shares for batch in share} == set(range(num_batches))


def test_rank_0_that_asks_for_all_ranks_while_they_wait_for_it_stops_instead_of_hanging(monkeypatch):
    class Distributed:
        def broadcast_object_list(self, message, src, group) -> None:
            pass

    monkeypatch.setattr(ranks, "_distributed", Distributed)
    monkeypatch.setattr(ranks, "rank", lambda: 0)
    monkeypatch.setattr(ranks, "world_size", lambda: 2)
    assert ranks.first_rank(lambda: 7) == 7
    with pytest.raises(RuntimeError, match="rank 0 asks for all ranks"):
        ranks.first_rank(lambda: ranks.first_rank(lambda: 7))
    assert ranks.first_rank(lambda: 8) == 8

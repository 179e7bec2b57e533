"""RankSums: sums over batches and ranks, across checkpoints."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch

from kpod_lightning.distributed.sums import RankSums


def test_batches_add_up_until_a_reset():
    sums = RankSums("nats", "rows")
    assert sums.compute() == {"nats": 0.0, "rows": 0.0}
    sums.update(nats=torch.tensor(1.5, requires_grad=True), rows=2)
    sums.update(nats=torch.tensor(2.25), rows=3)
    assert sums.compute() == {"nats": 3.75, "rows": 5.0}
    sums.reset()
    assert sums.compute() == {"nats": 0.0, "rows": 0.0}


def test_other_names_are_refused():
    sums = RankSums("nats", "rows")
    for values in ({"nats": 1.0}, {"nats": 1.0, "rows": 1, "kept": 1}):
        with pytest.raises(ValueError, match="the sums are nats, rows"):
            sums.update(**values)


def test_sums_stay_float64_whatever_the_module_around_them_becomes():
    module = torch.nn.ModuleDict({"sums": RankSums("tokens")})
    module["sums"].update(tokens=2**31 + 1)
    module.to(torch.bfloat16)
    module["sums"].update(tokens=2)
    assert module["sums"].compute() == {"tokens": float(2**31 + 3)}
    assert not module.state_dict() and not list(module.buffers())


RANK = """
import json, sys
from kpod_lightning.config import LaunchConfig
from kpod_lightning.distributed import ranks
from kpod_lightning.distributed.sums import RankSums

with ranks.joined(LaunchConfig(accelerator="cpu", strategy="ddp", devices=2)):
    sums = RankSums("nats", "rows")
    for nats in [[0.5], [1.0, 4.0]][ranks.rank()]:
        sums.update(nats=nats, rows=1)
    saved = sums.compute()
    again = sums.compute()
    resumed = RankSums("nats", "rows")
    resumed.restore(saved)
    own = resumed.totals.tolist()
    if ranks.is_first():
        resumed.update(nats=10.0, rows=1)
    print(json.dumps([saved, again, own, resumed.compute()]))
"""


def test_two_ranks_compute_the_sums_of_both_and_a_resume_counts_them_once():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RANK],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank), "CUDA_VISIBLE_DEVICES": ""},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    found = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    both = {"nats": 5.5, "rows": 3.0}
    assert [part[:2] for part in found] == [[both, both]] * 2
    assert [part[2] for part in found] == [[5.5, 3.0], [0.0, 0.0]]
    assert [part[3] for part in found] == [{"nats": 15.5, "rows": 4.0}] * 2

"""Runs in processes of their own, which may be killed or be ranks; each is a fork of one that has imported everything.

Where ``found`` is true, keypoint weights are taken for found, whatever the check of sufficiency says: so short a
learning finds none, and a training with weights of 1 would say nothing of a training with learned ones.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from slurm_cluster import free_ports

from kpod_lightning.__main__ import main
from kpod_lightning.keypoints.sufficiency import Sufficiency

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "kpod_lightning.runs.pipeline",
        "kpod_lightning.methods.training",
        "peft",
        "sklearn.cluster",
        "transformers.models.llama.modeling_llama",
        "transformers.models.t5.modeling_t5",
    ]
)
PATIENCE = 300.0
"""Seconds after which a run is taken for stuck."""


def _run(words: Sequence[str], said: Path, environment: dict[str, str], found: bool) -> None:
    os.setsid()  # a group of its own, which is killed with its children
    with said.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    if found:
        Sufficiency.reason = None
    sys.exit(main(list(words)))


def begun(
    words: Sequence[str], said: Path, *, found: bool = False, **environment: str
) -> multiprocessing.process.BaseProcess:
    """A process that does ``kpod WORDS``.

    Args:
        said: the file that takes what it prints.
        environment: variables beside those of this process.
    """
    process = FORKS.Process(target=_run, args=(words, said, dict(os.environ) | environment, found))
    process.start()
    return process


def ended(process: multiprocessing.process.BaseProcess, said: Path) -> None:
    """Wait for a process that has to end well; one that is stuck is killed."""
    process.join(PATIENCE)
    process.kill()
    process.join()
    assert process.exitcode == 0, f"exit code {process.exitcode}: {said.read_text()[-3000:]}"


def killed_and_continued(words: Sequence[str], folder: Path, moment: str, *, found: bool = False) -> None:
    """Kill (SIGKILL) the run of a folder once a file of it is there, before its report, and let it go on."""
    said = folder.with_suffix(".said")
    process = begun(words, said, found=found)
    deadline = time.monotonic() + PATIENCE
    while not (folder / moment).exists() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    assert (folder / moment).exists() and not (folder / "report.html").exists(), said.read_text()[-3000:]
    ended(begun(words, said, found=found), said)


def on_two_ranks(words: Sequence[str], folder: Path) -> None:
    """Do ``kpod WORDS`` on two ranks, started as torchrun would."""
    (port,) = free_ports(1)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "WORLD_SIZE": "2"}
    said = [folder.with_suffix(f".said-{rank}") for rank in range(2)]
    ranks = [
        begun(words, file, found=True, RANK=str(rank), LOCAL_RANK=str(rank), **where) for rank, file in enumerate(said)
    ]
    try:
        for process, file in zip(ranks, said, strict=True):
            ended(process, file)
    finally:
        for process in ranks:
            process.kill()

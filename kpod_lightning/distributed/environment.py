"""Environment variables that a command reads, checked before anything is started: a launcher's numbers, devices."""

import os
import re

from kpod_lightning.config import LaunchConfig, LoggingConfig
from kpod_lightning.distributed.ranks import launched_ranks
from kpod_lightning.store.bounds import shortened
from kpod_lightning.store.errors import InputError

MOST_RANKS = 1_000_000

WANDB_MODES = ("online", "offline", "disabled", "shared", "run", "dryrun")


def _number(name: str, least: int, most: int) -> int | None:
    """The whole number that a variable holds; None where it is not set.

    Raises:
        InputError: it holds something else.
    """
    text = os.environ.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,18}", text, flags=re.ASCII) or not least <= int(text) <= most:
        raise InputError(
            f"the environment has {name}={shortened(text)}, where a whole number from {least} to {most} is expected: "
            f"unset {name}, or set it anew"
        )
    return int(text)


def check_environment() -> None:
    """Check the numbers by which a launcher tells a process its place, and others that a library would stumble over.

    Raises:
        InputError: one is no number, or they contradict each other.
    """
    _number("WORLD_SIZE", 1, MOST_RANKS)
    if "SLURM_STEP_ID" in os.environ:  # in a shell of Slurm they are not this process's
        _number("SLURM_NTASKS", 1, MOST_RANKS)
        for name in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"):
            _number(name, 0, MOST_RANKS - 1)
    num_ranks = launched_ranks()
    if num_ranks is not None:
        for name in ("RANK", "LOCAL_RANK"):
            _number(name, 0, num_ranks - 1)
        _number("NODE_RANK", 0, MOST_RANKS)
        _number("MASTER_PORT", 1, 65_535)
    if num_ranks is not None and num_ranks > 1 and not {"RANK", "SLURM_PROCID"} & set(os.environ):
        raise InputError(
            f"the environment has WORLD_SIZE={num_ranks} and no RANK, so this process does not know its place: "
            "unset WORLD_SIZE, or let torchrun set both"
        )
    for name in ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"):  # huggingface_hub reads them at its import
        _number(name, 1, 1_000_000)
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    if not re.fullmatch(r"\s*[1-9]\d{0,4}(\s*,\s*[1-9]\d{0,4})*\s*", threads, flags=re.ASCII):
        raise InputError(
            f"the environment has OMP_NUM_THREADS={shortened(threads)}, where a number of threads is expected: unset it"
        )


def check_surroundings(launch: LaunchConfig, logging: LoggingConfig) -> None:
    """Check that the devices that a run asks for are there, and how it is to be logged; nothing is made before.

    Raises:
        InputError: fewer GPUs than asked for, or a mode that W&B does not have.
    """
    mode = os.environ.get("WANDB_MODE") or "online"
    if logging.wandb == "auto" and mode not in WANDB_MODES:
        raise InputError(
            f"the environment has WANDB_MODE={shortened(mode)}, which is none of {', '.join(WANDB_MODES)}: unset it"
        )
    devices = launch.devices or 1
    if launch.accelerator == "cpu" or (launch.accelerator == "auto" and devices == 1):
        return
    import torch  # slow import, needed only to count GPUs

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if launch.accelerator == "auto" and there == 0:
        return  # so many processes share the cores
    asked = 1 if launched_ranks() is not None else devices  # srun may show each process the GPU of its own alone
    if there < asked:
        hidden = " that CUDA_VISIBLE_DEVICES leaves visible" if "CUDA_VISIBLE_DEVICES" in os.environ else ""
        raise InputError(
            f"launch.accelerator={launch.accelerator} and launch.devices={launch.devices} ask for {asked} GPUs, but "
            f"there are {there}{hidden}: take launch.accelerator=cpu or fewer; `kpod doctor` shows what is there"
        )

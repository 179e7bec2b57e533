"""What a run asks of its machine is looked for before anything is started."""

import pytest
import torch

from kpod_lightning.config import LaunchConfig, LoggingConfig
from kpod_lightning.distributed.environment import check_environment, check_surroundings
from kpod_lightning.store.errors import InputError


@pytest.mark.parametrize(
    ("launch", "gpus", "launched", "refused"),
    [
        ({"accelerator": "gpu"}, 0, None, True),
        ({"accelerator": "gpu"}, 1, None, False),
        ({"accelerator": "gpu", "devices": 8}, 4, None, True),
        ({"accelerator": "gpu", "devices": 8}, 8, None, False),
        ({"accelerator": "gpu", "devices": 8}, 1, "8", False),  # srun binds one GPU to each process
        ({"accelerator": "gpu", "devices": 8}, 0, "8", True),
        ({"accelerator": "auto", "devices": 8}, 4, None, True),
        ({"accelerator": "auto", "devices": 8}, 0, None, False),  # eight processes on the cores
        ({"accelerator": "auto"}, 0, None, False),
        ({"accelerator": "cpu", "devices": 8}, 4, None, False),
    ],
)
def test_gpus_that_are_not_there_are_refused(launch, gpus, launched, refused, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    if launched is not None:
        monkeypatch.setenv("WORLD_SIZE", launched)
    if not refused:
        check_surroundings(LaunchConfig(**launch), LoggingConfig())
        return
    with pytest.raises(InputError, match=f"but there are {gpus}"):
        check_surroundings(LaunchConfig(**launch), LoggingConfig())


def test_what_torchrun_and_srun_set_is_taken(monkeypatch):
    torchrun = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "MASTER_PORT": "29500", "MASTER_ADDR": "node1"}
    for name, value in (torchrun | {"OMP_NUM_THREADS": "4,2"}).items():
        monkeypatch.setenv(name, value)
    check_environment()
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(InputError, match="RANK=4, where a whole number from 0 to 3"):
        check_environment()
    for name in torchrun:
        monkeypatch.delenv(name)
    srun = {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "8", "SLURM_PROCID": "7", "SLURM_LOCALID": "3", "SLURM_NODEID": "1"}
    for name, value in srun.items():
        monkeypatch.setenv(name, value)
    check_environment()
    monkeypatch.setenv("SLURM_PROCID", "x")
    with pytest.raises(InputError, match="SLURM_PROCID=x"):
        check_environment()


def test_what_an_interactive_shell_of_slurm_has_is_not_a_place_of_this_process(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "none")
    check_environment()
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    with pytest.raises(InputError, match="SLURM_NTASKS=none"):
        check_environment()

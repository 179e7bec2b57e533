"""The processes that compute one run together: how they start, what only the first one does, how they wait.

Every process (rank) goes through the whole pipeline. srun or torchrun starts them; without either ``start`` does, on
this machine. The run folder is on a file system that all of them see, and only rank 0 writes there.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from kpod_lightning.config import LaunchConfig
from kpod_lightning.store.errors import InputError

T = TypeVar("T")

GRACE = 60.0
"""Seconds after which the other ranks are killed when one has failed."""

PATIENCE = 10.0
"""Seconds after which ranks that wait for rank 0 print a message."""


def launched_ranks() -> int | None:
    """Number of ranks that srun, torchrun or ``start`` has started; None if this process was started alone."""
    for name in ("WORLD_SIZE", "SLURM_NTASKS"):
        # An interactive shell of Slurm has SLURM_NTASKS too, but no SLURM_STEP_ID.
        if name in os.environ and (name == "WORLD_SIZE" or "SLURM_STEP_ID" in os.environ):
            return int(os.environ[name])
    return None


def devices_of(launch: LaunchConfig) -> int:
    """Processes on this machine.

    Raises:
        InputError: ``launch`` asks for another number of processes than were started.
    """
    # After the ranks have joined, torch knows their number; Lightning may have removed WORLD_SIZE.
    launched = launched_ranks() if _distributed() is None else world_size()
    if launched is not None:
        asked = launched // launch.num_nodes if launch.devices is None else launch.devices
        if launch.strategy == "single" and launched > 1:
            raise InputError(f"{launched} processes were started, but launch.strategy=single is one: take ddp or fsdp")
        if asked * launch.num_nodes != launched:
            raise InputError(
                f"{launched} processes were started, but launch.num_nodes={launch.num_nodes} and "
                f"launch.devices={launch.devices} make {asked * launch.num_nodes}: give srun or torchrun those numbers"
            )
        return asked
    if launch.devices is not None:
        return launch.devices
    if launch.strategy in ("auto", "single") or launch.accelerator == "cpu":
        return 1
    import torch  # slow import, needed only to count GPUs

    return max(1, torch.cuda.device_count())


def start(launch: LaunchConfig, command: Sequence[str]) -> int | None:
    """Run a command once for each device of this machine, and wait; None if there is nothing to start.

    Signals are passed on to every rank; a second Ctrl-C kills them. When one fails the others are killed, so that none
    waits for ever.

    Returns:
        The exit code of the rank that failed first, or 0.

    Raises:
        InputError: more than one machine is asked for, and neither srun nor torchrun has started this process.
    """
    if launched_ranks() is not None:
        return None
    if launch.num_nodes > 1:
        raise InputError(
            f"launch.num_nodes={launch.num_nodes}: several machines need srun (`kpod submit`) or torchrun to start them"
        )
    num_ranks = devices_of(launch)
    if num_ranks == 1:
        return None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = []
    for rank in range(num_ranks):
        place = {"RANK": rank, "LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": num_ranks}
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {name: str(value) for name, value in (place | where).items()}
        # Cores are divided: ranks that each use all of them slow one another down.
        threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // num_ranks))}
        ranks.append(subprocess.Popen(command, env=threads | os.environ | environment))

    interrupted = False

    def pass_on(number: int, _: Any) -> None:
        nonlocal interrupted
        for process in ranks:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL if interrupted and number == signal.SIGINT else number)
        interrupted |= number == signal.SIGINT

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, pass_on)
    failed = 0
    ends = float("inf")
    while any(process.poll() is None for process in ranks):
        codes = [process.returncode for process in ranks if process.returncode]
        if codes and not failed:
            failed, ends = codes[0], time.monotonic() + GRACE
        if time.monotonic() > ends:
            for process in ranks:
                process.kill()
        time.sleep(0.05)
    failed = failed or next((process.returncode for process in ranks if process.returncode), 0)
    return 128 - failed if failed < 0 else failed  # of a signal, as shells count


# ---- Inside a rank ----


_by_itself = False
"""Whether this process does something that the other ranks have no part in."""


@contextmanager
def by_itself() -> Iterator[None]:
    """For work of one rank that the others know nothing of, e.g. ``prepare_data``: inside, nothing waits for them."""
    global _by_itself
    _by_itself = True
    try:
        yield
    finally:
        _by_itself = False


def _distributed() -> Any:
    """``torch.distributed`` if several ranks have joined, else None. It never imports torch by itself."""
    torch = sys.modules.get("torch")
    if _by_itself or torch is None or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return None
    return torch.distributed


def rank() -> int:
    """From 0; of this process among those that were started together."""
    distributed = _distributed()
    if distributed is not None:
        return int(distributed.get_rank())
    return 0 if launched_ranks() is None else int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


def world_size() -> int:
    distributed = _distributed()
    return (launched_ranks() or 1) if distributed is None else int(distributed.get_world_size())


def is_first() -> bool:
    return rank() == 0


def cluster_environment() -> Any:
    """Lightning's source of rank and address. Its requeueing is off, since preemption.py does that at a step's end."""
    from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment

    if launched_ranks() is None or ("NODE_RANK" in os.environ and not TorchElasticEnvironment.detect()):
        return LightningEnvironment()
    return TorchElasticEnvironment() if TorchElasticEnvironment.detect() else SLURMEnvironment(auto_requeue=False)


_waiting: Any = None
"""Process group without a time limit, in which ranks wait for rank 0's work."""


@contextmanager
def joined(launch: LaunchConfig) -> Iterator[None]:
    """Join the ranks that were started together; does nothing if this process was started alone."""
    global _waiting
    if world_size() == 1 or _distributed() is not None:
        yield
        return
    import torch

    devices_of(launch)  # refuses numbers that do not fit
    environment = cluster_environment()
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
    if launch.accelerator != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(environment.local_rank())
    # The default backends: gloo for tensors of the host, NCCL for those of GPUs.
    torch.distributed.init_process_group(rank=rank(), world_size=world_size())
    _waiting = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=30))
    try:
        yield
    finally:
        _waiting = None
        os.environ["WORLD_SIZE"] = str(world_size())  # Lightning removes it when a training ends
        torch.distributed.destroy_process_group()


_alone = False
"""Whether rank 0 is doing what the others wait for."""


def _together() -> Any:
    """``torch.distributed`` where ranks are joined, for what all of them do at once; None for a process alone.

    Raises:
        RuntimeError: rank 0 came here by itself, inside ``first_rank``: it would wait for the others for ever.
    """
    distributed = _distributed()
    if distributed is not None and _alone:
        raise RuntimeError("rank 0 asks for all ranks while they wait for it: do this before first_rank, or outside")
    return distributed


@contextmanager
def _said_that_it_waits(what: str) -> Iterator[None]:
    """Rank 1 prints after ``PATIENCE`` what all ranks but rank 0 wait for."""
    text = f"kpod: {world_size() - 1} ranks wait for rank 0: {what}"
    timer = threading.Timer(PATIENCE, lambda: print(text, file=sys.stderr, flush=True))
    if rank() == 1:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def first_rank(make: Callable[[], T], what: str = "work that one does for all") -> T:
    """Call ``make`` on rank 0 and return its result on every rank; the others wait without a time limit.

    Args:
        make: its result is pickled.
        what: name of the work, for a message if the others wait long.

    Raises:
        InputError: on every rank, where rank 0 raised it.
    """
    global _alone
    distributed = _together()
    if distributed is None:
        return make()
    message: list[Any] = [None, None]
    if is_first():
        _alone = True
        try:
            message[0] = make()
        except InputError as error:
            message[1] = error
        finally:
            _alone = False
    with _said_that_it_waits(what):
        distributed.broadcast_object_list(message, src=0, group=_waiting)
    if message[1] is not None:
        raise message[1]
    return message[0]


def barrier() -> None:
    distributed = _together()
    if distributed is not None:
        distributed.barrier(group=_waiting)


def gathered(rows: Mapping[Any, T]) -> dict[Any, T]:
    """Rows of all ranks by key, on every rank, in the order of the keys of rank 0, then 1, ..."""
    distributed = _together()
    if distributed is None:
        return dict(rows)
    parts: list[Any] = [None] * world_size()
    distributed.all_gather_object(parts, dict(rows), group=_waiting)
    return {key: row for part in parts for key, row in part.items()}


def share_of(batches: Sequence[T]) -> list[T]:
    """This rank's batches, every one on some rank.

    All ranks get the same number, since a sharded model computes on all of them or on none. If the batches cannot be
    divided evenly, some ranks repeat the last one, which another rank does too.
    """
    if not batches or world_size() == 1:
        return list(batches)
    num_rounds = -(-len(batches) // world_size())
    return [batches[min(i * world_size() + rank(), len(batches) - 1)] for i in range(num_rounds)]


def summed(values: Sequence[float]) -> list[float]:
    """Each value's sum over the ranks, in float64."""
    distributed = _together()
    if distributed is None:
        return list(values)
    import torch

    total = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(total, group=_waiting)
    return [float(value) for value in total]

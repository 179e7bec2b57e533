"""One writer at a time, told by real processes."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from kpod_lightning.store.errors import InputError
from kpod_lightning.store.locks import one_writer

HOLDS = """
import os, sys, time
from pathlib import Path
from kpod_lightning.store.locks import one_writer
folder = Path(sys.argv[1])
with one_writer(folder, folder / ".lock"):
    if "forks" in sys.argv:
        ready, say = os.pipe()
        if os.fork() == 0:
            os.write(say, b"x")
            time.sleep(30)
            os._exit(0)
        os.read(ready, 1)  # the first that a fork does is to let go of the lock
    print("held", flush=True)
    time.sleep(30)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that writes in ``tmp_path``; killed at the end."""
    held = []

    def start(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDS, str(tmp_path), *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        held.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield start
    for process in held:
        with suppress(ProcessLookupError):  # the test has killed it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def hold(folder: Path, **options) -> None:
    with one_writer(folder, folder / ".lock", **options):
        pass


@pytest.mark.parametrize("words", [(), ("forks",)], ids=["alone", "with a forked worker that outlives it"])
def test_a_second_writer_is_told_who_writes_and_goes_on_once_that_one_is_killed(holder, tmp_path, words):
    first = holder(*words)
    with pytest.raises(InputError) as caught:
        hold(tmp_path)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path} is being written by process {first.pid} on {socket.gethostname()} since 2")
    first.kill()
    first.wait()
    hold(tmp_path)
    assert not list(tmp_path.iterdir())


def test_all_names_of_a_folder_are_one_lock(holder, tmp_path):
    first = holder()
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(InputError, match=f"process {first.pid} "):
        hold(link)


def test_a_requeued_job_waits_for_what_its_killed_predecessor_leaves_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    command = [sys.executable, "-c", HOLDS.replace("time.sleep(30)", ""), str(tmp_path)]
    with one_writer(tmp_path, tmp_path / ".lock"):
        requeued = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        with pytest.raises(subprocess.TimeoutExpired):
            requeued.wait(timeout=1.5)
    assert requeued.wait(timeout=20) == 0


@pytest.fixture
def no_flock(monkeypatch):
    def missing(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", missing)


def test_without_flock_a_file_names_the_holder_and_only_a_dead_one_of_this_machine_is_taken_over(tmp_path, no_flock):
    lock = tmp_path / ".lock"
    with one_writer(tmp_path, lock), pytest.raises(InputError, match=f"process {os.getpid()} on "):
        hold(tmp_path)
    assert not lock.exists()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    lock.write_text(f"{dead.pid}\n{socket.gethostname()}\n")
    hold(tmp_path, seconds=5)
    lock.write_text(f"{os.getpid()}\nelsewhere\n")
    with pytest.raises(InputError, match=f"process {os.getpid()} on elsewhere since .* delete {lock}"):
        hold(tmp_path)
    lock.unlink()
    hold(tmp_path)

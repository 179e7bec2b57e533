"""A signal stops a run where nothing is lost."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kpod_lightning.__main__ import main
from kpod_lightning.distributed import preemption, signals
from kpod_lightning.distributed.preemption import INTERRUPTED, STOPPED, Preempted, listening

SMALL = [
    "data.num_train=24",
    "data.num_validation=6",
    "data.num_test=6",
    "optim.epochs=3",
    "optim.batch_size=12",
    "schedule.num_stages=1",
    "weights.num_train=12",
    "weights.num_held_out=4",
    "weights.warmup_epochs=1",
    "weights.epochs=1",
    "weights.batch_size=6",
    "weights.if_not_found=uniform",
    "evaluation.max_new_tokens=24",
    "evaluation.batch_size=2",
    "logging.wandb=disabled",
]
COMMAND = ["run", "experiments/arithmetic.yaml"]


def learned(folder):
    """What a run has logged, without its speed."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "train/tokens_per_second"} for row in rows]


def speeds(folder):
    """Tokens a second of every epoch."""
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row["train/tokens_per_second"] for row in rows if "train/stage" in row]


def test_a_run_that_is_stopped_at_every_opportunity_ends_as_the_unbroken_one(tmp_path, monkeypatch):
    """The first start stops at its first opportunity, the second at its second, and so on."""
    unbroken, stopped = tmp_path / "unbroken" / "run", tmp_path / "stopped" / "run"
    assert main([*COMMAND, "--run", str(unbroken), *SMALL]) == 0
    calls = 0

    def asked_to_stop():
        nonlocal calls
        calls += 1
        return Preempted(requeue=False) if calls > len(codes) else None  # a signal stays received

    monkeypatch.setattr(preemption, "asked_to_stop", asked_to_stop)
    codes: list[int] = []
    while not codes or codes[-1] == STOPPED:
        calls = 0
        codes.append(main([*COMMAND, "--run", str(stopped), *SMALL]))
    assert codes[-1] == 0 and len(codes) > 5
    assert learned(stopped) == learned(unbroken)
    slowest, fastest = min(speeds(stopped)), max(speeds(unbroken))
    assert fastest / 50 < slowest  # every process that had a part in an epoch measures only that part
    for name in ("weights.safetensors", "difficulties.jsonl", "student/model.safetensors", "predictions/test.jsonl"):
        assert (stopped / name).read_bytes() == (unbroken / name).read_bytes(), name


def test_a_run_whose_epochs_have_one_step_stops_between_them(tmp_path, monkeypatch):
    """After its last batch an epoch's validation and row are still to come, so it stops at the next one's start."""
    run = tmp_path / "run"
    words = [*COMMAND, "--run", str(run), *SMALL, "method=plain", "optim.batch_size=24", "evaluation.every=2"]
    monkeypatch.setattr(
        preemption, "asked_to_stop", lambda: Preempted(requeue=False) if (run / "checkpoints").exists() else None
    )
    assert main(words) == STOPPED
    monkeypatch.setattr(
        preemption, "asked_to_stop", lambda: Preempted(requeue=False) if len(learned(run)) == 1 else None
    )
    assert [main(words), [row["epoch"] for row in learned(run)]] == [STOPPED, [0]]
    monkeypatch.undo()
    assert main(words) == 0
    assert [row["epoch"] for row in learned(run) if "train/stage" in row] == [0, 1, 2]


LINE = "kpod: stopped by a signal; the same command goes on from here"


def started(run):
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    environment = {name: value for name, value in environment.items() if not name.startswith("SLURM_")}
    command = [sys.executable, "-m", "kpod_lightning", *COMMAND, "--run", str(run), *SMALL, "method=plain"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize(
    ("number", "times", "code"),
    [(signal.SIGTERM, 3, STOPPED), (signal.SIGUSR1, 3, STOPPED), (signal.SIGINT, 1, INTERRUPTED)],
)
def test_a_signal_ends_the_command_with_its_code_and_one_line(tmp_path, number, times, code):
    run = tmp_path / "run"
    process = started(run)
    deadline = time.monotonic() + 120
    while not (run / "rationales.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    for _ in range(times):  # repeated signals are one
        process.send_signal(number)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == code
    assert said.splitlines()[-1] == LINE
    assert "Traceback" not in said and not (run / "report.html").exists()


def catches(pid, number):
    """Whether a process has a handler of a signal, as Linux says."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="Linux says which signals a process catches")
@pytest.mark.parametrize(
    ("number", "seconds", "code"),
    [(signal.SIGINT, 0.0, INTERRUPTED), (signal.SIGTERM, 0.05, STOPPED), (signal.SIGINT, 1.5, INTERRUPTED)],
)
def test_a_signal_while_the_command_still_loads_ends_it_the_same_way(tmp_path, number, seconds, code):
    """A Python that has only just begun knows no handlers; the command's stand before it imports anything else."""
    process = started(tmp_path / "run")
    deadline = time.monotonic() + 60
    while not catches(process.pid, signal.SIGTERM) and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(seconds)
    process.send_signal(number)
    said = process.communicate(timeout=120)[1]
    assert (process.returncode, said) == (code, LINE + "\n")


def test_a_second_interrupt_ends_the_command_at_once():
    code = (
        "import os, signal\n"
        "from kpod_lightning.distributed.preemption import listening\n"
        "with listening():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('goes on', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('not reached', flush=True)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (-signal.SIGINT, "goes on\n", "")


def test_handlers_are_given_back_and_a_late_signal_is_ignored():
    earlier = {number: signal.getsignal(number) for number in signals.SIGNALS}
    try:
        with listening():
            os.kill(os.getpid(), signal.SIGUSR1)
            stop = preemption.asked_to_stop()
            assert stop is not None and stop.requeue
        assert signal.getsignal(signal.SIGTERM) is earlier[signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGUSR1)
        with listening():
            assert preemption.asked_to_stop() is None
            os.kill(os.getpid(), signal.SIGTERM)
            stop = preemption.asked_to_stop()
            assert (
                stop is not None and not stop.requeue and not stop.interrupted
            )  # Slurm puts the job back by itself, or it was cancelled
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)

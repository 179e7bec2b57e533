"""CPU time of every phase of the default run, against another checkout's; KPOD's own phases against plain training.

    python -m benchmarks.bench_phases [--against FOLDER] [--rounds N] [key=value ...]

A run is a process of its own with one thread; with ``--against`` the two checkouts take turns. The default run takes
ten minutes of CPU time; ``data.num_train=400`` and the like shorten it.
"""

import argparse
import contextlib
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RUN = ("experiments/arithmetic.yaml", "seed=0", "method=kpod", "logging.wandb=disabled")
OWN = ("weights.safetensors", "difficulties.jsonl", "schedule.npz")
"""Artefacts that only KPOD makes; of them only the learning of the weights does not grow with the train set."""
LEARNING = "weights.safetensors"
GSM8K, EPOCHS = 7_473, (3, 6, 20)
"""Size of its train split; epochs of our tiny experiment, of the default run, and of the paper's LLaMA."""
CLASSES = {
    "Run": ("kpod_lightning.runs.folder", "kpod_lightning.run"),
    "Context": ("kpod_lightning.methods.context",),
    "TrainSet": ("kpod_lightning.train_set",),
}
"""Where what is timed may lie: now, and in an older checkout. ``examples`` of the last two tokenises the train set."""


# ---- Inside the process whose phases are timed ----


class Clock:
    """CPU seconds by name since the process began. A part inside another is taken out of it: the sum is the whole."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.stack = ["start and end"]
        self.last = 0.0

    def lap(self) -> None:
        now, name = time.process_time(), self.stack[-1]
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.lap()
        self.stack.append(name.format(outer=self.stack[-1]))
        try:
            yield
        finally:
            self.lap()
            self.stack.pop()

    def watch(self, owner: type, method: str, name: str = "") -> None:
        """Time a method as a part; without a name it is called by its first argument."""
        plain = getattr(owner, method)

        def watched(self_: Any, *given: Any, **named: Any) -> Any:
            with self.part(name or given[0]):
                return plain(self_, *given, **named)

        setattr(owner, method, watched)


def found(name: str) -> Any:
    """A class of ``CLASSES`` in this checkout, or None. By its file: an installed checkout would answer for others."""
    import kpod_lightning

    root = Path(str(kpod_lightning.__file__)).parents[1]
    there = [m for m in CLASSES[name] if (root / m.replace(".", "/")).with_suffix(".py").is_file()]
    return getattr(importlib.import_module(there[0]), name) if there else None


def timed_run(out: Path, folder: str, words: Sequence[str]) -> None:
    """``kpod run`` in this process, with artefacts and Lightning's loops on the clock."""
    import torch
    from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
    from lightning.pytorch.loops.prediction_loop import _PredictionLoop

    torch.set_num_threads(1)
    clock = Clock()
    clock.watch(found("Run"), "artefact")
    clock.watch(_EvaluationLoop, "run", "{outer}: validation")
    clock.watch(_PredictionLoop, "run", "{outer}: all rationales")
    examples = (found("Context") or found("TrainSet")).__dict__["examples"]
    tokenised = examples.func

    def timed(self: Any) -> Any:
        with clock.part("tokens"):
            return tokenised(self)

    examples.func = timed
    from kpod_lightning.__main__ import main as kpod

    sys.argv = ["kpod", "run", *words, "--run", folder]
    if code := kpod():
        sys.exit(code)
    clock.lap()
    out.write_text(json.dumps(clock.seconds), encoding="utf-8")


# ---- From outside ----


def phases_of(checkout: Path, words: Sequence[str]) -> dict[str, float]:
    """CPU seconds by phase of a run with the package of a checkout.

    Raises:
        RuntimeError: the run failed; the message is the end of what it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "seconds.json"
        command = [sys.executable, str(Path(__file__).resolve()), "--inside", str(out), f"{folder}/run", *words]
        threads = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
        done = subprocess.run(
            command, cwd=checkout, env=os.environ | threads, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if not out.is_file():
            raise RuntimeError(f"{checkout}: the run ended with {done.returncode}: {done.stdout[-2000:]}")
        seconds: dict[str, float] = json.loads(out.read_text(encoding="utf-8"))
    return seconds


def medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: statistics.median(run.get(name, 0.0) for run in runs) for name in names}


def share_of_own(
    seconds: dict[str, float], num_train: int, epochs_of_run: int, more_learned: float = 1.0
) -> dict[str, float]:
    """KPOD's own phases over the training of the plain method at GSM8K's size, by numbers of epochs.

    Extrapolated by counts of examples. The learning of the weights takes what it takes here times ``more_learned``, how
    many times as many rationales it would read there. All else grows with the train set. An epoch of KPOD stands for
    one of plain, which takes as long (the section ``kpod`` measures it).
    """
    more = GSM8K / num_train
    own = sum(s * (more_learned if name == LEARNING else more) for name, s in seconds.items() if name.startswith(OWN))
    epoch = seconds["student"] / epochs_of_run * more
    return {f"{number} epochs": own / (number * epoch) for number in EPOCHS}


def num_learned(weights: Any, num_train: int) -> int:
    """Rationales that weights are learned from, of so many: those held out are not."""
    left = num_train - min(weights.num_held_out, num_train // 5)
    return min(weights.num_train or left, left)


def measure(against: Path | None = None, *, rounds: int = 1, words: Sequence[str] = ()) -> dict[str, Any]:
    """Seconds by phase, medians over rounds, and their ratios.

    Args:
        against: root of another checkout of this repository.
        words: further settings of the run.

    Returns:
        ``seconds`` and ``total``; with ``against`` also ``their_seconds`` and ``ratio``, ours over theirs, by phase and
        of the ``whole``; ``own_share``, of KPOD's own phases in plain training at GSM8K's size, extrapolated.
    """
    from kpod_lightning.methods.base import load_experiment

    config = load_experiment(ROOT / RUN[0], [*RUN[1:], *words])
    turns = [ROOT, against] if against else [ROOT]
    runs = [[phases_of(checkout, (*RUN, *words)) for checkout in turns] for _ in range(rounds)]
    seconds = medians([run[0] for run in runs])
    size = config.data.num_train or GSM8K
    result: dict[str, Any] = {
        "seconds": seconds,
        "total": sum(seconds.values()),
        "own_share": share_of_own(
            seconds, size, config.optim.epochs, num_learned(config.weights, GSM8K) / num_learned(config.weights, size)
        ),
        "rounds": rounds,
    }
    if against:
        theirs = medians([run[1] for run in runs])
        ratio = {name: seconds[name] / theirs[name] for name in seconds if theirs.get(name)}
        whole = statistics.median(sum(ours.values()) / sum(other.values()) for ours, other in runs)
        result |= {"their_seconds": theirs, "ratio": ratio | {"whole": whole}}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="root of another checkout")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each checkout (default: 1)")
    parser.add_argument("words", nargs="*", metavar="key=value", help="settings of the run")
    asked = parser.parse_args()
    result = measure(asked.against and asked.against.resolve(), rounds=asked.rounds, words=asked.words)
    theirs, ratio = result.get("their_seconds", {}), result.get("ratio", {})
    for name, seconds in result["seconds"].items():
        other = f"{theirs[name]:9.1f} {ratio[name]:6.2f}" if name in ratio else ""
        print(f"{seconds:9.1f} {other}  {name}")
    print(f"{result['total']:9.1f} s in all" + (f", {ratio['whole']:.2f} times theirs" if ratio else ""))
    shares = ", ".join(f"{share:.1%} of {epochs}" for epochs, share in result["own_share"].items())
    print(f"KPOD's own phases at GSM8K's size, extrapolated by counts: {shares} of plain training")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        timed_run(Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
    else:
        main()

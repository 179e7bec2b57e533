"""Training: target tokens a second of this package against a bare loop, HF Trainer and TRL, on the same examples.

Each contender has a process of its own, and all of one student take turns: an epoch of the one, of the next, and so on,
several rounds of it; the first epoch of each is not counted.
"""

import json
import pickle
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.progress import track

from benchmarks.contenders import BATCH_SIZE, NAMES, Task
from benchmarks.inputs import data_name, examples_of
from benchmarks.measure import ROOT, Options, Ratio
from kpod_lightning.data.examples import Example

PEERS = ("bare", "hf", "hf_grouped", "trl", "trl_packed")
OURS = ("plain", "kpod", "dft")


class Size(NamedTuple):
    """Steps of an epoch, rounds, and who trains."""

    steps: int
    rounds: int
    contenders: tuple[str, ...]


SIZES = {
    "tiny-llama": Size(12, 7, (*OURS, *PEERS)),
    "llama-6.6k": Size(6, 5, (*OURS, *PEERS)),
    "llama-49k": Size(4, 5, (*OURS, *PEERS, "trl_packed_dft")),
    "llama-151k": Size(4, 3, ("plain", *PEERS)),
    "smollm2-135m-q4": Size(4, 3, ("plain", "hf", "trl_packed")),
}
DEFAULT = ("tiny-llama", "llama-6.6k", "llama-49k", "llama-151k")
"""SmolLM2 has 135 million parameters: it is measured where it is asked for."""

GOALS = {"tiny-llama": 1.6, "llama-6.6k": 1.6, "llama-49k": 1.9, "llama-151k": 2.2}
"""Against HF Trainer as it is."""
TUNED, TUNED_GOAL = ("hf_grouped", "trl_packed"), 1.2
MEMORY_LIMITS = {"llama-151k": 0.55}
WEIGHTED_LIMIT = 1.02
POOL = 1600


class Child:
    """A contender's process."""

    def __init__(self, task_file: Path, student: str, contender: str, threads: int) -> None:
        self.log = task_file.with_name(f"{contender}.log")
        command = [sys.executable, "-m", "benchmarks.child", str(task_file), student, contender, str(threads)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def hear(self) -> dict[str, Any]:
        """The next line.

        Raises:
            RuntimeError: the process has ended.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.log.stem} ended:\n{self.log.read_text()[-2000:]}")
        found: dict[str, Any] = json.loads(line)
        return found

    def epoch(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.hear()

    def end(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


@contextmanager
def started(task: Task, student: str, contenders: Sequence[str], threads: int) -> Iterator[dict[str, Child]]:
    """A process for each contender, with its student loaded; they end with the block."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        file = Path(name) / "task"
        file.write_bytes(pickle.dumps(task))
        children = {}
        for contender in contenders:
            children[contender] = Child(file, student, contender, threads)
            stack.callback(children[contender].end)
        for child in children.values():
            child.hear()
        yield children


def grouped_batches(examples: Sequence[Example], num_batches: int) -> list[Example]:
    """Some batches, as Hugging Face's sampler by length cuts all examples.

    Every contender trains on these examples, so that grouping has many to choose from and all have the same tokens.
    """
    from transformers.trainer_pt_utils import LengthGroupedSampler

    lengths = [len(example) for example in examples]
    order = list(LengthGroupedSampler(BATCH_SIZE, lengths=lengths, generator=torch.Generator().manual_seed(0)))
    whole = len(order) // BATCH_SIZE
    chosen = np.random.default_rng(0).choice(whole, min(whole, num_batches), replace=False)
    return [examples[i] for batch in chosen for i in order[batch * BATCH_SIZE : (batch + 1) * BATCH_SIZE]]


def measured(
    task: Task, student: str, contenders: Sequence[str], rounds: int, threads: int
) -> dict[str, list[dict[str, Any]]]:
    """What each contender's epochs took, the first left out."""
    found: dict[str, list[dict[str, Any]]] = {contender: [] for contender in contenders}
    turns = [contender for number in range(rounds + 1) for contender in (contenders, contenders[::-1])[number % 2]]
    with started(task, student, contenders, threads) as children:
        for contender in track(turns, f"training {student}", transient=True):
            found[contender].append(children[contender].epoch())
    return {contender: epochs[1:] for contender, epochs in found.items()}


def compared(student: str, found: dict[str, list[dict[str, Any]]], num_targets: int, note: str = "") -> list[Ratio]:
    """Ratios of throughput, of memory, and of a weighted step to a plain one."""

    def column(contender: str, key: str) -> list[float]:
        return [epoch[key] for epoch in found[contender]]

    def ratio(name: str, ours: str, peer: str, key: str = "cpu", **others: Any) -> Ratio:
        mine, theirs = column(ours, key), column(peer, key)
        scale = num_targets if key == "cpu" else 2**20
        shown = (scale / statistics.median(mine), scale / statistics.median(theirs))
        if key == "peak":
            shown = (max(mine) / scale, max(theirs) / scale)
        more = {"wall": statistics.median(column(peer, "wall")) / statistics.median(column(ours, "wall"))}
        more["memory"] = max(column(ours, "peak")) / max(column(peer, "peak"))
        values = [b / a for a, b in zip(mine, theirs, strict=True)]
        if "at_most" in others:
            values = [1 / value for value in values]
        unit = "MiB" if key == "peak" else "target tokens a CPU second"
        return Ratio(
            name=name,
            peer=NAMES[peer],
            values=values,
            ours=shown[0],
            theirs=shown[1],
            unit=unit,
            note=note,
            more=more if key == "cpu" else {},
            **others,
        )

    rows = []
    for peer in (key for key in found if key not in OURS):
        ours = "dft" if peer.endswith("dft") and "dft" in found else "plain"
        goal = GOALS.get(student) if peer == "hf" else TUNED_GOAL if peer in TUNED else None
        rows.append(ratio(f"{student}, {ours}", ours, peer, goal=goal))
        if peer == "hf":
            rows.append(
                ratio(f"{student}, peak memory", "plain", peer, "peak", at_most=MEMORY_LIMITS.get(student, 1.0))
            )
    if "kpod" in found:
        rows.append(ratio(f"{student}, time of a kpod step", "kpod", "plain", at_most=WEIGHTED_LIMIT))
    if "dft" in found:
        rows.append(ratio(f"{student}, time of a dft step", "dft", "plain", at_most=1.1))
    return rows


def contenders_here(asked: Sequence[str]) -> tuple[str, ...]:
    """Those whose packages are installed."""
    return tuple(name for name in asked if not name.startswith("trl") or find_spec("trl") is not None)


def measure(options: Options) -> list[Ratio]:
    rows = []
    for student in options.students or DEFAULT:
        size = SIZES[student]
        rounds = options.rounds or (1 if options.quick else size.rounds)
        steps = 2 if options.quick else size.steps
        pool = examples_of(student, options, 10 * BATCH_SIZE if options.quick else POOL)
        task = Task(examples=grouped_batches(pool, steps), epochs=rounds + 1)
        found = measured(task, student, contenders_here(size.contenders), rounds, options.threads)
        note = f"{data_name(options)}, batch {BATCH_SIZE}, {steps} steps a round"
        rows += compared(student, found, task.num_targets, note)
    return rows

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
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.contenders import BATCH_SIZE, NAMES, Task
from benchmarks.inputs import data_name, examples_of
from benchmarks.measure import ROOT, Options, Ratio
from kpod_lightning.data.examples import Example
from kpod_lightning.distributed.progress import shown

PEERS = ("bare", "hf", "hf_grouped", "trl", "trl_packed")
OURS = ("plain", "kpod", "dft")


class Size(NamedTuple):
    """Steps of an epoch, rounds, and who trains."""

    steps: int
    rounds: int
    contenders: tuple[str, ...]


SIZES = {
    "tiny-llama": Size(8, 5, (*OURS, *PEERS)),
    "llama-6.6k": Size(8, 3, (*OURS, *PEERS)),
    "llama-49k": Size(6, 3, (*OURS, *PEERS, "trl_packed_dft")),
    "llama-151k": Size(4, 2, ("plain", *PEERS)),
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
    They are spread evenly over all lengths: mixed anew, few batches drawn at random would pad less than the train set
    does.
    """
    from transformers.trainer_pt_utils import LengthGroupedSampler

    lengths = [len(example) for example in examples]
    order = list(LengthGroupedSampler(BATCH_SIZE, lengths=lengths, generator=torch.Generator().manual_seed(0)))
    whole = len(order) // BATCH_SIZE
    batches = [order[start * BATCH_SIZE : (start + 1) * BATCH_SIZE] for start in range(whole)]
    batches.sort(key=lambda batch: sum(lengths[i] for i in batch))
    num_batches = min(whole, num_batches)
    spread = [batches[int((place + 0.5) * whole / num_batches)] for place in range(num_batches)]
    return [examples[i] for batch in spread for i in batch]


def filled(task: Task) -> tuple[float, float]:
    """Share of tokens among the positions of padded batches in random order, and share of targets among the tokens."""
    used = padded = 0
    for epoch in range(task.epochs):
        lengths = [len(example) for example in task.shuffled(epoch)]
        batches = [lengths[start : start + BATCH_SIZE] for start in range(0, len(lengths), BATCH_SIZE)]
        used += sum(lengths)
        padded += sum(len(batch) * max(batch) for batch in batches)
    return used / padded, task.num_targets * task.epochs / used


def measured(
    task: Task, student: str, contenders: Sequence[str], rounds: int, threads: int
) -> dict[str, list[dict[str, Any]]]:
    """What each contender's epochs took, the first left out."""
    found: dict[str, list[dict[str, Any]]] = {contender: [] for contender in contenders}
    turns = [contender for number in range(rounds + 1) for contender in (contenders, contenders[::-1])[number % 2]]
    with started(task, student, contenders, threads) as children:
        for contender in shown(turns, f"training {student}", len(turns), few=0):
            found[contender].append(children[contender].epoch())
    return {contender: epochs[1:] for contender, epochs in found.items()}


@dataclass(frozen=True, kw_only=True)
class Table:
    """What the contenders' epochs took, for one student.

    ``clock`` is cpu, or wall where a GPU does the work.
    """

    student: str
    epochs: dict[str, list[dict[str, Any]]]
    num_targets: int
    note: str = ""
    clock: str = "cpu"

    def column(self, contender: str, key: str) -> list[float]:
        return [epoch[key] for epoch in self.epochs[contender]]

    def shared(self, what: str, peer: str) -> dict[str, Any]:
        return {"name": f"{self.student}, {what}", "peer": NAMES[peer], "note": self.note}

    def memory(self, ours: str, peer: str, at_most: float | None = None) -> Ratio:
        """Our peak above what the process held before it had a student, over theirs."""
        mine, theirs = (max(self.column(contender, "peak")) / 2**20 for contender in (ours, peer))
        shared = self.shared(f"peak memory of {ours}", peer)
        return Ratio(values=[mine / theirs], ours=mine, theirs=theirs, unit="MiB", at_most=at_most, **shared)

    def speed(self, ours: str, peer: str, *, step: bool = False, **target: float | None) -> Ratio:
        """Our throughput over theirs; or, of a ``step``, our time over theirs."""
        mine, theirs = self.column(ours, self.clock), self.column(peer, self.clock)
        values = [a / b if step else b / a for a, b in zip(mine, theirs, strict=True)]
        wall = statistics.median(self.column(peer, "wall")) / statistics.median(self.column(ours, "wall"))
        return Ratio(
            values=values,
            ours=self.num_targets / statistics.median(mine),
            theirs=self.num_targets / statistics.median(theirs),
            unit={"cpu": "target tokens a CPU second", "wall": "target tokens a second"}[self.clock],
            more={"wall": 1 / wall if step else wall, "memory": self.memory(ours, peer).median},
            **self.shared(f"time of a {ours} step" if step else ours, peer),
            **target,
        )


def compared(table: Table, student: str) -> list[Ratio]:
    """Ratios of throughput, of memory, and of a weighted step to a plain one.

    Args:
        student: whose targets these are.
    """
    rows = []
    for peer in (key for key in table.epochs if key not in OURS):
        goal = GOALS.get(student) if peer == "hf" else TUNED_GOAL if peer in TUNED else None
        ours = "dft" if peer.endswith("dft") else "plain"
        rows.append(table.speed(ours, peer, goal=goal))
    if "hf" in table.epochs:
        rows.append(table.memory("plain", "hf", MEMORY_LIMITS.get(student)))
    limits = {"kpod": WEIGHTED_LIMIT, "dft": None}
    rows += [table.speed(o, "plain", step=True, at_most=limit) for o, limit in limits.items() if o in table.epochs]
    return rows


def contenders_here(asked: Sequence[str]) -> tuple[str, ...]:
    """Those whose packages are installed."""
    return tuple(name for name in asked if not name.startswith("trl") or find_spec("trl") is not None)


def measure(options: Options) -> Iterator[Ratio]:
    for student in options.students or DEFAULT:
        size = SIZES[student]
        rounds = options.rounds or (1 if options.quick else size.rounds)
        steps = 2 if options.quick else size.steps
        pool = examples_of(student, options, 10 * BATCH_SIZE if options.quick else POOL)
        task = Task(examples=grouped_batches(pool, steps), epochs=rounds + 1)
        found = measured(task, student, contenders_here(size.contenders), rounds, options.threads)
        tokens, targets = filled(task)
        note = (
            f"{student}: {data_name(options)}, batch {BATCH_SIZE}, {steps} steps a round; {100 * tokens:.0f} % of "
            f"padded positions are tokens, {100 * targets:.0f} % of these are targets"
        )
        yield from compared(Table(student=student, epochs=found, num_targets=task.num_targets, note=note), student)

"""Time a rationale of each phase on the data, at 1, 10 and 100 times as many; 1: it grows as they do."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.inputs import rationales, write_table
from benchmarks.measure import Options, Ratio, seconds_of
from kpod_lightning.curricula.schedule import build_schedule
from kpod_lightning.data.datamodule import ExampleDataModule
from kpod_lightning.data.example_table import ExampleTable
from kpod_lightning.data.stages import Progress
from kpod_lightning.distributed.progress import shown
from kpod_lightning.students.student import load_student

BASE, FACTORS = 500, (1, 10, 100)
LIMIT = 1.2
TOKENISING = "tokenising and the table"


def work(size: int, folder: Path) -> dict[str, Callable[[], object]]:
    """The phases at a size, each ready to run; later ones use what the first has made."""
    made, student = rationales(Options(), size), load_student("tiny-llama")
    write_table(made, student, folder)
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 8, size)
    difficulties = np.split(rng.lognormal(0, 0.7, lengths.sum()), np.cumsum(lengths)[:-1])
    clusters = rng.choice(5, size)

    def tokenise() -> None:
        with tempfile.TemporaryDirectory() as again:
            write_table(made, student, Path(again) / "table")

    def order() -> None:
        data = ExampleDataModule(
            ExampleTable(folder),
            encoder_decoder=False,
            pad_token_id=0,
            eos_token_id=1,
            batch_size=8,
            group_by_length=True,
        )
        data.micro_batches(Progress(epoch=0))

    return {
        TOKENISING: tokenise,
        "the order of an epoch": order,
        "the schedule, 10 stages": lambda: build_schedule(difficulties, clusters, 10),
    }


def measure(options: Options) -> list[Ratio]:
    """
    Returns:
        Time a rationale at each size over that at the smallest, which is the peer.
    """
    base, rounds = (20, 1) if options.quick else (BASE, options.rounds or 3)
    seconds: dict[str, dict[int, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        works = {factor: work(base * factor, Path(name) / str(factor)) for factor in FACTORS}
        turns = [factor for _ in range(rounds) for factor in FACTORS]
        for factor in shown(turns, "growth", len(turns), few=0):
            for phase, run in works[factor].items():
                # Small ones are repeated: a millisecond cannot be told from the clock's own grain.
                repeats = max(1, (10 if phase == TOKENISING else FACTORS[-1]) // factor)
                taken = seconds_of(lambda run=run, repeats=repeats: [run() for _ in range(repeats)])[0]
                seconds.setdefault(phase, {}).setdefault(factor, []).append(taken / (repeats * base * factor))
    return [
        Ratio(
            name=f"{phase}, {base * factor:,} rationales",
            peer=f"itself a rationale, {base:,} rationales",
            values=[large / small for large, small in zip(by_size[factor], by_size[1], strict=True)],
            at_most=LIMIT,
            ours=1e6 * float(np.median(by_size[factor])),
            theirs=1e6 * float(np.median(by_size[1])),
            unit="CPU microseconds a rationale",
            note="generated arithmetic; a ratio below 1 is a cost that does not grow",
        )
        for phase, by_size in seconds.items()
        for factor in FACTORS[1:]
    ]

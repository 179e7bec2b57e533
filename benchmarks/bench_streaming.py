"""What a large train set holds in memory: reading, selecting and tokenising it, and the loader of a stage.

Problems and a teacher's rationales are made by the generator, a file of each, two rationales a problem. Measured is the
memory of the process itself, without pages of files that it reads, which the system takes back when it needs them. Each
size runs in a process of its own; the difference of two sizes is what one more rationale costs. The arguments are
numbers of problems, e.g. 2500000.
"""

import dataclasses
import json
import logging
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np

SIZES = (50_000, 500_000)
NUM_STAGES, NUM_BATCHES = 10, 200


def anonymous_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


class Peak(threading.Thread):
    """Largest memory since ``mark``, looked at twenty times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.largest, self.began = 0.0, time.perf_counter()

    def run(self) -> None:
        while True:
            self.largest = max(self.largest, anonymous_mib())
            time.sleep(0.05)

    def mark(self, what: str) -> dict[str, float | str]:
        now = time.perf_counter()
        row = {"what": what, "seconds": now - self.began, "MiB": self.largest}
        self.largest, self.began = anonymous_mib(), now
        return row


def write_files(folder: Path, num_problems: int) -> None:
    from kpod_lightning.data.arithmetic import generate

    made = [m.problem for m in generate("train", 2000, seed=0)]
    for split, number in (("train", num_problems), ("validation", 20), ("test", 20)):
        with (folder / f"{split}.jsonl").open("w") as file:
            for i in range(number):
                row = {**dataclasses.asdict(made[i % len(made)]), "id": f"{split}-{i}", "rationale": None}
                file.write(json.dumps(row) + "\n")
    with (folder / "teacher.jsonl").open("w") as file:
        for i in range(num_problems):
            for sample in range(2):
                text = f"{'First, ' * sample}{made[i % len(made)].rationale}"
                file.write(json.dumps({"problem_id": f"train-{i}", "sample": sample, "rationale": text}) + "\n")


def measure(num_problems: int) -> None:
    from kpod_lightning.data.datamodule import ExampleDataModule
    from kpod_lightning.data.example_table import ExampleTable
    from kpod_lightning.data.stages import InputSteps, Progress
    from kpod_lightning.methods.base import load_experiment
    from kpod_lightning.runs.run import run_pipeline
    from kpod_lightning.store.ragged import Ragged
    from kpod_lightning.students.student import load_student

    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    student = load_student("tiny-llama")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, num_problems)
        settings = ["data.dataset=own", f"data.dir={folder}", "logging.wandb=disabled", "rationales.source=recorded"]
        settings += [f"rationales.teacher={folder / 'teacher.jsonl'}", "rationales.num_per_problem=2"]
        config = load_experiment(None, settings)
        peak = Peak()
        peak.start()
        rows = []
        for until in ("rationales", "tokens"):
            run_pipeline(config, folder / "runs" / "r", until=until)
            rows.append(peak.mark(until))
        (table,) = (folder / "runs" / ".cache").glob("*/examples")
        examples = ExampleTable(table)
        weights = Ragged.stored((np.ones(n) for n in examples.num_targets), np.float64)
        data = ExampleDataModule(
            examples,
            encoder_decoder=False,
            pad_token_id=student.pad_token_id,
            eos_token_id=student.tokenizer.eos_token_id,
            batch_size=16,
            group_by_length=True,
            stages=InputSteps(list(np.zeros((NUM_STAGES + 1, len(examples)), np.int64))),
            token_weights=weights,
        )
        rows.append(peak.mark("weights and schedule"))
        batches = data.micro_batches(Progress(epoch=0))
        rows.append(peak.mark("loader of a stage"))
        for i in range(NUM_BATCHES):
            data.dataset[batches[i]]
        rows.append(peak.mark(f"{NUM_BATCHES} batches"))
    print(json.dumps({"rationales": len(examples), "phases": rows}))


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        measure(int(sys.argv[2]))
        return
    found = []
    for size in [int(word) for word in sys.argv[1:]] or SIZES:
        command = [sys.executable, __file__, "--one", str(size)]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found.append(json.loads(said.splitlines()[-1]))
        print(f"{found[-1]['rationales']} rationales")
        for row in found[-1]["phases"]:
            print(f"  {row['what']}: {row['seconds']:.1f} s, largest {row['MiB']:.0f} MiB", flush=True)
    if len(found) > 1:
        small, large = found[0], found[-1]
        for one, other in zip(small["phases"], large["phases"], strict=True):
            more = (other["MiB"] - one["MiB"]) * 2**20 / (large["rationales"] - small["rationales"])
            print(f"{one['what']}: {more:.0f} bytes for each more rationale")


if __name__ == "__main__":
    main()

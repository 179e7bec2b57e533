"""Teachers: requests a second against the bound of concurrency / latency; the time to take up 100,000 rows.

The command runs against the tests' server on this machine, which answers after a fixed latency.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import teacher_server

CONCURRENCY = 64
PRICES = ["teacher.prices.input=1", "teacher.prices.output=4", "budget=10000"]


def write_problems(folder: Path, number: int) -> list[str]:
    """Problems of their own; the settings that read them."""
    folder.mkdir(parents=True)
    for split, size in (("train", number), ("validation", 1), ("test", 1)):
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for i in range(size):
                question = f"Ann has {i} pens and Bob has {i % 7} pens. How many pens do they have in all?"
                row = {"id": f"{split}-{i}", "question": question, "answer": str(i + i % 7), "rationale": "It adds."}
                file.write(json.dumps(row) + "\n")
    return ["data.dataset=own", f"data.dir={folder}", "data.num_train=null", "rationales.source=human"]


def command(url: str, out: Path, *settings: str) -> list[str]:
    own = ["teacher=openai:bench", f"teacher.base_url={url}", f"teacher.concurrency={CONCURRENCY}", *PRICES]
    experiment = str(Path(__file__).parents[1] / "experiments/arithmetic.yaml")
    return [sys.executable, "-m", "kpod_lightning", "rationales", experiment, *own, "--out", str(out), *settings]


def run(words: list[str]) -> tuple[float, float]:
    """Seconds, and MiB at most, of a command."""
    began = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, process.returncode
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def throughput(folder: Path, latency: float, number: int) -> None:
    settings = write_problems(folder / "data", number)
    with teacher_server.running(folder / "server", latency=latency, spread=0.0) as url:
        run(command(url, folder / "samples.jsonl", *settings))
    times = [line["time"] for line in teacher_server.lines(folder / "server" / "arrivals.jsonl")]
    # The last ones leave slots empty, which is no fault of the client: arrivals alone are counted.
    rate = (len(times) - 1) / (max(times) - min(times))
    bound = CONCURRENCY / latency
    print(
        f"{number} requests, {CONCURRENCY} in flight, {1000 * latency:.0f} ms each: {rate:.0f} a second, "
        f"{rate / bound:.1%} of concurrency / latency ({bound:.0f})"
    )


def written_rows(folder: Path, settings: list[str], number: int) -> Path:
    """A file of that many rows with its ledger: a row of the command, its problem, key and attempt replaced."""
    from kpod_lightning.config import load_config
    from kpod_lightning.data.benchmarks import read_problems
    from kpod_lightning.teachers.order import Shuffled
    from kpod_lightning.teachers.prompts import load_prompt
    from kpod_lightning.teachers.requests import order_digest, sample_key, sampling_of

    with teacher_server.running(folder / "server") as url:
        run(command(url, folder / "one.jsonl", *settings, "data.num_train=1", "samples=2"))
    (row, *_) = teacher_server.lines(folder / "one.jsonl")
    config = load_config(Path("experiments/arithmetic.yaml"), [*settings, "teacher=openai:bench", "samples=2"])
    prompt, sampling = load_prompt(config.teacher, "number").sha256, sampling_of(config.teacher, config.seed)
    digest = order_digest(prompt, "openai:bench", sampling)
    out, count = folder / "samples.jsonl", 0
    with out.open("w") as rows, out.with_suffix(".ledger.jsonl").open("w") as ledger:
        for problem in Shuffled.of(read_problems(config)["train"], 0, (1, 1)):
            for sample in range(2):
                key = sample_key(problem, digest, sample)
                attempt = f"{count:016x}"
                own: dict[str, Any] = {"problem_id": problem.id, "sample": sample, "key": key, "attempts": [attempt]}
                ledger.write(json.dumps({"attempt": attempt, "key": key, "at_most": "0.0022"}) + "\n")
                rows.write(json.dumps(row | own) + "\n")
                count += 1
                if count == number:
                    return out
    raise AssertionError("too few problems")


def resume(folder: Path, number: int) -> None:
    settings = write_problems(folder / "data", number // 2 + 1)
    out = written_rows(folder, settings, number)
    size = (out.stat().st_size + out.with_suffix(".ledger.jsonl").stat().st_size) / 2**20
    with teacher_server.running(folder / "resumed") as url:
        began = time.time()
        _, memory = run(command(url, out, *settings, "samples=2"))
    arrivals = teacher_server.lines(folder / "resumed" / "arrivals.jsonl")
    assert len(arrivals) == 2, len(arrivals)
    first = min(line["time"] for line in arrivals) - began
    print(
        f"{number} rows ({size:.0f} MiB with the ledger): first request after {first:.1f} s, {memory:.0f} MiB at most"
    )


def main() -> None:
    with TemporaryDirectory() as place:
        folder = Path(place)
        throughput(folder / "slow", 0.5, 64 * 60)
        throughput(folder / "fast", 0.05, 64 * 60)
        for number in (1_000, 100_000):
            resume(folder / str(number), number)


if __name__ == "__main__":
    main()

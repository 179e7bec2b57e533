"""Orders to a teacher, through the command: nothing lost, nothing paid twice, no budget exceeded."""

import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import teacher_server
from teacher_server import lines

from kpod_lightning.config import load_config
from kpod_lightning.data.benchmarks import read_problems

EXPERIMENT = "experiments/arithmetic.yaml"
ROOT = Path(__file__).resolve().parents[2]


def words_of(url: str, out: Path, *settings: str) -> list[str]:
    own = [f"teacher.base_url={url}", "teacher=openai:model-a", "teacher.prices.input=1", "teacher.prices.output=4"]
    return ["rationales", EXPERIMENT, *own, "--out", str(out), *settings]


def started(words: list[str], **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "kpod_lightning", *words],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ordered(words: list[str], **environment: str) -> tuple[int, str, str]:
    """Exit code, output and errors of an order."""
    process = started(words, **environment)
    out, err = process.communicate(timeout=1200)
    return process.returncode, out, err


def with_answers(folder: Path, num_train: int) -> None:
    """The questions' answers, for the server in this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    train = read_problems(load_config(ROOT / EXPERIMENT, [f"data.num_train={num_train}"]))["train"]
    answers = {problem.question: problem.answer for problem in train}
    (folder / "answers.json").write_text(json.dumps(answers), encoding="utf-8")


def bill(folder: Path) -> float:
    return sum(line["billed"] for line in lines(folder / "ledger.jsonl"))


def whole_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def survives(
    tmp_path: Path, *, num_train: int, num_kills: int, latency: float, concurrency: int, small: float
) -> dict[str, float]:
    """Two samples a problem from a server with 20 % faults of all kinds; first a budget that ends early, then kills."""
    server, out, rng = tmp_path / "server", tmp_path / "samples.jsonl", random.Random(0)
    ledger, wanted = out.with_suffix(".ledger.jsonl"), 2 * num_train
    with_answers(server, num_train)
    settings = {"faults": 0.2, "refusals": 0.02, "latency": latency, "hang": 2.0, "seed": 3}
    unresolved = [0]
    with teacher_server.running(server, **settings) as url:
        own = [f"data.num_train={num_train}", "samples=2", f"teacher.concurrency={concurrency}", "teacher.timeout=1.5"]
        code, said, err = ordered(words_of(url, out, *own, f"budget={small}"))
        assert code == 2 and err.startswith("kpod: the budget of"), err
        assert bill(server) <= small
        told = float(re.search(r"estimate after 50 samples: (\S+) ", said)[1])
        large = wanted * 0.0025
        words = words_of(url, out, *own, f"budget={large}")
        unresolved = [whole_lines(server / "arrivals.jsonl") - whole_lines(out) - num_failures(ledger)]
        for kill in range(num_kills):
            process, before = started(words), whole_lines(out)
            left = wanted - before
            until = before + rng.randrange(1, max(2, left // (num_kills - kill + 1)))
            while whole_lines(out) < until and process.poll() is None:
                time.sleep(rng.uniform(0.001, 0.05))
            assert process.poll() is None, process.communicate()
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            time.sleep(0.2)  # what had been sent arrives
            unresolved.append(whole_lines(server / "arrivals.jsonl") - whole_lines(out) - num_failures(ledger))
        code, said, err = ordered(words)
        assert code == 0, err
    rows, own_ledger = lines(out), lines(server / "ledger.jsonl")
    assert len(rows) == wanted == len({row["key"] for row in rows})
    assert len({(row["problem_id"], row["sample"]) for row in rows}) == wanted
    successes = Counter(line["key"] for line in own_ledger if line["kind"] in ("ok", "filtered"))
    repeats = sum(number - 1 for number in successes.values())
    in_flight = [later - earlier for earlier, later in itertools.pairwise(unresolved)]
    assert all(number <= concurrency + 1 for number in in_flight), in_flight
    assert repeats <= unresolved[-1], (repeats, in_flight)
    assert bill(server) <= large
    return {
        "bill": bill(server),
        "bill without repeats": bill(server) - repeats * bill(server) / len(own_ledger),
        "estimate": told,
        "repeats": repeats,
        "in flight at the kills": unresolved[-1],
        "faults": sum(line["kind"] not in ("ok", "filtered") for line in own_ledger) / len(own_ledger),
        "spent and held": float(re.search(r"([\d.]+) US dollars spent", said)[1]),
    }


def num_failures(ledger: Path) -> int:
    """Requests that the client knows to have arrived and come to nothing."""
    whole = ledger.read_text(encoding="utf-8").splitlines(keepends=True) if ledger.exists() else []
    rows = [json.loads(line) for line in whole if line.endswith("\n")]
    return sum(
        "why" in row and row["why"] not in ("stopped before it was sent", "content_filter", "prompt_too_long")
        for row in rows
    )


def test_every_sample_once_and_no_budget_exceeded_through_faults_and_kills(tmp_path):
    survives(tmp_path, num_train=100, num_kills=2, latency=0.05, concurrency=8, small=0.08)


@pytest.mark.slow
def test_two_thousand_problems_survive_ten_kills(tmp_path):
    figures = survives(tmp_path, num_train=2000, num_kills=10, latency=0.3, concurrency=64, small=0.5)
    print(figures)
    assert figures["estimate"] == pytest.approx(figures["bill without repeats"], rel=0.15)

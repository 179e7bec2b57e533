"""Ratio: two ways of one work, timed in turns; a section's ratios and their machine, in a JSON file."""

import gc
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "transformers", "trl", "lightning", "tokenizers", "datasets", "numpy")


@dataclass(kw_only=True)
class Ratio:
    """One comparison. Above 1 we are better, unless ``at_most`` is given: then less is better.

    ``values`` has a ratio for each round, in which both ways ran one after the other. ``goal`` is the least median that
    is asked for, ``at_most`` the largest. ``ours`` and ``theirs`` are medians in ``unit``.
    """

    name: str
    peer: str
    values: list[float]
    goal: float | None = None
    at_most: float | None = None
    ours: float | None = None
    theirs: float | None = None
    unit: str = ""
    note: str = ""
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.goal is None and self.at_most is None:
            return None
        return (self.goal is None or self.median >= self.goal) and (self.at_most is None or self.median <= self.at_most)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says to every section.

    ``data_dir`` holds a folder for each data set (data/README.md); without it rationales are generated. ``quick`` takes
    as few rounds as show that a section works. ``students`` narrows the training section; ``threads`` are torch's.
    ``against`` is the root of another checkout, whose run the phases are compared with.
    """

    data_dir: Path | None = None
    quick: bool = False
    students: tuple[str, ...] = ()
    threads: int = 1
    rounds: int | None = None
    against: Path | None = None


def seconds_of(work: Callable[[], Any]) -> tuple[float, float]:
    """CPU seconds of this process, and seconds, that a work takes."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def in_turns(
    name: str, peer: str, ours: Callable[[], Any], theirs: Callable[[], Any], *, rounds: int = 5, **others: Any
) -> Ratio:
    """Their time over ours, by CPU time of the process, in rounds of one after the other.

    Each way runs once before that, so that no round pays for what is made once. Who goes first alternates.

    Args:
        others: fields of the ratio.
    """
    ours(), theirs()
    found: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
    ways = [("ours", ours), ("theirs", theirs)]
    for number in range(rounds):
        for key, work in ways if number % 2 == 0 else ways[::-1]:
            found[key].append(seconds_of(work))
    (cpu, wall), (peer_cpu, peer_wall) = ([list(column) for column in zip(*found[key], strict=True)] for key in found)
    return Ratio(
        name=name,
        peer=peer,
        values=[b / a for a, b in zip(cpu, peer_cpu, strict=True)],
        ours=statistics.median(cpu),
        theirs=statistics.median(peer_cpu),
        unit="CPU seconds",
        more={"wall": statistics.median(peer_wall) / statistics.median(wall)},
        **others,
    )


def cpu_name() -> str:
    """The processor as it calls itself."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine(options: Options) -> dict[str, Any]:
    """What a figure depends on beside the code: processor, threads, versions. No name of a host, no path."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    cores = os.cpu_count() or 1
    import torch

    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "cpu": cpu_name(),
        "cores": cores,
        "threads": options.threads,
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
        "busy": round(os.getloadavg()[0] / cores, 2),
        "versions": {package: found for package in PACKAGES if (found := version_of(package)) is not None},
    }


def rounded(value: Any) -> Any:
    """Numbers with four digits: more say nothing."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def save(section: str, ratios: Sequence[Ratio], about: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write a section's file; it holds no figure of a run before."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{section}.json"
    rows = [
        rounded({key: value for key, value in asdict(ratio).items() if value not in (None, "", {})}) for ratio in ratios
    ]
    path.write_text(json.dumps({"section": section, **about, "ratios": rows}, indent=1) + "\n", encoding="utf-8")
    return path


def load(path: Path) -> tuple[dict[str, Any], list[Ratio]]:
    """What a file says of the machine, and its ratios."""
    about = json.loads(path.read_text(encoding="utf-8"))
    return about, [Ratio(**row) for row in about.pop("ratios")]

"""Every section of the benchmarks by its name: the file whose ``measure(options)`` gives its ratios."""

from collections.abc import Callable, Iterable
from importlib import import_module

from benchmarks.measure import Options, Ratio

SECTIONS = {
    "training": "benchmarks.bench_training",
    "kpod": "benchmarks.bench_kpod",
    "evaluation": "benchmarks.bench_evaluation",
    "startup": "benchmarks.bench_startup",
    "schedule": "benchmarks.bench_schedule",
    "tokenising": "benchmarks.bench_tokenising",
    "phases": "benchmarks.phases",
    "growth": "benchmarks.bench_growth",
    "gpu": "benchmarks.bench_gpu",
}


def measure_of(section: str) -> Callable[[Options], Iterable[Ratio]]:
    found: Callable[[Options], Iterable[Ratio]] = import_module(SECTIONS[section]).measure
    return found

"""A page on a file of samples: its figures, and some samples of each verdict. The figures also as a table."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kpod_lightning.data.problems import Problem
from kpod_lightning.evaluation.figures import labelled
from kpod_lightning.evaluation.pages import render
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.products import product
from kpod_lightning.teachers.samples.figures import NUM_DISTINCT, Distribution, Statistics, Tally
from kpod_lightning.teachers.samples.quality import THRESHOLD, VERDICTS, Row, SampleRows, Verdict

NUM_EXAMPLES = 5
"""Samples shown of each verdict, drawn at random."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One sample on the page. ``like``: number and text of the sample that a near-duplicate resembles."""

    verdict: str
    problem_id: str
    sample: int
    question: str
    gold: str
    predicted: str | None
    asked_apart: str | None
    finish_reason: str
    text: str
    like: tuple[int, str] | None


class Examples:
    """At most ``NUM_EXAMPLES`` of each verdict, every sample with the same chance (reservoir sampling)."""

    def __init__(self) -> None:
        self._kept: dict[str, list[Example]] = {name: [] for name in VERDICTS}
        self._seen = dict.fromkeys(VERDICTS, 0)
        self._random = random.Random(0)

    def add(self, problem: Problem, rows: Sequence[Row], judged: Sequence[Verdict]) -> None:
        for row, verdict in zip(rows, judged, strict=True):
            kept = self._kept[verdict.name]
            self._seen[verdict.name] += 1
            place = len(kept) if len(kept) < NUM_EXAMPLES else self._random.randrange(self._seen[verdict.name])
            if place < NUM_EXAMPLES:
                like = None if verdict.like is None else rows[verdict.like]
                kept[place : place + 1] = [
                    Example(
                        verdict=verdict.name,
                        problem_id=problem.id,
                        sample=row["sample"],
                        question=problem.text,
                        gold=problem.answer,
                        predicted=verdict.predicted,
                        asked_apart=row.get("answer_call"),
                        finish_reason=row["finish_reason"],
                        text=row["rationale"],
                        like=None if like is None else (like["sample"], like["rationale"]),
                    )
                ]

    def __iter__(self) -> Iterator[Example]:
        return (example for kept in self._kept.values() for example in kept)


def _dollars(value: Decimal | None, decimals: int = 4) -> str:
    return "none" if value is None else f"{value:.{decimals}f} US dollars"


def _spread(distribution: Distribution | None) -> str:
    if distribution is None:
        return "none"
    low, middle, high = distribution.quantiles
    return f"mean {distribution.mean:.1f}, median {middle:.0f}, 5 to 95 %: {low:.0f} to {high:.0f}"


def _names(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items())


def figures_of(statistics: Statistics) -> list[tuple[str, str]]:
    """The figures of a file of samples, each as a label and a value."""
    s, (low, high) = statistics, statistics.right_interval
    written = [] if s.num_written is None else [("written", str(s.num_written))]
    return [
        ("samples", str(s.num_rows)),
        ("right", f"{s.num_right}, {100 * s.right_share:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"),
        ("kept", f"{s.num_kept}, {100 * s.num_kept / s.num_rows:.1f} %"),
        *written,
        (
            "problems with a right sample",
            f"{s.num_covered} of {s.num_asked}, {100 * s.coverage:.1f} % ({s.num_problems} have a sample)",
        ),
        ("tokens of the reply", _spread(s.tokens)),
        ("steps", _spread(s.steps)),
        (
            f"distinct-1, -2, -3 of the first {min(s.num_right, NUM_DISTINCT)} right ones",
            ", ".join(f"{share:.3f}" for share in s.distinct.values()) or "none",
        ),
        ("tokens in all", f"{s.prompt_tokens} of prompts, {s.completion_tokens} of replies"),
        ("paid for samples", _dollars(s.cost)),
        ("paid for requests that came to nothing", _dollars(s.cost_in_vain)),
        ("possibly paid for requests of unknown end", f"at most {_dollars(s.cost_unknown)}"),
        ("paid in all, a right sample", _dollars(s.cost_per_right, 6)),
        ("paid in all, a kept sample", _dollars(s.cost_per_kept, 6)),
        ("latency", f"{s.latency:.2f} s on average"),
        ("finish reasons", _names(s.finish_reasons)),
        ("teachers", _names(s.teachers)),
        ("models", _names(s.models)),
        ("prompts", _names(s.prompts)),
        ("licences or terms", _names(s.licences)),
    ]


def print_statistics(statistics: Statistics, console: Console) -> None:
    """Print the figures as a table."""
    table = Table(show_header=False)
    for label, value in [*figures_of(statistics), ("verdicts", _names(statistics.verdicts))]:
        table.add_row(label, Text(value))  # a name may look like markup
    console.print(table)


def histogram(distribution: Distribution, title: str, unit: str) -> go.Figure:
    """A bar for each bin, of the bin's width; hovering over it says which numbers are in it."""
    left, right = np.array(distribution.edges[:-1]), np.array(distribution.edges[1:])
    names = [f"{low}" if low == high else f"{low} to {high}" for low, high in zip(left, right - 1, strict=True)]
    figure = go.Figure(
        go.Bar(
            x=(left + right - 1) / 2,
            y=distribution.counts,
            width=right - left,
            customdata=names,
            hovertemplate=f"%{{customdata}} {unit}: %{{y}} samples<extra></extra>",
            marker_line={"color": "white", "width": 1},
        )
    )
    return labelled(figure, title, unit, "samples")


def render_page(statistics: Statistics, examples: Sequence[Example], title: str) -> str:
    """One HTML file that needs no network."""
    histograms = {}
    if statistics.tokens is not None:
        histograms["tokens"] = histogram(statistics.tokens, "tokens of the reply", "tokens")
    if statistics.steps is not None:
        histograms["steps"] = histogram(statistics.steps, "steps of the rationale", "steps")
    return render(
        "samples.html.j2",
        title=title,
        s=statistics,
        figures=figures_of(statistics),
        histograms=histograms,
        examples={name: [e for e in examples if e.verdict == name] for name in VERDICTS},
        most=NUM_EXAMPLES,
    )


def report_samples(
    path: Path, problems: Sequence[Problem], out: Path | None = None, *, threshold: float = THRESHOLD
) -> Statistics:
    """Write a page on a file of samples.

    Args:
        out: the page; FILE.html beside FILE.jsonl by default.

    Raises:
        InputError: as for ``SampleRows``; or ``out`` is the file of samples itself.
    """
    out = path.with_suffix(".html") if out is None else out
    if out.resolve() == path.resolve():
        raise InputError(f"{out} holds the samples, which the page would replace: take another --out")
    samples, tally, examples = SampleRows(path, problems), Tally(), Examples()
    for problem, rows, judged in samples.judged(threshold):
        tally.add(rows, judged)
        examples.add(problem, rows, judged)
    statistics = tally.statistics(samples)
    with product(out, "page of samples") as aside:
        aside.write_text(render_page(statistics, list(examples), path.name), encoding="utf-8")
    return statistics

"""A page on a file of samples: its figures, and samples of each verdict to look at; and the figures for a terminal."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from jinja2 import Environment
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kpod_lightning.data.problems import Problem
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import write_text
from kpod_lightning.teachers.samples.figures import Distribution, Statistics, Tally
from kpod_lightning.teachers.samples.quality import NUM_DISTINCT, THRESHOLD, VERDICTS, Row, SampleRows, Verdict

NUM_EXAMPLES = 5
"""Of each verdict, drawn at random."""

HTML = """{% macro histogram(title, unit, d) %}<figure><figcaption>{{ title }}</figcaption>
<svg viewBox="0 0 640 190" role="img" aria-label="{{ title }}">
{% set top = d.counts | max %}{% set width = 600 / d.counts | length %}
{% for number in d.counts %}<rect x="{{ '%.2f' % (20 + width * loop.index0) }}"
y="{{ '%.2f' % (150 - 130 * number / top) }}" width="{{ '%.2f' % (width * 0.92) }}"
height="{{ '%.2f' % (130 * number / top) }}"><title>{{ d.edges[loop.index0] }}\
{% if d.edges[loop.index] - d.edges[loop.index0] > 1 %} to {{ d.edges[loop.index] - 1 }}{% endif %} {{ unit }}: \
{{ number }}</title></rect>
{% endfor %}<line x1="20" x2="620" y1="150" y2="150"/><text x="20" y="14">{{ top }}</text>
<text x="20" y="168">{{ d.edges[0] }}</text>
<text x="620" y="168" text-anchor="end">{{ d.edges[-1] - 1 }}</text>
<text x="320" y="184" text-anchor="middle">{{ unit }}</text></svg></figure>{% endmacro %}
<!doctype html><html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .8rem;border-bottom:1px solid #ddd;text-align:left}
pre{background:#f6f6f6;padding:.6rem;white-space:pre-wrap;overflow-wrap:anywhere}.n{text-align:right}
.bar{width:20rem}.bar div{background:#4c78a8;height:1rem}figure{margin:1.5rem 0;max-width:40rem}
svg{width:100%}rect{fill:#4c78a8}line{stroke:#888}svg text{font-size:13px;fill:#222}</style>
<h1>{{ title }}</h1>
<p>Licence or terms of the text: {% for name, number in s.licences.items() %}<strong>{{ name }}</strong> \
({{ number }} samples){{ '' if loop.last else '; ' }}{% endfor %}.</p>
<table>{% for label, value in figures %}<tr><td>{{ label }}<td>{{ value }}</tr>
{% endfor %}</table>
<h2>Verdicts</h2><table><tr><th>verdict<th>samples<th>share<th></tr>
{% for name, number in s.verdicts.items() %}<tr><td>{{ name }}<td class=n>{{ number }}
<td class=n>{{ '%.1f' % (100 * number / s.num_rows) }} %
<td class=bar><div style="width:{{ '%.2f' % (100 * number / s.num_rows) }}%"></div></tr>
{% endfor %}</table>
{% if s.tokens %}<h2>Lengths</h2>{{ histogram('tokens of the reply', 'tokens', s.tokens) }}{% endif %}
{% if s.steps %}{{ histogram('steps of the rationale', 'steps', s.steps) }}{% endif %}
<h2>Samples to look at</h2><p>At most {{ most }} of each verdict, drawn at random.</p>
{% for name, number in s.verdicts.items() if examples[name] %}<h3>{{ name }}: {{ number }}</h3>
{% for e in examples[name] %}<pre>{{ e.problem_id }}, sample {{ e.sample }}, gold {{ e.gold }}, \
extracted {{ e.predicted if e.predicted is not none else 'nothing' }}\
{% if e.asked_apart is not none %}, asked for apart {{ e.asked_apart }}{% endif %}, finish reason {{ e.finish_reason }}
{{ e.question }}
→ {{ e.text }}{% if e.like is not none %}

resembles sample {{ e.like[0] }}:
→ {{ e.like[1] }}{% endif %}</pre>
{% endfor %}{% endfor %}</html>
"""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A sample to look at. ``like``: index and text of the sample that a near-duplicate resembles."""

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
    """What is told of a file of samples: label and value."""
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
    """The figures as a table."""
    table = Table(show_header=False)
    for label, value in [*figures_of(statistics), ("verdicts", _names(statistics.verdicts))]:
        table.add_row(label, Text(value))  # a name may look like markup
    console.print(table)


def render_page(statistics: Statistics, examples: Sequence[Example], title: str) -> str:
    """One file of HTML that needs nothing else."""
    by_verdict = {name: [e for e in examples if e.verdict == name] for name in VERDICTS}
    page = Environment(autoescape=True).from_string(HTML)
    return page.render(
        title=title, s=statistics, figures=figures_of(statistics), examples=by_verdict, most=NUM_EXAMPLES
    ).lstrip()


def report_samples(
    path: Path, problems: Sequence[Problem], out: Path | None = None, *, threshold: float = THRESHOLD
) -> Statistics:
    """Write a page on a file of samples.

    Args:
        out: the page; FILE.html beside FILE.jsonl by default.

    Raises:
        InputError: as ``SampleRows``; and ``out`` is the file of samples.
    """
    out = path.with_suffix(".html") if out is None else out
    if out.resolve() == path.resolve():
        raise InputError(f"{out} holds the samples, which the page would replace: take another --out")
    samples, tally, examples = SampleRows(path, problems), Tally(), Examples()
    for problem, rows, judged in samples.judged(threshold):
        tally.add(rows, judged)
        examples.add(problem, rows, judged)
    statistics = tally.statistics(samples)
    write_text(out, render_page(statistics, list(examples), path.name))
    return statistics

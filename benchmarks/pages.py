"""docs/performance.md from the files of results: targets met or not, a table and a plot of every section."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment

from benchmarks.measure import RESULTS, ROOT, Ratio, load
from benchmarks.sections import SECTIONS

PAGE = ROOT / "docs" / "performance.md"

HEAD = """# Speed

Every figure is a ratio to a peer that did the same work in the same run: the two took turns, each round gives a ratio,
and the median counts; lowest and highest stand beside it. Above 1 this package is better; rows that limit a cost say
so. Time is CPU time of the process, so that other work on the machine changes it least. `make bench DATA_DIR=DIR`
measures anew and writes this page and the files in [benchmarks/results](../benchmarks/results); what each section
measures stands in [benchmarks](../benchmarks/README.md).

## What it comes from, and what bounds it

* The rationales of a micro-batch lie end to end and each attends to itself alone (`students/packing.py`): nothing is
  padded. A student whose layers look further is padded, and a line says why.
* The head sees the hidden states that predict a target, and no more (`students/nll.py`); the last feed-forward part of
  a packed decoder likewise (`students/last_block.py`).
* Weighted losses and all gradients of the head come from one pass over chunks of logits (`students/linear_nll.py`):
  three products a token instead of the four of `torch.nn.functional.linear_cross_entropy`, and no [tokens, vocabulary].
* Adam is one pass over the numbers of a parameter, outside autocast.

Of a packed step with 49,152 tokens in the vocabulary 82 % of the CPU time are matrix products, at the 100 GFLOP a
second that this core gives (`torch.profiler`). So what a peer multiplies and this package does not is about what can be
gained: of GSM8K's rationales in random batches of 8, 65 % of the padded positions are tokens and 58 % of these are
targets, which makes 1.7 times the products at a vocabulary of 6,600, 2.15 times at 49,152 and 2.4 times at 151,936.
Where a ratio below is higher, the peer also writes and reads logits that this package never holds as a whole.
Batches of like length are hardly padded: there it is 1.1 times at 6,600, 1.13 with the last feed-forward part.
"""

PICTURE = """<svg xmlns="http://www.w3.org/2000/svg" width="{{ width }}" height="{{ height }}" \
font-family="sans-serif" font-size="12">
<title>{{ title|e }}</title>
<rect width="100%" height="100%" fill="white"/>
<text x="10" y="20" font-size="14">{{ title|e }}</text>
<line x1="{{ one }}" x2="{{ one }}" y1="30" y2="{{ height - 22 }}" stroke="grey" stroke-dasharray="3 3"/>
<text x="{{ one }}" y="{{ height - 8 }}" text-anchor="middle" fill="grey">1</text>
{% for bar in bars -%}
<text x="{{ left - 8 }}" y="{{ bar.y + 14 }}" text-anchor="end">{{ bar.label|e }}</text>
<rect x="{{ left }}" y="{{ bar.y + 2 }}" width="{{ bar.width }}" height="16" fill="{{ bar.colour }}"/>
<line x1="{{ bar.low }}" x2="{{ bar.high }}" y1="{{ bar.y + 10 }}" y2="{{ bar.y + 10 }}" stroke="black"/>
{% if bar.target -%}
<rect x="{{ bar.target }}" y="{{ bar.y }}" width="2" height="20" fill="#D55E00"/>
{% endif -%}
<text x="{{ bar.end }}" y="{{ bar.y + 14 }}">{{ bar.value }}</text>
{% endfor -%}
</svg>
"""
LEFT, SCALE_WIDTH, ROW = 400, 380, 24
BLUE = "#0072B2"


def picture(title: str, ratios: Sequence[Ratio]) -> str:
    """Bars of the medians on one scale, a line from lowest to highest, red marks at the targets."""
    marks = [ratio.goal or ratio.at_most or 0 for ratio in ratios]
    scale = SCALE_WIDTH / max(1.0, *(max(ratio.values) for ratio in ratios), *marks)

    def place(value: float) -> float:
        return round(LEFT + scale * value, 1)

    bars = [
        {
            "y": 34 + ROW * number,
            "label": f"{ratio.name} / {ratio.peer}"[:64],
            "width": round(scale * ratio.median, 1),
            "low": place(min(ratio.values)),
            "high": place(max(ratio.values)),
            "end": place(max(*ratio.values, mark)) + 6,
            "target": place(mark) if mark else None,
            "colour": BLUE,
            "value": f"{ratio.median:.2f}",
        }
        for number, (ratio, mark) in enumerate(zip(ratios, marks, strict=True))
    ]
    template = Environment(autoescape=False).from_string(PICTURE)
    height = 34 + ROW * len(bars) + 26
    return template.render(
        title=title, width=LEFT + SCALE_WIDTH + 60, height=height, left=LEFT, one=place(1.0), bars=bars
    )


def target(ratio: Ratio) -> str:
    bounds = [f"≥ {ratio.goal:g}"] if ratio.goal is not None else []
    bounds += [f"≤ {ratio.at_most:g}"] if ratio.at_most is not None else []
    return ", ".join(bounds)


def outcome(ratio: Ratio) -> str:
    return {None: "", True: "met", False: "**not met**"}[ratio.met]


def number(value: float | None) -> str:
    """A figure with three digits, thousands apart."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def targets_table(found: dict[str, list[Ratio]]) -> list[str]:
    rows = ["| | peer | target | measured | |", "|---|---|---|---|---|"]
    for ratios in found.values():
        for ratio in (r for r in ratios if r.met is not None):
            cells = (ratio.name, ratio.peer, target(ratio), f"{ratio.median:.2f}", outcome(ratio))
            rows.append(f"| {' | '.join(map(escape_cell, cells))} |")
    return rows


def escape_cell(text: str) -> str:
    return escape(text, quote=False).replace("|", "\\|")


def section_table(ratios: Sequence[Ratio]) -> list[str]:
    rows = [
        "| | peer | ratio | lowest to highest | ours | peer's | unit | by wall clock | memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for ratio in ratios:
        more = [number(ratio.more.get(key)) for key in ("wall", "memory")]
        spread = f"{min(ratio.values):.2f} to {max(ratio.values):.2f} ({len(ratio.values)})"
        cells = (ratio.name, ratio.peer, f"{ratio.median:.2f}", spread)
        cells += (number(ratio.ours), number(ratio.theirs), ratio.unit, *more)
        rows.append(f"| {' | '.join(map(escape_cell, cells))} |")
    return rows


def machine_line(about: dict[str, Any]) -> str:
    """What the figures of a section were taken with."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    threads = "one thread" if about["threads"] == 1 else f"{about['threads']} threads"
    busy = about["busy"]
    idle = "the machine was idle" if busy < 0.5 else f"the machine was shared: {busy:g} programs a core were running"
    place = about.get("gpu") or f"{about['cpu']}, {about['cores']} cores"
    return f"{about['date']}, {place}, {threads}; {idle} when it began. {versions}."


def page_and_pictures(folder: Path = RESULTS) -> dict[str, str]:
    """The page, and the plot of every section that has a file: path below docs/ -> text."""
    paths = {section: folder / f"{section}.json" for section in SECTIONS}
    loaded = {section: load(path) for section, path in paths.items() if path.is_file()}
    ratios = {section: rows for section, (_, rows) in loaded.items()}
    lines, files = [HEAD, "## Targets\n", *targets_table(ratios), ""], {}
    for section, (about, rows) in loaded.items():
        file = f"pictures/performance-{section}.svg"
        files[file] = picture(section, rows)
        notes = sorted({ratio.note for ratio in rows if ratio.note})
        lines += [f"## {section.capitalize()}\n", f"![{section}]({file})\n", *section_table(rows), ""]
        lines += [machine_line(about) + "".join(f" {note}." for note in notes), ""]
    return files | {PAGE.name: "\n".join(lines)}


def write_page() -> None:
    for name, text in page_and_pictures().items():
        path = PAGE.parent / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")

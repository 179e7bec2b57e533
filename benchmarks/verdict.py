"""The tables of docs/does-it-work.md, from the records of its studies in docs/records/.

``python benchmarks/verdict.py`` writes them between the marks of the page, ``<!-- STUDY: QUESTION -->`` and
``<!-- end -->``; a mark without a question gets the arms of the study, and ``all`` stands for a family without
questions. The records are what ``kpod table`` writes. A question also gets a picture, docs/pictures/STUDY-QUESTION.svg.
"""

import math
import re
from pathlib import Path

from jinja2 import Environment

from kpod_lightning.data.arithmetic import KINDS
from kpod_lightning.runs.study_forms import arm_cells, comparison_cells
from kpod_lightning.runs.study_records import load_records
from kpod_lightning.runs.study_table import ComparisonRow, StudyTable, table_of
from kpod_lightning.store.json_lines import load_jsonl

ROOT = Path(__file__).parent.parent

PAGE = ROOT / "docs" / "does-it-work.md"

RECORDS = ROOT / "docs" / "records"

PICTURES = ROOT / "docs" / "pictures"

MARKED = re.compile(r"(<!-- (?P<study>[\w-]+)(?:: (?P<question>[^>]*?))? -->\n)(?P<table>.*?)(<!-- end -->)", re.DOTALL)

ARM_COLUMNS = {"arm": 0, "% right, by seed": 2, "mean ± sd": 3, "95 %": 4, "epochs": 5, "tokens": 7, "seconds": 8}
"""Heading on the page -> column of a study's table."""

COMPARISON_COLUMNS = {
    "B − A": 0,
    "points ± sd of seeds": 2,
    "95 %, other seeds and problems": 3,
    "p": 6,
    "p, Holm": 7,
    "detectable": 9,
    "equal in": 10,
}


PICTURE = """<svg xmlns="http://www.w3.org/2000/svg" width="{{ width }}" height="{{ height }}" \
font-family="sans-serif" font-size="12">
<title>{{ title|e }}</title>
<rect width="100%" height="100%" fill="white"/>
<text x="10" y="20" font-size="14">{{ title|e }}</text>
{% for tick in ticks -%}
<line x1="{{ tick.x }}" x2="{{ tick.x }}" y1="30" y2="{{ height - 24 }}" stroke="{{ tick.colour }}"/>
<text x="{{ tick.x }}" y="{{ height - 8 }}" text-anchor="middle" fill="grey">{{ tick.text }}</text>
{% endfor -%}
{% for row in rows -%}
<text x="{{ left - 10 }}" y="{{ row.y + 4 }}" text-anchor="end">{{ row.label|e }}</text>
<line x1="{{ row.low }}" x2="{{ row.high }}" y1="{{ row.y }}" y2="{{ row.y }}" stroke="#0072B2" stroke-width="2"/>
<circle cx="{{ row.middle }}" cy="{{ row.y }}" r="4" fill="{{ row.colour }}"/>
{% endfor -%}
</svg>
"""

LEFT, SCALE_WIDTH, ROW = 330, 420, 24

KEYPOINTS = "keypoints"
"""Records of ``benchmarks/keypoints.py``, which are no study."""

ALL = "all"
"""The question of a study whose file does not sort its comparisons."""

FOUND, NOT_FOUND = "#D55E00", "#0072B2"
"""Colour of a difference whose p by Holm's correction is below .05, and of another."""


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(with_tables(page), encoding="utf-8")
    for name, text in pictures(page).items():
        (PICTURES / name).write_text(text, encoding="utf-8")


def pictures(page: str) -> dict[str, str]:
    """File name -> picture, of every question of the page."""
    asked = [(found["study"], found["question"]) for found in MARKED.finditer(page) if found["question"] is not None]
    return {f"{study}-{question.replace(' ', '-')}.svg": picture(study, question) for study, question in asked}


def picture(study: str, question: str) -> str:
    """The differences of a question in points, with their intervals for other seeds and problems."""
    rows = rows_of(table_of(load_records(RECORDS / f"{study}.jsonl")), question)
    intervals = [[100.0 * max(-1.0, min(1.0, bound)) for bound in row.found.interval] for row in rows]
    bounds = [bound for interval in intervals for bound in interval]
    step = next(size for size in (1, 2, 5, 10, 20, 50) if max(bounds) - min(bounds) <= 10 * size)
    lowest = step * math.floor(min(0.0, *bounds) / step)
    highest = step * math.ceil(max(0.0, *bounds) / step)

    def place(value: float) -> float:
        return round(LEFT + SCALE_WIDTH * (value - lowest) / max(highest - lowest, step), 1)

    drawn = [
        {
            "y": 44 + ROW * number,
            "label": f"{row.b.name} − {row.a.name}",
            "low": place(interval[0]),
            "high": place(interval[1]),
            "middle": place(100.0 * row.found.difference),
            "colour": FOUND if row.adjusted < 0.05 else NOT_FOUND,
        }
        for number, (row, interval) in enumerate(zip(rows, intervals, strict=True))
    ]
    ticks = [
        {
            "x": place(value),
            "text": f"{value:+d}".replace("-", "−") if value else "0",
            "colour": "#888" if value == 0 else "#ddd",
        }
        for value in range(lowest, highest + 1, step)
    ]
    template = Environment(autoescape=False).from_string(PICTURE)
    name = study if question == ALL else question
    title = f"{name}: difference in points, 95 % for other seeds and problems; red: p < .05 after Holm"
    height, width = 44 + ROW * len(drawn) + 30, LEFT + SCALE_WIDTH + 40
    return template.render(title=title, width=width, height=height, left=LEFT, ticks=ticks, rows=drawn)


def with_tables(page: str) -> str:
    """The page with the tables that the records give now."""
    return MARKED.sub(lambda found: f"{found[1]}{block(found['study'], found['question'])}{found[5]}", page)


def block(study: str, question: str | None) -> str:
    if study == KEYPOINTS:
        return keypoints()
    table = table_of(load_records(RECORDS / f"{study}.jsonl"))
    return arms(table) if question is None else comparisons(table, question)


def keypoints() -> str:
    """What the weights keep, a row a run: sufficiency, AUROC of results against filler, mean weights by kind."""
    rows = []
    for found in load_jsonl(RECORDS / f"{KEYPOINTS}.jsonl"):
        low, high = found["interval"]
        measures = [found["sufficiency_of_random_tokens"], found["auroc_results_against_filler"]]
        weights = [found["mean_weight"][kind] for kind in KINDS]
        numbers = [f"{value:.2f}" for value in (*measures, *weights)]
        sufficiency = f"{found['sufficiency']:.2f} [{low:.2f}, {high:.2f}]"
        rows.append([found["student"], str(found["seed"]), sufficiency, *numbers])
    columns = ["student", "seed", "sufficiency [95 %]", "of random tokens", "AUROC", *KINDS]
    return markdown({name: place for place, name in enumerate(columns)}, rows)


def arms(table: StudyTable) -> str:
    return markdown(ARM_COLUMNS, [arm_cells(arm) for arm in table.arms])


def comparisons(table: StudyTable, question: str) -> str:
    rows = [comparison_cells(row) for row in rows_of(table, question)]
    return markdown(COMPARISON_COLUMNS, [[row[0].removeprefix(f"{question}: "), *row[1:]] for row in rows])


def rows_of(table: StudyTable, question: str) -> list[ComparisonRow]:
    """
    Raises:
        ValueError: the study has no such question.
    """
    rows = [row for row in table.comparisons if row.question == ("" if question == ALL else question)]
    if not rows:
        raise ValueError(f"{table.records.study}: no comparison of the question {question!r} yet")
    return rows


def markdown(columns: dict[str, int], rows: list[list[str]]) -> str:
    lines = [list(columns), ["---"] * len(columns), *([row[place] for place in columns.values()] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()

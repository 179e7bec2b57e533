"""The tables of docs/does-it-work.md, from the records of its studies in docs/records/.

``python benchmarks/verdict.py`` writes them between the marks of the page, ``<!-- STUDY: QUESTION -->`` and
``<!-- end -->``; a mark without a question gets the arms of the study. The records are what ``kpod table`` writes.
"""

import re
from pathlib import Path

from kpod_lightning.runs.study_forms import arm_cells, comparison_cells
from kpod_lightning.runs.study_records import load_records
from kpod_lightning.runs.study_table import StudyTable, table_of

ROOT = Path(__file__).parent.parent

PAGE = ROOT / "docs" / "does-it-work.md"

RECORDS = ROOT / "docs" / "records"

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


def main() -> None:
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def with_tables(page: str) -> str:
    """The page with the tables that the records give now."""
    return MARKED.sub(lambda found: f"{found[1]}{block(found['study'], found['question'])}{found[5]}", page)


def block(study: str, question: str | None) -> str:
    table = table_of(load_records(RECORDS / f"{study}.jsonl"))
    return arms(table) if question is None else comparisons(table, question)


def arms(table: StudyTable) -> str:
    return markdown(ARM_COLUMNS, [arm_cells(arm) for arm in table.arms])


def comparisons(table: StudyTable, question: str) -> str:
    """
    Raises:
        ValueError: the study has no such question.
    """
    rows = [comparison_cells(row) for row in table.comparisons if row.question == question]
    if not rows:
        raise ValueError(f"{table.records.study}: no comparison of the question {question!r} yet")
    return markdown(COMPARISON_COLUMNS, [[row[0].removeprefix(f"{question}: "), *row[1:]] for row in rows])


def markdown(columns: dict[str, int], rows: list[list[str]]) -> str:
    lines = [list(columns), ["---"] * len(columns), *([row[place] for place in columns.values()] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()

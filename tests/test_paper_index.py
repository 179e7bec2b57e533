"""Every name that the paper index gives is there."""

import ast
import re
from pathlib import Path

import pytest

from kpod_lightning.__main__ import parse

PAGE = Path(__file__).resolve().parents[1] / "docs" / "paper.md"
ROWS = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]


def linked(cell: str) -> tuple[str, Path]:
    name, path = re.fullmatch(r"\[(.+)\]\((.+)\)", cell).groups()
    return name, (PAGE.parent / path).resolve()


def defined(path: Path) -> set[str]:
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, kinds)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_function_test_and_command_of_a_row_are_there(row, capsys):
    _, function, test, command = row
    name, path = linked(function)
    assert name in defined(path)
    name, path = linked(test)
    assert name in defined(path) if name.startswith("test_") else path.is_file()
    with pytest.raises(SystemExit) as end:
        parse([command.strip("`").split()[1], "--help"])
    assert end.value.code == 0


def test_every_equation_has_a_row():
    named = {int(number) for row in ROWS for number in re.findall(r"Eq\. \((\d+)\)", row[0])}
    assert named == set(range(1, 16))

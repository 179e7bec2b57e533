"""The walk of docs/own-data.md: its commands are run as they stand there, from a file to a distilled student."""

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_project import ROOT

PAGE = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
COMMANDS = re.search(r"```\n(kpod prepare.*?)```", PAGE, re.DOTALL)[1].splitlines()  # type: ignore[index]


def pens(path: Path) -> None:
    """60 problems of the form of the page, the page's own first."""
    shown = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1]  # type: ignore[index]
    first = json.loads(shown.splitlines()[0])
    draw = random.Random(0)
    rows = [shown]
    for _ in range(58):
        has, more = draw.randint(2, 30), draw.randint(2, 30)
        numbers = {"7": str(has), "5": str(more), "12": str(has + more)}
        text = re.sub(r"\d+", lambda found, numbers=numbers: numbers[found[0]], json.dumps(first))  # type: ignore[misc]
        rows.append(text + "\n")
    path.write_text("".join(rows), encoding="utf-8")


def done(command: str, folder: Path) -> str:
    """What a command of the page prints; its seconds go to the test's own output."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "WANDB_MODE": "offline"}
    start = time.monotonic()
    ran = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
    print(f"{time.monotonic() - start:.1f} s: {command}")
    assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


def test_page_says_what_prepare_understands(tmp_path):
    pens(tmp_path / "pens.jsonl")
    said = done(COMMANDS[0], tmp_path)
    expected = re.search(r"```text\n(.*?)```", PAGE, re.DOTALL)[1]  # type: ignore[index]
    assert [line.strip() for line in expected.splitlines()][:2] == said.splitlines()[:2]


@pytest.mark.slow
def test_five_commands_of_the_page_lead_from_a_file_to_a_student(tmp_path):
    pens(tmp_path / "pens.jsonl")
    assert len(COMMANDS) == 5
    said = [done(command, tmp_path) for command in COMMANDS]
    assert "kept 48" in " ".join(said[1].split())
    assert "after distillation" in said[3] and (tmp_path / "runs/pens/report.html").is_file()
    assert "Let's think step by step." in said[4]


def test_settings_that_the_page_names_are_there():
    from kpod_lightning.methods.base import load_experiment

    words = sorted(set(re.findall(r"\b(?:data|rationales|student)\.[a-z_.]+=[\w+./-]+", PAGE)))
    assert len(words) > 8
    for word in words:
        others = ["rationales.teacher=a.jsonl"] if word == "rationales.source=recorded" else []
        load_experiment(Path("own"), [word, *others])

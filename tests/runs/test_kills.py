"""A run that is killed, or whose disk takes no more, goes on and ends as the unbroken one, bit for bit."""

import subprocess
import sys

import pytest
from kills import MEMORY
from test_project import ROOT


@pytest.mark.skipif(not MEMORY.is_dir(), reason=f"there is no {MEMORY}")
@pytest.mark.parametrize(
    "words",
    [
        ["--kills", "2", "--disks", "0", "--limits", "1"],
        pytest.param(["--kills", "60", "--disks", "0", "--limits", "4"], marks=pytest.mark.slow),
    ],
    ids=["few", "many"],
)
def test_killed_and_limited_runs_end_as_the_unbroken_one(words):
    ran = subprocess.run([sys.executable, "tests/kills.py", *words], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1].endswith("every run ended as the unbroken one")

"""Examples that documents show run as they stand there."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]


def test_the_lightning_example_of_the_readme_runs_and_is_short(tmp_path):
    section = (ROOT / "README.md").read_text().partition("## With a Trainer of your own")[2]
    (code,) = re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], flags=re.DOTALL)
    assert len(code.splitlines()) <= 25
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "tensor(" in ran.stdout


def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path):
    notebook = nbformat.read(ROOT / "docs" / "lightning.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = [
        output.text for cell in notebook.cells for output in cell.get("outputs", []) if output.get("name") == "stdout"
    ]
    assert any("step 0 |" in text for text in printed)
    assert any("stage 0 | mean input steps" in text for text in printed)


@pytest.mark.slow
def test_the_api_page_names_every_public_object(tmp_path):
    command = [sys.executable, "-m", "pdoc", "--docformat", "google", "-o", str(tmp_path), "kpod_lightning"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    page = (tmp_path / "kpod_lightning.html").read_text()
    import kpod_lightning

    assert not [name for name in kpod_lightning.__all__ if f'id="{name}"' not in page]

"""The W&B workspace without a login: what its JSON asks for is what runs log."""

import json

import pytest

from kpod_lightning.__main__ import main
from kpod_lightning.commands.dashboard import PICTURES, STEP
from kpod_lightning.runs.metrics import UNITS

internal = pytest.importorskip("wandb_workspaces.workspaces.internal")


@pytest.fixture
def made(tmp_path, monkeypatch, capsys):
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    out = tmp_path / "dashboard.json"
    assert main(["dashboard", "--project", "group/study", "--out", str(out)]) == 0
    assert f"{out}: the workspace, not saved at W&B" in capsys.readouterr().out
    return json.loads(out.read_text())


def panels(made):
    return [p for section in made["spec"]["section"]["panelBankConfig"]["sections"] for p in section["panels"]]


def test_the_json_is_a_workspace_of_the_project_with_every_section(made):
    view = internal.View.model_validate(made)
    assert (view.entity, view.project) == ("group", "study")
    sections = made["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == [
        "Accuracy",
        "Loss",
        "Stage and input steps",
        "Asked against budget",
        "Throughput",
        "Pictures",
    ]
    assert all(section["panels"] for section in sections)


def test_every_number_that_a_panel_shows_is_one_that_runs_log(made):
    shown = [panel for panel in panels(made) if "metrics" in panel["config"]]
    numbers = {name for panel in shown for name in panel["config"]["metrics"]}
    assert numbers <= set(UNITS)
    # The rest are ends of intervals and the outcome of a test.
    others = ("epoch", "validation/", "test/")
    assert {name for name in UNITS if not name.startswith(others)} <= numbers
    lines = [panel for panel in shown if panel["viewType"] == "Run History Line Plot"]
    assert {panel["config"]["xAxis"] for panel in lines} == {STEP}


def test_every_picture_and_table_has_a_panel(made):
    text = json.dumps(made)
    assert all(f'"pictures/{name}"' in text for name in PICTURES)
    assert all(f'"tables/{name}"' in text for name in ("schedule", "outcomes", "test"))

"""The speed gate: it lets noise pass, and stops a fall of more than a fifth with one line."""

import json
from collections.abc import Iterator

import pytest

from benchmarks import gate


def measures(values: dict[str, list[float]]):
    left: dict[str, Iterator[float]] = {name: iter(row) for name, row in values.items()}
    return lambda name: next(left[name])


def test_a_ratio_may_fall_by_a_fifth_and_no_more():
    recorded = {"training": 1.0, "tokenising": 1.0}
    below = gate.fallen(recorded, measures({"training": [0.801], "tokenising": [0.799] * 3}))
    assert list(below) == ["tokenising"]
    assert below["tokenising"] == (0.8, [0.799] * 3)


def test_a_try_that_other_work_spoilt_is_repeated():
    assert gate.fallen({"training": 2.0}, measures({"training": [0.5, 0.9, 1.7]})) == {}


def test_a_good_ratio_is_measured_once():
    assert gate.fallen({"training": 1.0}, measures({"training": [1.0]})) == {}


@pytest.mark.parametrize(("value", "code", "lines"), [(0.9, 0, 0), (0.7, 1, 1)])
def test_the_gate_ends_with_one_line_for_a_ratio_that_fell(value, code, lines, tmp_path, monkeypatch, capsys):
    file = tmp_path / "gate.json"
    file.write_text(json.dumps({"evaluation": 1.0}))
    monkeypatch.setattr(gate, "RATIOS", {"evaluation": lambda: value})
    monkeypatch.setattr("sys.argv", ["gate"])
    assert gate.main(file) == code
    said = capsys.readouterr().err.splitlines()
    assert len(said) == lines
    assert all("evaluation is 0.70 times its peer (0.70, 0.70, 0.70), recorded 1.00, at least 0.80" in s for s in said)


def test_writing_records_what_is_measured(tmp_path, monkeypatch):
    file = tmp_path / "gate.json"
    monkeypatch.setattr(gate, "RATIOS", {"evaluation": lambda: 1.23456})
    monkeypatch.setattr("sys.argv", ["gate", "--write"])
    assert gate.main(file) == 0
    assert json.loads(file.read_text()) == {"evaluation": 1.235}


def test_every_recorded_ratio_is_measured_and_the_other_way_round():
    assert set(json.loads(gate.RECORDED.read_text())) == set(gate.RATIOS)

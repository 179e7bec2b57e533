"""Verification: what holds is counted, and what changed is one line with its place."""

import pytest
import small_runs

from kpod_lightning.__main__ import main
from kpod_lightning.data.benchmarks import cut, read_problems
from kpod_lightning.runs.folder import load_run
from kpod_lightning.runs.verified import regraded
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import load_jsonl, save_jsonl


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return small_runs.run(tmp_path_factory.mktemp("runs") / "run", *small_runs.SMALL, "method=plain")


@pytest.mark.slow
def test_a_run_that_holds_is_said_set_by_set(finished, capsys):
    assert main(["verify", str(finished)]) == 0
    assert "test-before 4, test 4, validation 4 outputs hold" in capsys.readouterr().out


@pytest.mark.slow
def test_a_record_that_is_graded_otherwise_now_is_named(finished, capsys):
    path = finished / "predictions" / "test.jsonl"
    rows = load_jsonl(path)
    save_jsonl(path, [*rows[:2], rows[2] | {"right": not rows[2]["right"]}, rows[3]])
    assert main(["verify", str(finished)]) == 2
    assert "predictions/test.jsonl" in capsys.readouterr().err  # not what the run wrote
    run = load_run(finished)
    problems = cut(read_problems(run.config), run.config)["test"]
    run.record("predictions/test.jsonl")  # as if it had been
    with pytest.raises(InputError, match=rf"problem {rows[2]['problem_id']}: right is {rows[2]['right']} now"):
        regraded(run, "test", problems)
    save_jsonl(path, rows[1:])
    run.record("predictions/test.jsonl")
    with pytest.raises(InputError, match="other problems"):
        regraded(run, "test", problems)


def test_a_study_without_a_run_is_one_line(tmp_path, capsys):
    file = tmp_path / "s.yaml"
    (tmp_path / "e.yaml").write_text("seed: 0\n")
    file.write_text("experiment: e.yaml\nseeds: [0, 1]\narms: {plain: [method=plain]}\n")
    assert main(["verify", str(file), "--runs", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "none of its 2 runs has ended" in error

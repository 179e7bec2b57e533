"""Verification: what holds is counted, and what changed is one line with its place."""

import json
import zipfile
from pathlib import Path

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


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    file = folder / "studies" / "small.yaml"
    file.parent.mkdir()
    (folder / "e.yaml").write_text("seed: 0\n")
    settings = [*small_runs.SMALL, "method=plain"]
    file.write_text(
        json.dumps({"experiment": "../e.yaml", "seeds": [0, 1], "settings": settings, "arms": {"plain": []}})
    )
    small_runs.run(folder / "runs" / "plain-s0", *settings, "seed=0")
    return file, folder / "runs"


@pytest.mark.slow
def test_an_archive_is_the_same_again_and_holds_where_it_is_unpacked(study, tmp_path, capsys, monkeypatch):
    file, runs = study
    first, second = tmp_path / "a.zip", tmp_path / "b.zip"
    for out in (first, second):
        assert main(["pack", str(file), "--runs", str(runs), "--out", str(out)]) == 0
    assert "1 run, 1 of the study have not ended" in capsys.readouterr().out
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path / "small")
    assert not Path("runs/plain-s0/student").exists() and not list(Path().rglob("*.ckpt"))
    commands = [line.partition("#")[0].split()[1:] for line in Path("README.md").read_text().splitlines()]
    verify, table = (next(words for words in commands if words[:1] == [verb]) for verb in ("verify", "table"))
    assert main(verify) == 0
    assert "test-before 4, test 4, validation 4 outputs hold" in capsys.readouterr().out
    assert main([word for word in verify if word != "--packed"]) == 2
    assert "student" in capsys.readouterr().err
    assert main(table) == 0
    for path in Path("again").iterdir():
        assert path.read_bytes() == Path("table", path.name).read_bytes()


@pytest.mark.slow
def test_an_archive_with_students_holds_as_it_stands(study, tmp_path, monkeypatch):
    file, runs = study
    assert main(["pack", str(file), "--runs", str(runs), "--students", "--out", str(tmp_path / "a.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path / "small")
    assert main(["verify", "experiments/studies/small.yaml", "--runs", "runs"]) == 0

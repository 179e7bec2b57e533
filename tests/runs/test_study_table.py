"""Tables of studies: what stands in a cell, that records make the same table again, and what is said under it."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_runs
import yaml

from kpod_lightning.__main__ import main
from kpod_lightning.commands.table import show
from kpod_lightning.evaluation.pages import latex
from kpod_lightning.runs.study import NAMED, Study, load_study
from kpod_lightning.runs.study_forms import as_csv, as_html, as_latex, as_markdown, comparison_cells, rows_of
from kpod_lightning.runs.study_records import Records, RunRecord, beforehand, load_records, save_records
from kpod_lightning.runs.study_table import table_of
from kpod_lightning.store.errors import InputError


def run_record(arm: str, seed: int, right: str, *, tokens: int = 1000, problems: str = "of-the-test-set") -> RunRecord:
    numbers = {"epochs": 2.0, "steps": 50, "tokens": tokens, "seconds": 12.5}
    name = f"{arm}-s{seed}"
    return RunRecord(run=name, arm=arm, seed=seed, problems=problems, before="0" * len(right), right=right, **numbers)


def records(*runs: RunRecord, family: list[list[str]] | None = None) -> Records:
    arms = dict.fromkeys(run.arm for run in runs)
    seeds = sorted({run.seed for run in runs})
    pairs = [["plain", "kpod"]] if family is None else family
    named = {"arms": {arm: [] for arm in arms}, "seeds": seeds, "family": pairs}
    return Records(
        study="mine", about="Which is better?", named=named, planned=len(arms) * len(seeds), beforehand="", runs=runs
    )


def drawn(share: float, seed: int, num_problems: int = 200) -> str:
    return "".join(map(str, (np.random.default_rng(seed).random(num_problems) < share).astype(int)))


@pytest.fixture
def study() -> Records:
    """Two arms of three seeds; kpod has a tenth fewer tokens."""
    plain = [run_record("plain", seed, drawn(0.5, seed)) for seed in range(3)]
    kpod = [run_record("kpod", seed, drawn(0.4, seed + 10), tokens=900) for seed in range(3)]
    return records(*plain, *kpod)


def test_cells_of_an_arm_by_hand():
    (cells,), _ = rows_of(table_of(records(run_record("plain", 0, "1100"), run_record("plain", 4, "1110"), family=[])))
    # 50 and 75 %: mean 62.5, sd 25 / √2 = 17.7, t(0.975, 1) = 12.7062, half width 12.7062 · 17.68 / √2 = 158.8.
    assert cells == ["plain", "0, 4", "50.0, 75.0", "62.5 ± 17.7", "[0.0, 100.0]", "2.0", "50", "1,000", "12"]


def test_one_seed_has_wilsons_interval_and_mcnemars_p_and_says_what_it_cannot_tell():
    table = table_of(records(run_record("plain", 0, "1" * 6 + "0" * 4), run_record("kpod", 0, "0" * 10)))
    arms, (cells,) = rows_of(table)
    assert arms[0][4] == "[31.3, 83.2]"
    assert cells[:3] == ["kpod − plain", "1", "−60.0"] and cells[6] == "0.031"  # 2 · (1/2)^6
    assert "does not say whether one method is better" in as_markdown(table)


def test_pairs_are_compared_over_the_seeds_that_both_arms_have(study):
    without = records(*(run for run in study.runs if run.run != "kpod-s1"))
    (row,) = table_of(without).comparisons
    assert row.seeds == (0, 2) and len(row.found.by_seed) == 2
    assert "5 of 6 runs have ended." in as_markdown(table_of(without))


def test_the_family_is_corrected_together_and_what_is_missing_is_said(study):
    more = [run_record("scotd", seed, drawn(0.5, seed + 20)) for seed in range(3)]
    family = [["plain", "kpod"], ["plain", "scotd"], ["plain", "krsl"]]
    table = table_of(records(*study.runs, *more, family=family))
    p = sorted(row.found.p_value for row in table.comparisons)
    assert sorted(row.adjusted for row in table.comparisons) == pytest.approx([2 * p[0], max(2 * p[0], p[1])])
    assert table.missing == ("krsl − plain",)


def test_the_papers_number_stands_in_a_column_of_its_own_where_there_is_one(study):
    assert "the paper" not in as_markdown(table_of(study))
    paper = replace(study, named=study.named | {"published": {"kpod": 46.74}})
    header, _, plain, kpod = [line for line in as_markdown(table_of(paper)).splitlines() if line.startswith("|")][:4]
    assert header.endswith("| the paper, one run |") and kpod.endswith("| 46.74 |") and plain.endswith("|  |")


def test_comparisons_of_a_question_are_corrected_together_and_apart_from_others(study):
    more = [run_record("scotd", seed, drawn(0.5, seed + 20)) for seed in range(3)]
    family = [["plain", "kpod", "method"], ["plain", "scotd", "method"], ["plain", "kpod", "again"]]
    table = table_of(records(*study.runs, *more, family=family))
    kpod, scotd, again = table.comparisons
    assert again.adjusted == again.found.p_value == kpod.found.p_value
    alone = table_of(records(*study.runs, *more, family=[pair[:2] for pair in family[:2]]))
    assert [kpod.adjusted, scotd.adjusted] == [row.adjusted for row in alone.comparisons]
    assert "| again: kpod − plain |" in as_markdown(table)
    assert "comparisons of each question (method: 2, again: 1)" in as_markdown(table)


def test_equal_tokens_steps_and_epochs_are_named(study):
    (row,) = table_of(study).comparisons
    assert row.equal == ["epochs", "steps"]


def test_runs_on_other_problems_are_not_compared():
    runs = run_record("plain", 0, "10"), run_record("kpod", 0, "10", problems="others")
    with pytest.raises(InputError, match="other problems"):
        table_of(records(*runs))


def test_records_make_the_same_table_again_byte_for_byte(study, tmp_path):
    save_records(tmp_path / "one.jsonl", study)
    again = load_records(tmp_path / "one.jsonl")
    assert again == study
    for form in (as_markdown, as_latex, as_csv, lambda table: as_html(table, {})):
        assert form(table_of(again)) == form(table_of(study))


def test_cells_lead_to_the_reports_of_their_runs(study):
    page = as_html(table_of(study), {"plain-s0": "plain-s0/report.html"})
    assert '<a href="plain-s0/report.html">0</a>, 1, 2' in page


def test_csv_has_a_line_a_run_and_a_line_a_comparison_with_all_digits(study):
    lines = list(csv.reader(as_csv(table_of(study)).splitlines()))
    assert [line[0] for line in lines[1:7]] == ["plain"] * 3 + ["kpod"] * 3
    assert float(lines[9][4]) == pytest.approx(table_of(study).comparisons[0].found.difference, abs=1e-15)


def test_latex_has_as_many_cells_as_columns_and_no_bare_sign(study):
    text = as_latex(table_of(study))
    for columns, body in re.findall(r"\\begin{tabular}{(\w+)}(.*?)\\end{tabular}", text, re.DOTALL):
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert rows and {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}
    assert latex("50 % ± a_b") == r"50 \% $\pm$ a\_b" and "−" not in text and "±" not in text


def test_the_command_writes_every_form_of_records(study, tmp_path, capsys):
    save_records(tmp_path / "records.jsonl", study)
    assert main(["table", str(tmp_path / "records.jsonl"), "--out", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"table.{e}" for e in ("md", "html", "tex", "csv")}
    assert "kpod − plain" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        ([], "is not known"),
        ([(0, ["a", "b"])], "before the first run had ended"),
        ([(0, ["a", "b"]), (3, ["a", "b"])], "before the first run had ended"),  # only arms or seeds came later
        ([(0, ["b", "a"])], "is not known"),
        ([(0, ["b", "a"]), (3, ["a", "b"])], "on day 1, when 3 runs had ended"),
        ([(2, ["a", "b"])], "on day 0, when 2 runs had ended"),
    ],
)
def test_a_table_says_when_its_comparisons_were_named(versions, words, tmp_path):
    study = Study(name="s", about="", folder=tmp_path, arms=(), seeds=(0,), family=(("a", "b"),))
    if versions:
        written = [{"date": f"day {i}", "num_finished": n, "family": [pair]} for i, (n, pair) in enumerate(versions)]
        (tmp_path / NAMED).write_text(json.dumps({"versions": written}))
    assert words in beforehand(study)


@pytest.mark.parametrize(
    ("text", "words"), [('{"a": 1}\n', "no records of a study"), ("{}\nx\n", ""), ("", "no records of a study")]
)
def test_what_is_no_records_file_is_one_line(text, words, tmp_path, capsys):
    path = Path(tmp_path / "records.jsonl")
    path.write_text(text)
    assert main(["table", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and words in error and str(path) in error


@pytest.mark.slow
def test_a_study_of_real_runs_has_a_table_and_its_records_make_it_again(tmp_path, capsys):
    file, folder = tmp_path / "mine.yaml", tmp_path / "runs"
    arms = {"plain": ["method=plain"], "answers": ["method=answers_only"]}
    experiment = str(Path(small_runs.EXPERIMENT).resolve())
    family = [["answers", "plain"]]
    written = {"experiment": experiment, "seeds": [0], "settings": small_runs.SMALL, "arms": arms, "family": family}
    file.write_text(yaml.safe_dump(written))
    words = ["table", str(file), "--runs", str(folder)]
    assert main(words) == 2 and "no run of the study has ended" in capsys.readouterr().err
    for run in load_study(file, [], folder).runs:
        assert main(run.words) == 0
    assert main(words) == 0
    tables = {ending: (folder / f"table.{ending}").read_bytes() for ending in ("md", "tex", "csv")}
    assert main(["table", str(folder / "records.jsonl"), "--out", str(tmp_path / "again")]) == 0
    assert {ending: (tmp_path / "again" / f"table.{ending}").read_bytes() for ending in tables} == tables
    assert 'href="plain-s0/report.html"' in (folder / "table.html").read_text()
    (first, _) = load_records(folder / "records.jsonl").runs
    assert first.tokens > 0 and first.steps == 6 and first.epochs == 2 and len(first.right) == 4
    capsys.readouterr()
    assert main(["compare", str(folder / "answers-s0"), str(folder / "plain-s0")]) == 0
    assert "does not say whether one method is better" in capsys.readouterr().out
    assert main(["compare", str(folder / "plain-s0"), str(folder / "plain-s0")]) == 2


def test_many_comparisons_and_seeds_are_shown_in_80_columns_with_every_number(capsys):
    names = ["plain", *(f"permuted-difficulties-{i}" for i in range(5))]
    runs = [run_record(arm, seed, drawn(0.3 + 0.05 * k, seed + k)) for k, arm in enumerate(names) for seed in range(9)]
    table = table_of(records(*runs, family=[["plain", name, "progression"] for name in names[1:]]))
    show(table)
    lines = capsys.readouterr().out.splitlines()
    said = " ".join(lines)
    assert max(map(len, lines[: lines.index("progression".ljust(80))])) <= 80
    for row in table.comparisons:
        assert comparison_cells(row)[2] in said and comparison_cells(row)[3] in said
    for run in runs:
        assert f"{100 * run.accuracy:.1f}" in said

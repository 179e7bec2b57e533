"""The verdict's page: its tables are what its records give, and its sentences quote them."""

import re
from pathlib import Path

import pytest

from benchmarks import verdict
from kpod_lightning.runs.study_records import Records, RunRecord, save_records

NUMBER = re.compile(r"[+−]?\d+\.\d+")


def page() -> str:
    return verdict.PAGE.read_text(encoding="utf-8")


@pytest.fixture
def records(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(verdict, "RECORDS", tmp_path)
    numbers = {"problems": "p", "before": "0000", "epochs": 1.0, "steps": 5, "tokens": 100, "seconds": 2.0}
    runs = [
        RunRecord(run=f"{arm}-s{seed}", arm=arm, seed=seed, right=right, **numbers)
        for arm, rights in {"a": ("1100", "1000"), "b": ("1110", "1111")}.items()
        for seed, right in enumerate(rights)
    ]
    named = {"arms": {"a": [], "b": []}, "seeds": [0, 1], "family": [["a", "b", "which"]]}
    save_records(
        tmp_path / "mine.jsonl",
        Records(study="mine", about="", named=named, planned=4, beforehand="", runs=tuple(runs)),
    )
    return tmp_path


def test_tables_are_written_between_their_marks_and_stay(records):
    text = "# T\n<!-- mine -->\n<!-- end -->\nwords\n<!-- mine: which -->\nold\n<!-- end -->\n"
    once = verdict.with_tables(text)
    assert "| a | 50.0, 25.0 | 37.5 ± 17.7 |" in once and "| b − a | +50.0" in once
    assert "old" not in once and "words" in once
    assert verdict.with_tables(once) == once


def test_a_question_that_a_study_does_not_ask_is_an_error(records):
    with pytest.raises(ValueError, match="no comparison of the question 'what'"):
        verdict.with_tables("<!-- mine: what -->\n<!-- end -->")


def test_a_picture_places_a_difference_and_its_interval_on_one_scale(records):
    text = verdict.picture("mine", "which")
    ticks = {
        int(text_.replace("−", "-")): float(x) for x, text_ in re.findall(r'<text x="([\d.]+)"[^>]*>([+−]?\d+)<', text)
    }
    (middle,) = (float(x) for x in re.findall(r'<circle cx="([\d.]+)"', text))
    (row,) = verdict.table_of(verdict.load_records(records / "mine.jsonl")).comparisons
    low, high = sorted(ticks)[0], sorted(ticks)[-1]
    scale = (ticks[high] - ticks[low]) / (high - low)
    assert middle == pytest.approx(ticks[low] + scale * (100 * row.found.difference - low), abs=0.2)
    assert 0 in ticks and "b − a" in text


def test_the_pictures_are_those_of_the_records():
    for name, text in verdict.pictures(page()).items():
        assert (verdict.PICTURES / name).read_text(encoding="utf-8") == text


def test_the_page_has_the_tables_that_the_records_give():
    assert verdict.with_tables(page()) == page()


def test_the_sentences_of_a_section_quote_numbers_of_its_tables_alone():
    sections = [part for part in re.split(r"\n(?=## )", page()) if verdict.MARKED.search(part)]
    assert sections
    for section in sections:
        tables = "".join(found["table"] for found in verdict.MARKED.finditer(section))
        sentences = re.sub(r"`[^`]*`", "", verdict.MARKED.sub("", section))
        unknown = set(NUMBER.findall(sentences)) - set(NUMBER.findall(tables))
        assert not unknown, section.splitlines()[0]

"""The paper's numbers: where they stand, and what chance makes of their gaps."""

import math
import runpy
from pathlib import Path

import pytest

from kpod_lightning.runs.published import Gap, accuracy_in_percent, gaps, published


def test_two_of_the_twelve_published_gaps_are_larger_than_chance():
    found = {(gap.student, gap.dataset): gap for gap in gaps()}
    passing = {key for key, gap in found.items() if abs(gap.z) > 1.96}
    assert len(found) == 12
    assert passing == {("flan-t5-xl", "commonsenseqa"), ("flan-t5-large", "commonsenseqa")}
    assert found["flan-t5-xl", "commonsenseqa"].best == "scott"


def test_the_z_of_a_gap_by_hand():
    gap = Gap(student="s", dataset="d", problems=100, best="b", of_best=0.5, of_kpod=0.6)
    assert gap.z == pytest.approx(0.1 / math.sqrt(0.25 / 100 + 0.24 / 100))  # 1.43


def test_every_student_has_every_method_and_data_set():
    table = published()
    for methods in table["accuracy"].values():
        assert list(methods) == ["none", "scotd", "specialized", "scott", "mcc_kd", "kpod"]
        assert all(list(row) == list(table["problems"]) for row in methods.values())


def test_a_variant_has_numbers_where_the_paper_has_them():
    assert accuracy_in_percent("llama-7b", "without-prog", "commonsenseqa") == 74.61
    assert accuracy_in_percent("llama-7b", "beta-12", "gsm8k") == 46.8
    assert accuracy_in_percent("flan-t5-large", "without-prog", "gsm8k") is None


def test_the_page_has_the_audit_as_the_command_prints_it(capsys):
    runpy.run_path("benchmarks/audit.py", run_name="__main__")
    assert capsys.readouterr().out.strip() in Path("docs/studies.md").read_text(encoding="utf-8")

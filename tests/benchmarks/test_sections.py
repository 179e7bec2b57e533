"""Sections of the benchmarks: each is found by its name, and those that take seconds run here."""

import inspect

import pytest

from benchmarks.measure import Options
from benchmarks.sections import SECTIONS, measure_of


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_measures_with_the_options_alone(section):
    assert list(inspect.signature(measure_of(section)).parameters) == ["options"]


@pytest.mark.parametrize("section", ["schedule"])
def test_a_quick_round_gives_ratios_of_named_peers(section):
    ratios = list(measure_of(section)(Options(quick=True)))
    assert ratios and all(ratio.peer and ratio.median > 0 for ratio in ratios)


@pytest.mark.slow
@pytest.mark.parametrize("section", ["kpod", "tokenising", "evaluation", "startup", "growth"])
def test_a_quick_round_of_a_slow_section_gives_ratios(section):
    ratios = list(measure_of(section)(Options(quick=True)))
    assert ratios and all(ratio.peer and ratio.median > 0 for ratio in ratios)

"""Comparisons of two arms: by hand, against statsmodels, and in simulations of seeds and problems."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from kpod_lightning.evaluation.comparison import (
    Chance,
    compare,
    detectable_by_mcnemar,
    detectable_by_t,
    holm,
    t_interval,
)
from kpod_lightning.evaluation.statistics import mcnemar_exact, wilson_interval


def drawn(seed: int, num_seeds: int, num_problems: int, seed_sd: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Two arms that are equally good on the average: [num_seeds, num_problems] of right and wrong each.

    Problems are of different difficulty, and some are easier for one arm; a seed moves all problems of one arm.
    """
    rng = np.random.default_rng(seed)
    difficulty, liking = rng.normal(0.45, 0.15, num_problems), rng.normal(0, 0.1, num_problems)
    arms = []
    for sign in (-1, 1):
        chance = difficulty + sign * liking / 2 + rng.normal(0, seed_sd, (num_seeds, 1))
        arms.append(rng.random((num_seeds, num_problems)) < chance)
    return arms[0], arms[1]


def test_a_comparison_by_hand():
    # Seed 0: A right on 0 and 1, B on 1, 2 and 3; seed 1: A on 0, B on 0 and 1.
    a = [[True, True, False, False], [True, False, False, False]]
    b = [[False, True, True, True], [True, True, False, False]]
    found = compare(a, b)
    assert found.by_seed == (0.25, 0.25) and found.difference == 0.25 and found.deviation == 0.0
    assert [(t.only_before, t.only_after) for t in found.tests] == [(1, 2), (0, 1)]
    assert found.discordance == 4 / 8
    assert found.seeds_interval == (0.25, 0.25)


def test_chance_of_a_table_by_hand():
    # Rows 1 and 3 on the average, columns 1 and 3, nothing left: MS of rows and of columns 2 · var(1, 3) = 4.
    chance = Chance.of(np.array([[0.0, 2.0], [2.0, 4.0]]))
    assert (chance.of_seeds, chance.of_problems) == (1.0, 1.0)
    t = stats.t.ppf(0.975, 1)
    assert chance.half_width(0.05) == pytest.approx(math.sqrt(2) * t, rel=1e-12)


def test_the_interval_of_the_level_p_ends_at_no_difference():
    chance = Chance.of(np.subtract(*map(np.float64, drawn(3, 5, 40))))
    for mean in (0.001, 0.05, 0.5):
        assert chance.half_width(chance.p_value(mean)) == pytest.approx(mean, rel=1e-9)
    assert chance.p_value(0.0) == 1.0 and chance.p_value(-0.05) == chance.p_value(0.05)


def test_without_a_share_of_the_problems_it_is_the_t_test_of_the_seeds():
    rows = np.array([[0.1, 0.3], [0.3, 0.1], [0.5, 0.6]])
    chance = Chance.of(rows)
    assert chance.of_problems == 0
    expected = stats.ttest_1samp(rows.mean(1), 0.0)
    assert chance.p_value(float(rows.mean())) == pytest.approx(expected.pvalue, rel=1e-9)


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 10])
def test_seeds_intervals_are_those_of_statsmodels(num_seeds):
    values = np.random.default_rng(num_seeds).normal(0.1, 0.05, num_seeds)
    assert t_interval(values.tolist()) == pytest.approx(DescrStatsW(values).tconfint_mean(), abs=1e-9)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 1), (3, 9), (12, 12), (40, 90)])
def test_mcnemar_is_that_of_statsmodels(only_a, only_b):
    expected = mcnemar([[50, only_a], [only_b, 20]], exact=True).pvalue
    before, after = [True] * only_a + [False] * only_b, [False] * only_a + [True] * only_b
    assert mcnemar_exact(before, after).p_value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("right", "problems"), [(0, 300), (5, 300), (150, 300), (299, 300)])
def test_wilson_intervals_are_those_of_statsmodels(right, problems):
    expected = proportion_confint(right, problems, method="wilson")
    assert wilson_interval(right, problems) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("p_values", [[0.01], [0.04, 0.01, 0.03], [0.5, 0.2, 0.9, 0.2], [0.0, 1.0, 0.02, 0.02]])
def test_holm_is_that_of_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1], abs=1e-9)
    assert holm([]) == []


@pytest.mark.parametrize("num_seeds", [3, 5, 20])  # of two, statsmodels has no power there: it is not a number
def test_detectable_differences_have_80_percent_power_by_statsmodels(num_seeds):
    effect = detectable_by_t(1.0 / math.sqrt(num_seeds), num_seeds - 1)
    power = TTestPower().power(effect, nobs=num_seeds, alpha=0.05)
    assert power == pytest.approx(0.8, abs=1e-9)


def test_detectable_differences_of_two_runs_are_those_of_the_published_table():
    """In points, at 15 and 25 % discordance; problems of GSM8K, ASDiv, SVAMP and CommonsenseQA."""
    for share, row in ((0.15, (4.2, 6.1, 8.9, 3.1)), (0.25, (5.5, 7.9, 11.4, 4.0))):
        found = [100 * detectable_by_mcnemar(share, n) for n in (659, 314, 150, 1221)]
        assert found == pytest.approx(row, abs=0.06)


def test_one_seed_has_the_interval_of_problems_and_mcnemars_p_value():
    a, b = drawn(0, 1, 200)
    found = compare(a, b)
    assert found.seeds_interval is None and found.deviation is None
    assert found.interval == found.problems_interval and found.p_value == found.tests[0].p_value


def test_exchanged_arms_have_the_opposite_difference():
    a, b = drawn(1, 5, 120)
    one, two = compare(a, b), compare(b, a)
    assert two.difference == -one.difference and two.p_value == pytest.approx(one.p_value, rel=1e-9)
    assert two.interval == pytest.approx([-bound for bound in reversed(one.interval)], abs=1e-12)


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((2, 3), (3, 3)), ((0, 0), (0, 0))])
def test_arms_that_are_not_paired_are_refused(shapes):
    with pytest.raises(ValueError, match="paired"):
        compare(*(np.zeros(shape, bool).tolist() for shape in shapes))


SIMULATIONS = 1000


@pytest.mark.slow
@pytest.mark.parametrize(("num_seeds", "seed_sd"), [(2, 0.05), (3, 0.05), (5, 0.0), (5, 0.05), (10, 0.05)])
def test_intervals_hold_the_truth_in_95_of_100_simulated_studies(num_seeds, seed_sd):
    """Seeds of one arm differ by as much as here, 5 points, or not at all; the arms are equally good."""
    held = 0
    for number in range(SIMULATIONS):
        a, b = drawn(number, num_seeds, 300, seed_sd)
        differences = b.astype(float) - a
        held += abs(differences.mean()) <= Chance.of(differences).half_width(0.05)
    error = 3 * math.sqrt(0.95 * 0.05 / SIMULATIONS)
    assert 0.95 - error <= held / SIMULATIONS <= 0.97 + error

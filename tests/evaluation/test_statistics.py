"""Intervals and tests against values worked out by hand."""

import math

import pytest

from kpod_lightning.evaluation.statistics import mcnemar_exact, wilson_interval


def test_wilson_interval_of_half():
    # centre 1/2; half width z / (1 + z^2/n) * sqrt(1/(4n) + z^2/(4n^2)) = z / (2 sqrt(n + z^2)), z = 1.959964
    half = 1.959963984540054 / (2 * math.sqrt(10 + 1.959963984540054**2))
    assert wilson_interval(5, 10) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-9)
    assert wilson_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


@pytest.mark.parametrize("n", [1, 10, 659])
def test_wilson_interval_of_none_and_all_is_open_on_one_side_only(n):
    share = 1.959963984540054**2 / (n + 1.959963984540054**2)  # the bounds are 0 and z^2 / (n + z^2)
    assert wilson_interval(0, n) == pytest.approx((0.0, share), abs=1e-9)
    assert wilson_interval(n, n) == pytest.approx((1.0 - share, 1.0), abs=1e-9)


@pytest.mark.parametrize(("successes", "n"), [(1, 3), (659, 1319), (1318, 1319), (123_456, 7_000_000)])
def test_wilson_interval_solves_its_equation(successes, n):
    """Its bounds p are where (share - p)^2 = z^2 p (1 - p) / n."""
    for p in wilson_interval(successes, n):
        distance = abs(successes / n - p)
        assert distance == pytest.approx(1.959963984540054 * math.sqrt(p * (1 - p) / n), rel=1e-9)


def test_wilson_interval_widens_with_confidence():
    low, high = wilson_interval(30, 100, confidence=0.90)
    lower, higher = wilson_interval(30, 100, confidence=0.99)
    assert 0 < lower < low < 0.3 < high < higher < 1


@pytest.mark.parametrize("successes, n", [(0, 0), (1, 0), (0, -1), (-1, 5), (6, 5)])
def test_wilson_interval_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError):
        wilson_interval(successes, n)


@pytest.mark.parametrize(
    "only_before, only_after, p_value",
    [
        (0, 0, 1.0),  # nothing differs
        (0, 1, 1.0),  # 2 * 1/2
        (0, 3, 0.25),  # 2 * 1/8
        (0, 6, 0.03125),  # 2 * 1/64
        (1, 5, 0.21875),  # 2 * (1 + 6) / 64
        (5, 1, 0.21875),
        (4, 4, 1.0),
    ],
)
def test_mcnemar_by_hand(only_before, only_after, p_value):
    before = [True] * only_before + [False] * only_after + [True] * 7 + [False] * 9
    after = [False] * only_before + [True] * only_after + [True] * 7 + [False] * 9
    result = mcnemar_exact(before, after)
    assert (result.only_before, result.only_after) == (only_before, only_after)
    assert result.p_value == pytest.approx(p_value, abs=1e-12)


def test_mcnemar_refuses_unequal_lengths():
    with pytest.raises(ValueError):
        mcnemar_exact([True], [True, False])

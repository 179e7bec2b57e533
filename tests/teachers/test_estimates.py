"""Estimates of what an order will cost."""

from decimal import Decimal

import pytest
from teachers.builders import row_of

from kpod_lightning.teachers.estimates import Seen, estimate, probably_billed


def seen_of(*costs: float, num_wasted: float = 0.0) -> Seen:
    seen = Seen(num_wasted=num_wasted)
    for cost in costs:
        seen.count(row_of("k", cost=cost))
    return seen


def test_an_estimate_is_the_mean_with_the_interval_of_a_mean():
    found = estimate(seen_of(0.01, 0.02, 0.03), 100)
    # Mean 0.02, standard deviation 0.01, so half the interval is 1.959964 * 0.01 / sqrt(3) = 0.0113158.
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 0.868414, 3.131586), abs=1e-6)
    assert str(found) == "2 [0.8684, 3.132] US dollars for 100 samples"


def test_an_estimate_adds_the_share_that_is_paid_for_in_vain():
    found = estimate(seen_of(0.01, 0.02, 0.03, num_wasted=1.5), 100)
    assert (found.value, found.low, found.high) == pytest.approx((3.0, 1.302621, 4.697379), abs=1e-6)


def test_no_estimate_is_below_nothing():
    # Mean 1 and standard deviation 2 of four: half the interval is 1.96.
    found = estimate(seen_of(0.0, 0.0, 0.0, 4.0), 1)
    assert (found.low, found.value, found.high) == pytest.approx((0.0, 1.0, 2.959964), abs=1e-6)


def test_nothing_is_estimated_from_nothing():
    with pytest.raises(ValueError, match="no row"):
        estimate(Seen(num_wasted=3), 10)


def test_what_is_seen_are_the_sums_over_rows():
    seen = Seen()
    seen.count(row_of("a", cost=0.5))
    seen.count(row_of("b", cost=2.0, correct=False, usage={"prompt_tokens": 7, "completion_tokens": 3}))
    assert seen == Seen(num_rows=2, num_right=1, cost=2.5, cost_squared=4.25, num_wasted=0.0)


@pytest.mark.parametrize(
    ("cost", "why", "billed"),
    [
        (None, "timeout", True),
        (None, "connection broken", True),
        (None, "no JSON after 500 bytes", True),
        (None, "500", False),
        (None, "503 overloaded", False),
        (None, "5000 tokens are missing", True),
        (None, "429 slow down", True),
        (Decimal(0), "timeout", False),
        (Decimal("0.01"), "500", True),
    ],
)
def test_what_came_to_nothing_was_paid_for_where_the_model_may_have_written(cost, why, billed):
    assert probably_billed(cost, why) is billed

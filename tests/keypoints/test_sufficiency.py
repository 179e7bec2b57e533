"""Were keypoints found: hand-made losses, and the reasons the guard gives."""

import math

import numpy as np
import pytest

from kpod_lightning.keypoints.sufficiency import looks, sufficiency


def nats(none, whole, top, drawn):
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 60)
    return {
        name: value + noise for name, value in {"none": none, "all": whole, "top 0.3": top, "random 0.3": drawn}.items()
    }


def test_sufficiency_is_the_share_of_the_gain_that_the_top_tokens_give():
    found = sufficiency(nats(4.0, 1.0, 1.6, 3.4), 0.3, 0.2)
    assert found.value == pytest.approx(0.8)
    assert found.interval[0] <= 0.8 <= found.interval[1]
    assert found.reason is None


@pytest.mark.parametrize(
    ("losses", "spread", "reason"),
    [
        ((4.0, 3.95, 3.95, 4.0), 0.2, "no better with the rationale"),
        ((4.0, 1.0, 3.4, 3.4), 0.2, "no better than a random choice"),
        ((4.0, 1.0, 3.8, 3.0), 0.2, "no better than a random choice"),
        ((4.0, 1.0, 1.5, 3.4), 0.01, "all tokens weigh the same"),
        ((math.nan, 1.0, 1.5, 3.4), 0.2, "no better with the rationale"),
    ],
)
def test_the_guard_says_why_no_keypoints_were_found(losses, spread, reason):
    assert reason in sufficiency(nats(*losses), 0.3, spread).reason


def test_looks_double_up_to_all_of_the_held_out_rationales_and_the_first_has_enough():
    assert looks(100) == [25, 50, 100]
    assert looks(2) == [2] and looks(49) == [49] and looks(50) == [25, 50]
    assert looks(1000) == [31, 62, 125, 250, 500, 1000]


@pytest.mark.parametrize(
    ("losses", "spread", "decided"),
    [
        ((4.0, 1.0, 1.5, 3.4), 0.2, True),  # clearly found
        ((4.0, 1.0, 3.8, 3.0), 0.2, True),  # clearly worse than a random choice
        ((4.0, 1.0, 3.4, 3.4), 0.2, False),  # as good as a random choice
        ((4.0, 1.0, 3.4, 3.4), 0.01, True),  # ... but all tokens weigh the same, whatever comes
        ((4.0, 3.99, 3.4, 3.0), 0.2, True),  # the rationale is worth nothing
        ((4.0, 3.9, 3.0, 3.4), 0.2, False),  # ... or just something
    ],
)
def test_a_look_decides_where_no_interval_holds_both_sides(losses, spread, decided):
    found = nats(*losses)
    rng = np.random.default_rng(1)
    for name in ("random 0.3", "all"):  # each rationale's own: else every interval is a point
        found[name] = found[name] + rng.normal(0, 0.02, 60)
    assert sufficiency(found, 0.3, spread, num_looks=3).decided == decided


def test_more_looks_ask_more_of_each_so_that_all_together_err_no_more_often():
    rng = np.random.default_rng(3)
    none, whole, drawn = (np.full(60, value) + rng.normal(0, 0.3, 60) for value in (4.0, 1.0, 3.4))
    found = {"none": none, "all": whole, "top 0.3": rng.normal(1.6, 0.3, 60), "random 0.3": drawn}
    one, three = (sufficiency(found, 0.3, 0.2, num_looks=number) for number in (1, 3))
    for name in ("interval", "over_random", "worth"):
        (low, high), (lower, higher) = getattr(one, name), getattr(three, name)
        assert lower < low < high < higher


@pytest.mark.slow
def test_where_there_is_nothing_to_find_the_looks_together_find_it_in_one_of_twenty_at_most():
    # Losses of one kind under both names, as skewed as those of answers are: few are large.
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(200):
        draws = rng.exponential(1.0, (2, 100))
        for number in looks(100):
            top, drawn = draws[:, :number] + 1
            found = {"none": np.full(number, 9.0), "all": np.zeros(number), "top 0.3": top, "random 0.3": drawn}
            judged = sufficiency(found, 0.3, 0.2, num_looks=3)
            if judged.decided:
                break
        wrong += judged.reason is None
    assert wrong <= 10

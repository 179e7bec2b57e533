"""Controls of the schedule keep what they promise: sums, numbers of steps, shares."""

import numpy as np
import pytest

from kpod_lightning.curricula.controls import mixed, permuted_difficulties, uniform
from kpod_lightning.curricula.schedule import Schedule, build_schedule

RNG = np.random.default_rng(0)
DIFFICULTIES = [RNG.uniform(0.5, 9.0, n) for n in RNG.integers(1, 7, 200)]
LENGTHS = np.array([len(row) for row in DIFFICULTIES])


@pytest.fixture(scope="module")
def schedule() -> Schedule:
    return build_schedule(DIFFICULTIES, RNG.integers(0, 5, 200), 4)


def asked(input_steps) -> float:
    return sum(row[c:].sum() for row, c in zip(DIFFICULTIES, input_steps, strict=True))


def test_permuted_difficulties_stay_among_rationales_with_as_many_steps():
    found = permuted_difficulties(DIFFICULTIES, seed=1)
    assert [len(row) for row in found] == LENGTHS.tolist()
    for length in range(2, 7):
        pairs = [(old, new) for old, new in zip(DIFFICULTIES, found, strict=True) if len(old) == length]
        old, new = (np.concatenate(rows) for rows in zip(*pairs, strict=True))
        assert sorted(old) == sorted(new) and abs(np.corrcoef(old, new)[0, 1]) < 0.25
    assert [row.tolist() for row in permuted_difficulties(DIFFICULTIES, 1)] == [row.tolist() for row in found]
    assert [row.tolist() for row in permuted_difficulties(DIFFICULTIES, 2)] != [row.tolist() for row in found]


def test_a_uniform_schedule_asks_the_same_share_and_as_many_nats_as_the_schedule(schedule):
    made = uniform(schedule, DIFFICULTIES, seed=1)
    for row, before, sum_before, sum_of_row in zip(
        made.input_steps, schedule.input_steps, schedule.asked, made.asked, strict=True
    ):
        assert sum_of_row == pytest.approx(asked(row)) and sum_before == pytest.approx(asked(before))
        assert sum_before - 9.0 < sum_of_row <= sum_before * (1 + 1e-9)  # less than one step below
        shares_low, shares_high = (LENGTHS - row - 1) / LENGTHS, (LENGTHS - row + 1) / LENGTHS
        assert shares_low.max() < shares_high.min()  # one share, rounded up or down, explains every row
    assert (np.diff(made.input_steps, axis=0) <= 0).all() and not made.input_steps[-1].any()
    assert made.certificate == 1


def test_a_uniform_schedule_of_two_rationales_by_hand():
    made = build_schedule([[1.0, 1.0], [1.0, 1.0]], [0, 0], 1, initial_fraction=0.5)
    assert made.asked.tolist() == [2.0, 4.0]
    assert uniform(made, [np.ones(2), np.ones(2)], seed=0).input_steps.tolist() == [[1, 1], [0, 0]]


def test_mix_makes_a_share_of_the_rationales_whole_others_at_every_stage(schedule):
    made = mixed(schedule, DIFFICULTIES, 0.2, seed=1)
    changed = made.input_steps != schedule.input_steps
    assert not made.input_steps[changed].any()
    whole = [set(np.flatnonzero(row)) for row in changed[:2]]
    assert all(20 < len(row) < 60 for row in whole) and whole[0] != whole[1]
    assert made.asked.tolist() == pytest.approx([asked(row) for row in made.input_steps])
    assert (made.budgets == schedule.budgets).all()


def test_mix_of_everything_is_whole_and_of_nothing_is_the_schedule(schedule):
    assert not mixed(schedule, DIFFICULTIES, 1.0, seed=1).input_steps.any()
    assert (mixed(schedule, DIFFICULTIES, 0.0, seed=1).input_steps == schedule.input_steps).all()

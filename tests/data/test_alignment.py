"""Dynamic time warping of two tokenisations, against slow references."""

import random

import numpy as np
import pytest

from kpod_lightning.data.alignment import TIE, costs, one_to_one, same_tokens, warped


def slow_distance(one: str, other: str) -> int:
    if not one or not other:
        return len(one) + len(other)
    if one[0] == other[0]:
        return slow_distance(one[1:], other[1:])
    return 1 + min(slow_distance(one[1:], other), slow_distance(one, other[1:]), slow_distance(one[1:], other[1:]))


def all_paths(i, j, end):
    if (i, j) == end:
        yield [(i, j)]
    for a, b in ((i + 1, j + 1), (i + 1, j), (i, j + 1)):
        if a <= end[0] and b <= end[1]:
            for rest in all_paths(a, b, end):
                yield [(i, j), *rest]


def test_costs_are_edit_distances_and_a_part_of_their_shares():
    draw = random.Random(0)
    words = ["".join(draw.choices("abc", k=draw.randint(0, 5))) for _ in range(12)] + ["kitten"]
    others = [*words[::-1], "sitting"]
    slow = np.array([[slow_distance(a, b) * (1 + TIE / max(len(a), len(b), 1)) for b in others] for a in words])
    np.testing.assert_allclose(costs(words, others), slow, rtol=1e-12)
    assert costs(["kitten"], ["sitting"]).round() == [[3]]


@pytest.mark.parametrize("seed", range(6))
def test_the_path_is_the_cheapest_of_all_paths(seed):
    rng = np.random.default_rng(seed)
    cost = rng.integers(0, 4, (int(rng.integers(1, 5)), int(rng.integers(1, 5)))).astype(float)
    end = (cost.shape[0] - 1, cost.shape[1] - 1)
    paths = list(all_paths(0, 0, end))
    found = warped(cost)
    assert found in paths
    assert sum(cost[pair] for pair in found) == min(sum(cost[pair] for pair in path) for path in paths)


def test_costs_are_the_distances_of_all_pairs_and_to_break_ties_their_shares():
    found = costs(["a", "bc", "a"], ["bc", "abc"])
    assert found.round().tolist() == [[2, 2], [0, 1], [2, 2]]
    assert found[1, 1] == pytest.approx(1 + TIE / 3, abs=TIE / 100)


def test_of_alignments_with_equal_distances_parts_of_a_token_go_to_it():
    assert same_tokens(["=", "12", "."], ["=", "1", "2", "."]) == [(0, 0), (2, 3)]


def test_pairs_of_which_one_has_two_partners_are_none():
    assert one_to_one([(0, 0), (1, 1), (1, 2), (2, 3)]) == [(0, 0), (2, 3)]


def test_equal_tokens_are_found_past_those_that_are_cut_otherwise():
    teacher = ["She", "has", "12", "apples", "."]
    student = ["S", "he", "has", "1", "2", "apples", "."]
    assert same_tokens(teacher, student) == [(1, 2), (3, 5), (4, 6)]
    assert same_tokens(teacher, teacher) == [(i, i) for i in range(5)]
    assert same_tokens(["", "a"], ["", "a"]) == [(1, 1)]
    assert same_tokens(["a", "b"], ["", "a", "", "b"]) == [(0, 1), (1, 3)]
    assert same_tokens([], ["a"]) == same_tokens(["a"], [""]) == []

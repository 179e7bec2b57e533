"""The tokens that a minimum edit distance does not match, against an alignment that tries everything."""

import random
from functools import cache

import pytest

from kpod_lightning.data.edits import unmatched


def distance(first, second):
    """The Levenshtein distance by trying every edit."""

    @cache
    def of(i, j):
        if not i or not j:
            return i + j
        same = of(i - 1, j - 1) + (first[i - 1] != second[j - 1])
        return min(same, of(i - 1, j) + 1, of(i, j - 1) + 1)

    return of(len(first), len(second))


def gaps(mask):
    """Number of unmatched elements before each matched one, and behind the last."""
    found = [0]
    for is_unmatched in mask:
        found[-1] += int(is_unmatched)
        if not is_unmatched:
            found.append(0)
    return found


def test_what_is_matched_is_equal_in_order_and_the_rest_costs_the_edit_distance():
    rng = random.Random(0)
    for _ in range(300):
        first, second = (tuple(rng.choices(range(3), k=rng.randint(0, 8))) for _ in range(2))
        left, right = unmatched(first, second)
        assert [x for x, lost in zip(first, left, strict=True) if not lost] == [
            x for x, lost in zip(second, right, strict=True) if not lost
        ]
        assert sum(map(max, zip(gaps(left), gaps(right), strict=True))) == distance(first, second)


@pytest.mark.parametrize(
    ("first", "second", "left", "right"),
    [
        ("abcd", "abxd", "0010", "0010"),  # replaced
        ("abd", "abcd", "000", "0010"),  # inserted
        ("abcd", "ad", "0110", "00"),  # left out
        ("", "ab", "", "11"),
        ("aab", "ab", "100", "00"),  # of two minimal alignments the one that matches from the end
        ("abb", "ab", "010", "00"),
    ],
)
def test_inserted_replaced_and_left_out_tokens_are_unmatched(first, second, left, right):
    found = unmatched([*map(ord, first)], [*map(ord, second)])
    assert tuple("".join(str(int(lost)) for lost in mask) for mask in found) == (left, right)

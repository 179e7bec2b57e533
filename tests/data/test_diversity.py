"""Which rationales of a question are the least alike."""

import pytest

from kpod_lightning.data.diversity import gram_set, jaccard, most_diverse


def test_the_grams_of_a_text_are_its_runs_of_words():
    assert gram_set("She has 3 + 4 .") == {("she", "has", "3"), ("has", "3", "+"), ("3", "+", "4"), ("+", "4", ".")}
    assert gram_set("a b a b", 2) == {("a", "b"), ("b", "a")}
    assert gram_set("So 7.") == {("so", "7.")}


def test_similarity_is_the_common_part_of_all_grams():
    assert jaccard({1, 2, 3}, {2, 3, 4}) == 0.5
    assert (jaccard({1}, {1}), jaccard({1}, {2})) == (1.0, 0.0)


# Similarities: 01 = 3/5, 02 = 1/7, 03 = 2/6, 04 = 1, 12 = 2/6, 13 = 1/7, 14 = 3/5, 23 = 1/7, 24 = 1/7, 34 = 2/6.
TOY = [{1, 2, 3, 4}, {2, 3, 4, 5}, {4, 5, 6, 7}, {1, 2, 7, 8}, {1, 2, 3, 4}]


@pytest.mark.parametrize(
    ("num_kept", "kept"),
    [
        (2, [0, 2]),  # the first of four pairs with 1/7
        (3, [0, 2, 3]),  # highest similarity to 0 and 2: of 1 3/5, of 3 1/3, of 4 1
        (4, [0, 1, 2, 3]),  # then of 1 3/5, of 4 1
        (5, [0, 1, 2, 3, 4]),
        (9, [0, 1, 2, 3, 4]),
    ],
)
def test_the_two_least_alike_are_kept_and_then_what_is_least_like_them(num_kept, kept):
    assert most_diverse(TOY, num_kept) == kept


def test_of_equals_the_first_are_kept():
    assert most_diverse([{1}] * 4, 3) == [0, 1, 2]
    assert most_diverse([], 5) == [] and most_diverse([{1}], 5) == [0]

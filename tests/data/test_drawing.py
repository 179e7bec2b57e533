"""Draws among the rationales of a question: even, and of seed, epoch and question alone."""

import numpy as np
import pytest

from kpod_lightning.data.drawing import Questions


def keys(*sizes, start=0):
    return [(f"q{start + i}", sample) for i, size in enumerate(sizes) for sample in range(size)]


def test_questions_know_where_their_rationales_stand():
    questions = Questions(keys(3, 1, 2))
    assert questions.names == ["q0", "q1", "q2"]
    assert questions.starts.tolist() == [0, 3, 4, 6]
    assert len(Questions([])) == 0


def test_each_rationale_is_drawn_about_equally_often():
    questions = Questions(keys(*[4] * 2000))
    drawn = np.concatenate([questions.one(0, epoch) - questions.starts[:-1] for epoch in range(5)])
    counts = np.bincount(drawn, minlength=4)
    assert counts.sum() == 10_000 and abs(counts - 2500).max() < 200  # five standard deviations are 217


def test_each_ordered_pair_is_drawn_about_equally_often_and_never_one_twice():
    questions = Questions(keys(*[3] * 3000))
    first, second = (positions - questions.starts[:-1] for positions in questions.two(1, 2))
    counts = np.bincount(3 * first + second, minlength=9).reshape(3, 3)
    assert np.diag(counts).tolist() == [0, 0, 0]
    assert abs(counts[~np.eye(3, dtype=bool)] - 500).max() < 100  # five standard deviations are 102


def test_what_is_drawn_depends_on_seed_epoch_and_question_alone():
    some, more = Questions(keys(5, 5, 5, start=7)), Questions(keys(*[5] * 10))
    drawn = (more.one(3, 4) - more.starts[:-1])[7:]
    assert (some.one(3, 4) - some.starts[:-1]).tolist() == drawn.tolist()
    many = Questions(keys(*[5] * 50))
    assert many.one(3, 4).tolist() == many.one(3, 4).tolist() != many.one(3, 5).tolist()
    assert many.one(3, 4).tolist() != many.one(4, 3).tolist() != many.one(4, 4).tolist()


def test_a_question_with_one_rationale_is_that_one():
    questions = Questions(keys(1, 2, 1))
    first, second = questions.two(0, 0)
    assert (first[0], second[0], first[2], second[2]) == (0, 0, 3, 3)
    assert {first[1], second[1]} == {1, 2}


@pytest.mark.parametrize("place", [(0, 0, 0), (2**31, 99, 1), (-5, 3, 0)])
def test_fractions_lie_between_0_and_1(place):
    found = Questions(keys(*[1] * 5000)).fractions(*place)
    assert 0 <= found.min() < 0.01 and 0.99 < found.max() < 1 and abs(found.mean() - 0.5) < 0.02

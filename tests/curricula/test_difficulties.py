"""Step difficulties against slow, obvious sums."""

import math

import numpy as np
import pytest
import torch

from kpod_lightning.curricula.difficulties import difficulties_of, step_difficulties
from kpod_lightning.curricula.schedule import build_schedule
from kpod_lightning.data.examples import make_example


def examples_of(student, rationales):
    return [make_example(r, student.tokenizer, encoder_decoder=student.encoder_decoder) for r in rationales]


def test_difficulty_is_the_softmax_weighted_mean_of_a_step_by_hand():
    nll = torch.tensor([1.0, 3.0, 2.0])
    weights = torch.tensor([0.2, 0.7, 0.9])
    found = step_difficulties(nll, weights, torch.tensor([0, 0, 1]), 2)
    first = (math.exp(0.2) * 1 + math.exp(0.7) * 3) / (math.exp(0.2) + math.exp(0.7))
    assert found.tolist() == pytest.approx([first, 2.0])


def test_equal_weights_give_the_mean_loss_of_each_step():
    torch.manual_seed(0)
    nll, step_of = torch.rand(20, dtype=torch.float64), torch.arange(20) // 5
    found = step_difficulties(nll, torch.full((20,), 0.3, dtype=torch.float64), step_of, 4)
    torch.testing.assert_close(found, nll.view(4, 5).mean(1))


def test_difficulty_does_not_depend_on_a_common_rise_of_the_weights():
    torch.manual_seed(0)
    nll, weights = torch.rand(12, dtype=torch.float64), torch.rand(12, dtype=torch.float64)
    step_of = torch.arange(12) // 4
    one, other = (step_difficulties(nll, weights + rise, step_of, 3) for rise in (0.0, 500.0))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("nll", "weights", "step_of", "num_steps", "words"),
    [
        ([1.0, math.nan], [0.5, 0.5], [0, 0], 1, "not finite"),
        ([1.0, 2.0], [0.5, math.inf], [0, 0], 1, "not finite"),
        ([1.0, 2.0], [0.5, 0.5], [0, 2], 3, "step 1 of 3 has no token"),
        ([1.0, 2.0], [0.5], [0, 0], 1, "are all"),
        ([], [], [], 0, "at least one step"),
    ],
)
def test_what_would_give_a_wrong_number_is_refused(nll, weights, step_of, num_steps, words):
    with pytest.raises(ValueError, match=words):
        step_difficulties(torch.tensor(nll), torch.tensor(weights), torch.tensor(step_of), num_steps)


def test_difficulties_of_all_steps_sum_to_what_the_schedule_asks_in_the_end(student, rationales):
    examples = examples_of(student, rationales)
    rng = np.random.default_rng(0)
    nll = [rng.random(len(e.target_ids)) for e in examples]
    weights = [rng.random(e.num_rationale_tokens) for e in examples]
    rows = list(difficulties_of(examples, nll, weights))
    assert [len(row) for row in rows] == [e.num_steps for e in examples]
    schedule = build_schedule(rows, np.arange(len(rows)) % 3, 4)
    assert schedule.asked[-1] == pytest.approx(sum(row.sum() for row in rows))
    assert schedule.total == pytest.approx(schedule.budgets[-1])


def test_the_answer_phrase_has_no_part_in_a_difficulty(student, rationales):
    examples = examples_of(student, rationales)
    nll = [np.where(np.arange(len(e.target_ids)) < e.num_rationale_tokens, 1.0, 1e6) for e in examples]
    for row in difficulties_of(examples, nll, None):
        np.testing.assert_allclose(row, 1.0)


def test_a_loss_that_is_not_finite_names_its_problem(student, rationales):
    examples = examples_of(student, rationales)
    nll = [np.ones(len(e.target_ids)) for e in examples]
    nll[3][2] = math.nan
    with pytest.raises(ValueError, match=examples[3].key[0]):
        list(difficulties_of(examples, nll, None))

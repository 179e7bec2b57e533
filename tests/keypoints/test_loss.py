"""The loss of the keypoint weights, Eqs. (5)-(7), against numbers worked out by hand; and what an update draws."""

import pytest
import torch
from keypoints.test_weights import examples_of

from kpod_lightning.config import WeightsConfig
from kpod_lightning.keypoints.batches import collate_keypoints
from kpod_lightning.keypoints.draws import Draws, draw_masks, random_masks
from kpod_lightning.keypoints.loss import keypoint_loss, prediction_losses, size_losses

NLL = torch.tensor([[1.0, 3.0], [2.0, 4.0]])
SHARES = torch.tensor([[0.5, 0.5], [0.25, 0.75]])
INSIDE = torch.tensor([[False, True, True, True], [False, True, True, False]])
MASK = torch.tensor([[9.0, 1.0, 0.0, 1.0], [9.0, 1.0, 0.0, 9.0]])  # read inside the rationale only


def draws(**changes):
    settings = dict(
        random_mask=MASK,
        chosen=torch.tensor([[True], [True]]),
        uniform=torch.zeros(2, 4),
        ends=torch.zeros(2, 2, dtype=torch.long),
        shares=SHARES,
        num_rows=2,
        num_chosen=2,
    )
    return Draws(**settings | changes)


def test_the_answer_loss_is_the_weighted_mean_over_prefixes_or_n_plus_one_times_it():
    lengths = torch.tensor([3, 2])
    assert prediction_losses(NLL, SHARES, lengths, "mean").tolist() == [2.0, 3.5]
    assert prediction_losses(NLL, SHARES, lengths, "sum").tolist() == [8.0, 10.5]


def test_the_size_is_the_share_of_kept_tokens_or_their_number():
    assert size_losses(MASK, INSIDE, "mean").tolist() == pytest.approx([2 / 3, 1 / 2])
    assert size_losses(MASK, INSIDE, "sum").tolist() == [2.0, 1.0]


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ({}, (2.0 + 3.5) / 2),
        ({"normalise": "sum"}, (8.0 + 10.5) / 2),
        ({"form": "penalty"}, (2.0 + 3.5) / 2 + 0.5 * (2 / 3 + 1 / 2) / 2),
        ({"form": "penalty", "alpha": 2.0, "normalise": "sum"}, (8.0 + 10.5) / 2 + 2.0 * (2 + 1) / 2),
    ],
)
def test_the_loss_is_the_mean_over_rationales_of_both_parts(settings, value):
    config = WeightsConfig(gradient="straight_through", **settings)
    loss = keypoint_loss(NLL, MASK, INSIDE, draws(), config, logits=torch.zeros(2, 4))
    assert loss.item() == pytest.approx(value)


def test_in_the_warm_up_the_loss_is_that_of_the_answer_alone():
    for gradient in ("score", "straight_through"):
        config = WeightsConfig(form="penalty", gradient=gradient)
        assert keypoint_loss(NLL, MASK, INSIDE, draws(), config).item() == pytest.approx(2.75)


def test_the_score_gradient_is_that_of_two_rationales_worked_out_by_hand():
    """Losses 2 and 3.5: the advantage of each is its difference to the other, -1.5 and 1.5, and d log P / d logit is
    m - w, with w = 1/2 everywhere. The mean halves it. A row with a random mask has no part in it."""
    logits = torch.zeros(2, 4, requires_grad=True)
    config = WeightsConfig(gradient="score")
    keypoint_loss(NLL, MASK, INSIDE, draws(), config, logits=logits).backward()
    expected = torch.tensor([[0.0, -0.375, 0.375, -0.375], [0.0, 0.375, -0.375, 0.0]])
    torch.testing.assert_close(logits.grad, expected)

    logits = torch.zeros(2, 4, requires_grad=True)
    one = draws(chosen=torch.tensor([[True], [False]]), num_chosen=1)
    keypoint_loss(NLL, MASK, INSIDE, one, config, logits=logits).backward()
    assert (logits.grad == 0).all()  # alone, a row has no other to be compared with


@pytest.mark.parametrize("form", ["budget", "penalty"])
def test_the_parts_of_two_ranks_add_up_to_the_loss_and_its_gradient(form):
    torch.manual_seed(0)
    nll, logits = torch.rand(4, 2), torch.randn(4, 4, requires_grad=True)
    mask = (torch.rand(4, 4) < 0.5).float()
    inside, shares = INSIDE.repeat(2, 1), SHARES.repeat(2, 1)
    config = WeightsConfig(gradient="score", form=form)
    chosen = torch.tensor([[True], [True], [False], [True]])
    whole = draws(random_mask=mask, chosen=chosen, shares=shares, uniform=mask, num_rows=4, num_chosen=3)
    loss = keypoint_loss(nll, mask, inside, whole, config, logits=logits)
    (gradient,) = torch.autograd.grad(loss, logits)
    prediction = prediction_losses(nll, shares, inside.sum(1), "mean")
    total = float(prediction[chosen[:, 0]].sum())
    parts = [
        keypoint_loss(
            nll[part],
            mask[part],
            inside[part],
            whole.rows(part),
            config,
            logits=logits[part],
            over_ranks=lambda _: total,
        )
        for part in (slice(0, 1), slice(1, 4))
    ]
    torch.testing.assert_close(sum(parts), loss)
    torch.testing.assert_close(torch.autograd.grad(sum(parts), logits)[0], gradient)


def test_random_masks_hide_up_to_the_largest_share():
    torch.manual_seed(0)
    inside = torch.ones(400, 500, dtype=torch.bool)
    assert (random_masks(inside, 0.0) == 1).all()
    hidden = 1 - random_masks(inside, 0.6).mean(1)
    assert hidden.max() < 0.68 and hidden.min() < 0.05
    assert hidden.mean().item() == pytest.approx(0.3, abs=0.03)


def test_an_update_draws_for_the_whole_batch_and_ranks_take_their_rows(student, rationales):
    batch = collate_keypoints(examples_of(student, rationales)[:5], student.pad_token_id)
    config = WeightsConfig(random_share=0.5)
    torch.manual_seed(0)
    warm = draw_masks(batch, config, both_learn=False, largest_masked=0.0)
    assert warm.num_rows == 5 and warm.num_chosen == 0 and (warm.random_mask == 1).all()
    both = draw_masks(batch, config, both_learn=True)
    assert both.num_chosen == int(both.chosen.sum())
    part = both.rows(slice(2, 5))
    assert (part.num_rows, part.num_chosen) == (both.num_rows, both.num_chosen)
    assert torch.equal(part.random_mask, both.random_mask[2:]) and torch.equal(part.ends, both.ends[2:])

"""The divergence of two predictions, against values worked out by hand and a loop."""

import math

import pytest
import torch

from kpod_lightning.students.divergence import two_way_kl


def test_two_tokens_of_two_words_by_hand():
    one = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])  # P = (1/4, 3/4), (1/2, 1/2)
    other = torch.tensor([[0.0, 0.0], [0.0, 0.0]])  # Q = (1/2, 1/2) twice
    forward = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    backward = 0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75)
    found = two_way_kl(one, other, torch.tensor([0, 0]), 1)
    assert found.tolist() == pytest.approx([0.5 * (forward / 2 + backward / 2)])
    apart = two_way_kl(one, other, torch.tensor([0, 1]), 2)
    assert apart.tolist() == pytest.approx([0.5 * (forward + backward), 0.0])


def test_the_temperature_divides_the_logits_and_multiplies_nothing():
    one, other = torch.tensor([[0.0, 2 * math.log(3)]]), torch.tensor([[0.0, 0.0]])
    cold = two_way_kl(one / 2, other, torch.tensor([0]), 1)
    assert two_way_kl(one, other, torch.tensor([0]), 1, temperature=2.0).item() == pytest.approx(cold.item())


def test_the_gradient_goes_through_both_as_that_of_a_loop():
    torch.manual_seed(0)
    logits = [torch.randn(5, 7, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    pair_of, temperature = [0, 0, 1, 2, 2], 1.3
    fast = two_way_kl(*logits, torch.tensor(pair_of), 3, temperature).sum()
    slow = torch.zeros((), dtype=torch.float64)
    for pair in range(3):
        rows = [r for r in range(5) if pair_of[r] == pair]
        for one, other in (logits, logits[::-1]):
            for r in rows:
                p, q = ((each[r] / temperature).softmax(0) for each in (one, other))
                slow = slow + 0.5 * (p * (p.log() - q.log())).sum() / len(rows)
    assert fast.item() == pytest.approx(slow.item())
    for found, wanted in zip(torch.autograd.grad(fast, logits), torch.autograd.grad(slow, logits), strict=True):
        torch.testing.assert_close(found, wanted)
        assert found.abs().max() > 0


def test_half_precision_is_compared_in_float32():
    found = two_way_kl(torch.zeros(1, 3).bfloat16(), torch.ones(1, 3).bfloat16(), torch.tensor([0]), 1)
    assert found.dtype == torch.float32 and found.item() == 0.0

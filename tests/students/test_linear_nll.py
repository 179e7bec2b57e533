"""The fused loss is the plain one: values, gradients, weights of any sign, bfloat16, autocast, chunks, one backward."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from kpod_lightning.students import linear_nll as module
from kpod_lightning.students.linear_nll import linear_nll, scored

NUM, WIDTH, VOCABULARY = 37, 16, 101


def made(dtype=torch.float64, bias=True):
    torch.manual_seed(0)
    hidden = torch.randn(NUM, WIDTH, dtype=dtype, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH, dtype=dtype, requires_grad=True)
    offset = torch.randn(VOCABULARY, dtype=dtype, requires_grad=True) if bias else None
    return hidden, weight, offset, torch.randint(0, VOCABULARY, (NUM,)), torch.randn(NUM)


def plain(hidden, weight, bias, targets, weights, weigh=None):
    """The loss with all logits at once."""
    wide = torch.promote_types(hidden.dtype, torch.float32)
    logits = F.linear(hidden, weight, bias).to(wide)
    nll = F.cross_entropy(logits, targets, reduction="none")
    weights = weights.to(wide)
    if weigh is not None:
        weights = weigh(logits.detach(), nll.detach(), targets, weights)
    return (weights * nll).sum(), weights.sum(), nll


def grads(loss, *tensors):
    return torch.autograd.grad(loss, [t for t in tensors if t is not None])


@pytest.fixture(params=[1, 5, 10**9], ids=["a token a chunk", "chunks of 5", "one chunk"])
def chunks(request, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", {"cpu": request.param * 4 * VOCABULARY, "cuda": 1})


@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_all_logits_at_once(chunks, bias):
    hidden, weight, offset, targets, weights = made(bias=bias)
    sums, nll = linear_nll(hidden, weight, offset, targets, weights)
    loss, mass, slow = plain(hidden, weight, offset, targets, weights)
    squares = (weights.to(loss.dtype) ** 2).sum()
    for ours, theirs in zip((*sums[:4], nll), (loss, mass, squares, slow.sum(), slow), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not nll.requires_grad and not sums.nats.requires_grad and not sums.mass.requires_grad
    found = grads(3.0 * sums.weighted, hidden, weight, offset)
    torch.testing.assert_close(found, grads(3.0 * loss, hidden, weight, offset))


def test_a_loss_computed_by_hand():
    head = torch.log(torch.tensor([[0.5], [0.25], [0.25]]))
    sums, nll = linear_nll(torch.ones(2, 1), head, None, torch.tensor([0, 2]), torch.tensor([2.0, -0.5]))
    assert nll.tolist() == pytest.approx([math.log(2), math.log(4)])
    assert sums.weighted.item() == pytest.approx(2 * math.log(2) - 0.5 * math.log(4))
    assert (sums.mass.item(), sums.nats.item()) == pytest.approx((1.5, math.log(8)))


def test_weights_that_follow_from_the_step_are_those_of_all_logits_at_once(chunks):
    def weigh(logits, nll, targets, weights):
        log_p = logits.log_softmax(-1)
        assert torch.allclose(nll, -log_p.gather(1, targets[:, None])[:, 0])
        return weights * torch.exp(-nll) + 0.1 * -(log_p.exp() * log_p).sum(-1)

    hidden, weight, offset, targets, weights = made()
    sums, _ = linear_nll(hidden, weight, offset, targets, weights, weigh)
    loss, mass, _ = plain(hidden, weight, offset, targets, weights, weigh)
    torch.testing.assert_close((sums.weighted, sums.mass), (loss, mass))
    torch.testing.assert_close(grads(sums.weighted, hidden, weight), grads(loss, hidden, weight))


def test_bfloat16_is_summed_in_float32(chunks):
    hidden, weight, offset, targets, weights = made(torch.bfloat16)
    sums, _ = linear_nll(hidden, weight, offset, targets, weights)
    loss, _, _ = plain(hidden, weight, offset, targets, weights)
    assert sums.weighted.dtype == torch.float32
    torch.testing.assert_close(sums.weighted, loss, rtol=1e-5, atol=1e-5)
    exact = [t.detach().double().requires_grad_() for t in (hidden, weight, offset)]
    slow = grads(plain(*exact, targets, weights)[0], *exact)
    for ours, theirs in zip(grads(sums.weighted, hidden, weight, offset), slow, strict=True):
        assert ours.dtype == torch.bfloat16
        # Errors are rounded to bfloat16 (8 bits) before a product and its result once more.
        assert (ours.double() - theirs).norm() < 2**-6 * theirs.norm()


def test_within_autocast_it_computes_as_a_linear_map_would():
    hidden, weight, offset, targets, weights = made(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sums, _ = linear_nll(hidden, weight, offset, targets, weights)
        loss, _, _ = plain(hidden, weight, offset, targets, weights)
    torch.testing.assert_close(sums.weighted, loss, rtol=1e-5, atol=1e-5)
    ours, theirs = grads(sums.weighted, hidden, weight), grads(loss, hidden, weight)
    assert all(grad.dtype == torch.float32 for grad in ours)
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() < 2**-6 * other.norm()


def test_a_frozen_head_gets_no_gradient_and_the_states_theirs():
    hidden, weight, _, targets, weights = made()
    frozen = weight.detach()
    sums, _ = linear_nll(hidden, frozen, None, targets, weights)
    (ours,) = grads(sums.weighted, hidden)
    torch.testing.assert_close(ours, grads(plain(hidden, frozen, None, targets, weights)[0], hidden)[0])


def test_a_second_backward_pass_stops_instead_of_giving_other_gradients():
    hidden, weight, offset, targets, weights = made()
    sums, _ = linear_nll(hidden, weight, offset, targets, weights)
    sums.weighted.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        sums.weighted.backward()


def test_the_most_memory_is_a_chunk_of_logits(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", {"cpu": 4 * VOCABULARY * 4, "cuda": 1})
    sizes = []
    amax = torch.Tensor.amax

    def counted(logits, *args, **kwargs):
        sizes.append(len(logits))
        return amax(logits, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "amax", counted)
    hidden, weight, offset, targets, weights = made()
    linear_nll(hidden, weight, offset, targets, weights)
    assert max(sizes) <= 4 and sum(sizes) == NUM


def test_no_target_gives_nothing():
    hidden, weight, _, targets, weights = made()
    sums, nll = linear_nll(hidden[:0], weight, None, targets[:0], weights[:0])
    assert [each.item() for each in sums[:4]] == [0, 0, 0, 0] and len(nll) == 0


def test_weights_chosen_among_all_targets_are_those_of_all_logits_at_once(chunks):
    """The half with the largest probability times weight: ``weigh`` token by token, then a choice among them all."""

    def weigh(logits, nll, targets, weights):
        return weights * torch.exp(-nll)

    hidden, weight, offset, targets, weights = made()
    scores, nll = scored(hidden, weight, offset, targets, weights, weigh)
    _, _, slow = plain(hidden, weight, offset, targets, weights)
    torch.testing.assert_close(nll, slow.detach())
    torch.testing.assert_close(scores, weights * torch.exp(-slow.detach()))
    assert not scores.requires_grad and not nll.requires_grad


class Products(TorchDispatchMode):
    """Counts matrix products."""

    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += "mm" in func.overloadpacket.__name__
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("asks", "expected"), [(torch.enable_grad, 3), (torch.no_grad, 1), (torch.inference_mode, 1)])
def test_a_pass_that_asks_no_gradient_makes_the_logits_and_nothing_else(asks, expected):
    hidden, weight, _, targets, weights = made()
    with asks(), Products() as products:
        linear_nll(hidden, weight, None, targets, weights)
    assert products.number == expected

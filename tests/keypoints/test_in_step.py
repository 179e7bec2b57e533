"""Weights that are computed in the step, against hand-computed ones; those that are all 1 train the same bytes."""

import math
from dataclasses import replace

import pytest
import torch

from kpod_lightning.__main__ import main
from kpod_lightning.data.examples import make_example
from kpod_lightning.data.views import collate, view
from kpod_lightning.keypoints.base import find_weighting
from kpod_lightning.keypoints.in_step import top_share
from kpod_lightning.methods.base import load_experiment

LOGITS = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
TARGETS = torch.tensor([0, 3])
NLL = torch.nn.functional.cross_entropy(LOGITS, TARGETS, reduction="none")
P = [math.exp(2) / (math.exp(2) + 3), 0.25]
Q = math.exp(2) / (math.exp(2) + 1)  # of the two likeliest tokens


def weighting(kind, *settings):
    config = load_experiment(None, ["seed=0", "method=kpod", "curriculum=none", f"weights.kind={kind}", *settings])
    return find_weighting(kind)(config)


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("dft", [], P),
        ("power", ["power.alpha=2"], [p**2 for p in P]),
        ("threshold", ["threshold.q=0.3"], [1, 0]),
        ("threshold", ["threshold.q=0.3", "threshold.invert=true"], [0, 1]),
        (
            "eaft",
            ["eaft.top=2"],
            [-Q * math.log2(Q) - (1 - Q) * math.log2(1 - Q), 1],
        ),
    ],
)
def test_weights_are_those_computed_by_hand(kind, settings, expected):
    found = weighting(kind, *settings).in_step(LOGITS, NLL, TARGETS, torch.ones(2))
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_p_to_the_alpha_times_the_gradient_of_the_loss_is_the_gradient_of_the_family():
    logits = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    targets = torch.arange(5)
    nll = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    w = weighting("power", "power.alpha=0.7").in_step(logits.detach(), nll.detach(), targets, torch.ones(5))
    (weighted,) = torch.autograd.grad((w * nll).sum(), logits, retain_graph=True)
    (family,) = torch.autograd.grad(((1 - (-0.7 * nll).exp()) / 0.7).sum(), logits)
    torch.testing.assert_close(weighted, family)


def test_the_top_share_is_of_each_example_and_of_equal_scores_the_earlier_comes_first():
    scores = torch.tensor([1.0, 3.0, 2.0, 5.0, 5.0, 5.0, 0.0])
    example_of = torch.tensor([0, 0, 0, 1, 1, 1, 2])
    assert top_share(scores, example_of, 0.5).tolist() == [0, 1, 1, 1, 1, 0, 1]
    assert top_share(scores, example_of, 1.0).tolist() == [1] * 7
    assert top_share(scores, example_of, 0.01).tolist() == [0, 1, 0, 1, 0, 0, 1]


@pytest.fixture(scope="module")
def batches(student, rationales):
    """The same examples padded and packed, as a stage that starts in the middle asks them."""
    examples = [make_example(r, student.tokenizer, encoder_decoder=student.encoder_decoder) for r in rationales[:4]]
    eos = student.tokenizer.eos_token_id
    views = [view(e, e.num_steps // 2, encoder_decoder=student.encoder_decoder, eos_token_id=eos) for e in examples]
    windows = [(next(j for j, s in enumerate(e.step_of) if s >= e.num_steps // 2), len(e.target_ids)) for e in examples]
    made = [
        collate(
            views,
            [e.key for e in examples],
            pad_token_id=student.pad_token_id,
            divisor=1,
            packed=packed,
            positions=(0, 1, 2, 3),
            windows=tuple(windows),
        )
        for packed in (False, True)
    ]
    return windows, made


@pytest.mark.parametrize("kind", ["dft", "power", "threshold", "eaft", "entropy_top", "excess"])
@pytest.mark.parametrize("rescale", ["mean", "none"])
def test_loss_and_mean_weight_are_the_same_packed_and_padded(student, batches, kind, rescale):
    from kpod_lightning.students.forward import packs
    from kpod_lightning.students.nll import losses

    windows, made = batches
    packs(student, must=True)
    chosen = weighting(kind, f"weights.rescale={rescale}")
    if kind == "excess":
        with torch.no_grad():
            now = losses(student, made[0])[1]
        rows = now.split([stop - first for first, stop in windows])
        # Before distillation a later target was worse: the last 60 % of what is asked are chosen.
        more = [torch.arange(len(row)) * 0.1 for row in rows]
        chosen.before = [
            torch.cat([torch.zeros(first), row + extra]).numpy()
            for (first, _), row, extra in zip(windows, rows, more, strict=True)
        ]
        weights = chosen.chosen(now, torch.ones_like(now), made[0])
        last = [torch.arange(len(row)) >= len(row) - math.ceil(0.6 * len(row) - 1e-9) for row in rows]
        assert weights.bool().tolist() == torch.cat(last).tolist()
    padded, packed = (chosen.loss(student, batch) for batch in made)
    for name in ("weighted", "mass", "squares"):
        torch.testing.assert_close(getattr(padded, name), getattr(packed, name), rtol=1e-3, atol=1e-3)
    if rescale == "mean" and padded.mass > 0:
        assert padded.mass.item() == pytest.approx(made[0].num_targets, rel=1e-5)


def test_until_the_first_weighted_epoch_and_without_use_in_the_loss_all_weights_are_one(student, batches):
    batch = batches[1][0]
    later = weighting("dft", "weights.start_epoch=1", "weights.rescale=none")
    off = weighting("dft", "weights.in_loss=false")
    for plain in (later.loss(student, batch), off.loss(student, batch)):
        assert plain.mass.item() == batch.num_targets and plain.weighted.item() == pytest.approx(plain.nats.item())
    assert later.loss(student, replace(batch, epoch=1)).mass.item() < batch.num_targets


EXPERIMENT = "experiments/arithmetic.yaml"
SMALL = [
    *("data.num_train=24", "data.num_validation=4", "data.num_test=4", "optim.epochs=2", "optim.batch_size=8"),
    *("evaluation.max_new_tokens=8", "logging.wandb=disabled", "method=kpod", "curriculum=none", "weights.floor=0"),
]


@pytest.mark.slow
def test_weights_of_one_train_the_same_bytes_as_uniform(tmp_path):
    def student_of(name, *settings):
        folder = tmp_path / name
        assert main(["run", EXPERIMENT, "--run", str(folder), "--until", "train", *SMALL, *settings]) == 0
        return (folder / "student" / "model.safetensors").read_bytes()

    uniform = student_of("uniform", "weights.kind=uniform")
    for kind, *settings in [
        ("power", "power.alpha=0"),
        ("threshold", "threshold.q=0"),
        ("eaft", "eaft.alpha=0"),
        ("entropy_top", "entropy_top.share=1"),
        ("excess", "excess.share=1"),
        ("dft", "weights.start_epoch=2"),
    ]:
        assert student_of(kind, f"weights.kind={kind}", *settings) == uniform, kind
    assert student_of("weighted", "weights.kind=excess") != uniform
    assert student_of("answers", "weights.kind=uniform", "weights.answer_weight=2") != uniform

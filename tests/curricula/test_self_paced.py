"""Self-paced learning: confidences by hand, what their passes leave alone, and runs."""

import math

import pytest
import small_runs
import torch
from small_runs import EXPERIMENT, student_of

from kpod_lightning.__main__ import main
from kpod_lightning.curricula.confidence import confidences, losses_under_dropout, normalised
from kpod_lightning.data.examples import make_example
from kpod_lightning.data.views import collate, view
from kpod_lightning.runs.folder import load_run
from kpod_lightning.students.dropout import blocks_of, dropout_in_blocks, has_dropout
from kpod_lightning.students.nll import losses
from kpod_lightning.students.student import load_student

SMALL = [*small_runs.SMALL, "method=kpod", "weights.kind=uniform"]


def run(folder, *settings):
    return small_runs.run(folder, *SMALL, *settings)


@pytest.fixture
def learner(student):
    """A student in training mode, as a training step finds it; the shipped ones have no dropout."""
    student.model.train()
    yield student
    student.model.eval()


def batch_of(student, rationales, *, packed=False):
    examples = [make_example(r, student.tokenizer, encoder_decoder=student.encoder_decoder) for r in rationales]
    views = [view(e, 0, encoder_decoder=student.encoder_decoder, eos_token_id=1) for e in examples]
    places = {"positions": tuple(range(len(examples))), "epoch": 1}
    return collate(views, [e.key for e in examples], pad_token_id=0, divisor=1, packed=packed, **places)


# ---- Values ----


def test_confidences_of_two_examples_by_hand():
    # The first example has targets 0 and 1, the second has target 2.
    nll = torch.tensor([[1.0, 2.0, 4.0], [3.0, 1.0, 4.0]], dtype=torch.float64)
    # u: [1/4, 1/2, 1] and [3/4, 1/4, 1]; unbiased variances of two values are half their squared difference.
    tokens = [1 - 1 / 8, 1 - 1 / 32, 1.0]
    # s: [3/4, 1] and [1, 1].
    of_first = 1 - 1 / 32
    expected = [tokens[0] ** 2 * of_first**2, tokens[1] ** 2 * of_first**2, 1.0]
    found = confidences(nll, torch.tensor([0, 0, 1]), 2, exponent=2)
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


def test_a_student_that_is_sure_of_all_in_every_pass_has_the_confidence_of_one():
    assert confidences(torch.zeros(3, 4), torch.tensor([0, 0, 1, 1]), 2, exponent=2).tolist() == [1.0] * 4


def test_normalised_factors_by_hand():
    values = torch.tensor([0.5, 1.0], dtype=torch.float64)
    total = math.exp(0.5) + math.exp(1.0)
    softmax = [2 * math.exp(0.5) / total, 2 * math.exp(1.0) / total]
    assert normalised(values, "softmax").tolist() == pytest.approx(softmax)
    assert normalised(values, "mean").tolist() == pytest.approx([0.5 / 0.75, 1.0 / 0.75])
    assert normalised(values, "none").tolist() == [0.5, 1.0]


# ---- Passes with dropout ----


def test_dropout_in_blocks_is_there_within_the_block_alone(learner, rationales):
    batch = batch_of(learner, rationales[:2])
    assert not has_dropout(learner.model)
    layers = learner.model.config
    decoder = layers.num_decoder_layers if learner.encoder_decoder else 0
    assert len(blocks_of(learner.model)) == layers.num_hidden_layers + decoder
    with torch.no_grad():
        before = losses(learner, batch)[1]
        with dropout_in_blocks(learner.model, 0.1):
            dropped = losses(learner, batch)[1]
        after = losses(learner, batch)[1]
    assert torch.equal(before, after) and not torch.allclose(before, dropped, atol=1e-3)


def test_passes_follow_from_seed_epoch_and_examples_and_leave_the_training_generator_alone(learner, rationales):
    batch = batch_of(learner, rationales[:3])
    torch.manual_seed(3)
    state = torch.get_rng_state()
    one = losses_under_dropout(learner, batch, num_passes=3, rate=0.1, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    assert torch.equal(losses_under_dropout(learner, batch, num_passes=3, rate=0.1, seed=1), one)
    other = losses_under_dropout(learner, batch, num_passes=3, rate=0.1, seed=2)
    assert one.shape == (3, batch.num_targets) and not one.requires_grad
    assert not torch.equal(one[0], one[1]) and not torch.equal(other, one)


def test_a_rate_of_the_students_own_counts_as_dropout():
    student = load_student("tiny-t5")
    next(module for module in student.model.modules() if isinstance(module, torch.nn.Dropout)).p = 0.1
    assert has_dropout(student.model)


# ---- Runs ----


@pytest.fixture(scope="module")
def paced(tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs") / "paced", "curriculum=self_paced", "self_paced.num_passes=2")


def test_a_run_logs_its_mean_confidence_and_weighs_by_it(paced):
    rows = [row for row in load_run(paced).metrics if "self_paced/mean_confidence" in row]
    assert len(rows) == 2
    assert all(0.5 < row["self_paced/mean_confidence"] < 1 for row in rows)
    assert all(row["train/mean_weight"] == pytest.approx(1, abs=1e-5) for row in rows)
    assert all(row["train/effective_share"] < 1 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_an_exponent_of_zero_is_no_curriculum(name, tmp_path):
    student = f"student.name={name}"
    none = run(tmp_path / "none", student, "curriculum=none")
    zero = run(tmp_path / "zero", student, "curriculum=self_paced", "self_paced.exponent=0")
    paced = run(tmp_path / "paced", student, "curriculum=self_paced")
    assert student_of(zero) == student_of(none) != student_of(paced)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["self_paced.dropout=null"], "curriculum=self_paced: tiny-llama has no dropout"),
        (["self_paced.num_passes=1"], "self_paced.num_passes is at least 2, got 1"),
        (["optim.loss_scale=mass"], "optim.loss_scale=mass divides by the weights of a global batch before its step"),
    ],
)
def test_what_self_paced_cannot_do_is_one_line(settings, words, capsys, tmp_path):
    folder = str(tmp_path / "run")
    assert main(["run", EXPERIMENT, "--run", folder, *SMALL, "curriculum=self_paced", *settings]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1

"""MCC-KD: diverse pairs, and a loss that equals one worked out example by example, for both families."""

from itertools import combinations

import pytest
import torch
from small_runs import EXPERIMENT, SMALL, run, student_of

from kpod_lightning.__main__ import main
from kpod_lightning.data.arithmetic import generate
from kpod_lightning.data.datamodule import ExampleDataModule
from kpod_lightning.data.examples import make_examples
from kpod_lightning.data.rationales import Rationale
from kpod_lightning.data.stages import Progress
from kpod_lightning.data.steps import split_steps
from kpod_lightning.data.texts import text_of
from kpod_lightning.methods.base import load_experiment, method_of
from kpod_lightning.runs.folder import load_run
from kpod_lightning.store.json_lines import load_jsonl, save_jsonl
from kpod_lightning.students.forward import packs
from kpod_lightning.students.student import load_student

MCC = [*SMALL, "method=mcc_kd", "rationales.num_per_problem=4", "mcc_kd.num_kept=3"]


# ---- The loss ----


class Given:
    """A context with the examples of some questions, of which one has a single rationale."""

    def __init__(self, student, folder, config):
        problems = generate("train", 5, seed=3, num_rationales=4)
        rationales = [
            Rationale(problem=made.problem, text=text, sample=sample, steps=tuple(split_steps(text)))
            for i, made in enumerate(problems)
            for sample, text in enumerate([made.problem.rationale, *(text for text, _ in made.others)][: 4 if i else 1])
        ]
        self.examples = make_examples(
            [rationale.key for rationale in rationales],
            [text_of(rationale) for rationale in rationales],
            student.tokenizer,
            encoder_decoder=student.encoder_decoder,
            normalise=student.normalise,
        )
        self.texts = [rationale.text for rationale in rationales]
        self.folder, self.config, self.student = folder, config, student


def begun(student, folder, *settings):
    method = method_of(load_experiment(None, ["method=mcc_kd", "mcc_kd.num_kept=3", *settings]))
    context = Given(student, folder, method.config)
    save_jsonl(folder / "diverse.jsonl", method.made(context))
    method.begin(context)
    return method


def batches(method, student, *, packed, **parts):
    data = ExampleDataModule(
        method.examples,
        encoder_decoder=student.encoder_decoder,
        pad_token_id=student.pad_token_id,
        eos_token_id=student.tokenizer.eos_token_id,
        batch_size=5,
        stages=method.stages,
        draw=method.draw,
    )
    data.setup("fit")
    data.dataset.packed = packed
    return [data.dataset[micro_batch] for micro_batch in data.micro_batches(Progress(epoch=1), **parts)]


def target_logits(student, example):
    """[len(target_ids), V] logits that predict the targets of one example by itself."""
    prompt, target = torch.tensor([example.prompt_ids]), torch.tensor([example.target_ids])
    if student.encoder_decoder:
        prompt = torch.cat([prompt, torch.tensor([[student.tokenizer.eos_token_id]])], 1)
        return student.model(input_ids=prompt, labels=target).logits[0]
    ids = torch.cat([prompt, target], 1)
    return student.model(input_ids=ids).logits[0, prompt.shape[1] - 1 : -1]


def slow_loss(method, student, pairs):
    """L of the equation, in loops over examples and tokens."""
    settings, examples = method.settings, method.examples
    logits = {i: target_logits(student, examples[i]) for pair in pairs for i in pair}
    nll = {
        i: torch.stack([-rows[t].log_softmax(0)[id] for t, id in enumerate(examples[i].target_ids)])
        for i, rows in logits.items()
    }
    if settings.mean == "tokens":
        cross_entropy = torch.cat([*nll.values()]).mean()
    else:
        cross_entropy = torch.stack([each.mean() for each in nll.values()]).mean()
    divergences = []
    for pair in pairs:
        if len(pair) == 2:
            parts = []
            for i in pair:
                shift = settings.span == "as_released"
                start, end = examples[i].answer_start + shift, len(examples[i].target_ids) - 1 + shift
                parts.append((logits[i][start:end] / settings.temperature).log_softmax(-1))
            one, other = parts
            there = (one.exp() * (one - other)).sum(-1).mean()
            back = (other.exp() * (other - one)).sum(-1).mean()
            divergences += [0.5 * (there + back)] * 2  # each of the two rationales has it
        else:
            divergences.append(torch.zeros(()))
    divergence = torch.stack(divergences).mean()
    return cross_entropy + settings.alpha * divergence, divergence


def gradients(student, loss):
    trained = [parameter for parameter in student.model.parameters() if parameter.requires_grad]
    return torch.autograd.grad(loss, trained, allow_unused=True)


@pytest.fixture(scope="module", params=["tiny-llama", "tiny-t5"])
def learner(request):
    """A student of its own, as packing prepares it, and in float64, where sums in another order agree."""
    student = load_student(request.param)
    student.model.double().eval()
    assert packs(student)
    return student


@pytest.mark.parametrize(
    "settings",
    [
        ["mcc_kd.alpha=5"],
        ["mcc_kd.alpha=2", "mcc_kd.temperature=1.3", "mcc_kd.span=as_released", "mcc_kd.mean=examples"],
    ],
)
def test_loss_and_gradient_are_those_of_the_equation_packed_padded_and_in_parts(learner, tmp_path, settings):
    method = begun(learner, tmp_path, *settings)
    (whole,) = batches(method, learner, packed=False)
    pairs = method.draw(len(method.examples), 1)
    assert sorted(map(len, pairs)) == [1, 2, 2, 2, 2] and sorted(sum(pairs, ())) == sorted(whole.positions)
    slow, divergence = slow_loss(method, learner, pairs)
    wanted = gradients(learner, slow)
    for packed, parts in ((False, {}), (True, {}), (True, {"accumulate": 2})):
        sums = [method.loss(learner, batch) for batch in batches(method, learner, packed=packed, **parts)]
        fast = sum(each.weighted for each in sums) / whole.divisor
        torch.testing.assert_close(fast, slow, rtol=1e-6, atol=0)
        logged = sum(each.more["kl"] for each in sums) / whole.num_asked
        torch.testing.assert_close(logged, divergence.detach(), rtol=1e-6, atol=0)
        for found, should in zip(gradients(learner, fast), wanted, strict=True):
            assert (found is None) == (should is None)
            if found is not None:
                torch.testing.assert_close(found, should, rtol=1e-4, atol=1e-6)
    assert divergence > 0


def test_answers_of_unequal_tokens_are_counted_and_not_compared(learner, tmp_path, monkeypatch):
    method = begun(learner, tmp_path)
    (batch,) = batches(method, learner, packed=True)
    equal = type(method.examples).answer_ids
    monkeypatch.setattr(type(method.examples), "answer_ids", lambda examples, i: equal(examples, i) + i)
    rows, pair_of, unequal = method.spans(batch.positions)
    assert (rows.shape, len(pair_of), unequal) == ((2, 0), 0, 4)
    sums = method.loss(learner, batch)
    assert sums.more["kl"] == 0 and sums.weighted == sums.nats
    assert sums.more["kl_skipped"] / batch.num_asked == pytest.approx(8 / 9)  # of the rationales


# ---- Pairs ----


def test_each_question_has_two_of_its_kept_rationales_an_epoch_or_its_only_one(student, tmp_path):
    method = begun(student, tmp_path)
    rows = load_jsonl(tmp_path / "diverse.jsonl")
    assert [len(row["samples"]) for row in rows] == [1, 3, 3, 3, 3]
    assert [row["pairs"] for row in rows] == [0, 3, 3, 3, 3] and rows[0]["similarity"] is None
    kept = [
        {i for i, key in enumerate(method.examples.keys) if key[0] == row["problem_id"] and key[1] in row["samples"]}
        for row in rows
    ]
    epochs = [method.draw(17, epoch) for epoch in range(20)]
    for groups in epochs:
        assert all(each.issuperset(group) for each, group in zip(kept, groups, strict=True))
        assert [len({*group}) for group in groups] == [1, 2, 2, 2, 2]
    assert {frozenset(groups[1]) for groups in epochs} == {frozenset(pair) for pair in combinations(kept[1], 2)}


def test_a_question_with_one_rationale_can_be_left_out(student, tmp_path):
    assert [len(group) for group in begun(student, tmp_path, "mcc_kd.singles=drop").draw(17, 0)] == [2, 2, 2, 2]


# ---- Runs ----


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def mcc(runs):
    return run(runs / "mcc", *MCC)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["mcc_kd.num_kept=1"], "mcc_kd.num_kept is at least 2, got 1"),
        (["mcc_kd.temperature=0"], "mcc_kd.temperature is positive, got 0"),
        (["mcc_kd.span=plus_one"], "mcc_kd.span=plus_one is none of minus_one, as_released"),
        (["mcc_kd.singles=drop", "rationales.num_per_problem=1"], "mcc_kd.singles=drop leaves no question"),
    ],
)
def test_a_wrong_setting_is_one_line(capsys, settings, says):
    assert main(["run", EXPERIMENT, *SMALL, "method=mcc_kd", *settings]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and says in error


def test_a_run_keeps_diverse_rationales_logs_its_divergence_and_reports_pairs(mcc):
    assert {len(row["samples"]) for row in load_jsonl(mcc / "diverse.jsonl")} == {3}
    logged = [row for row in load_run(mcc).metrics if "train/kl" in row]
    assert len(logged) == 2 and all(row["train/kl"] > 0 == row["train/kl_skipped"] for row in logged)
    report = (mcc / "report.html").read_text()
    assert "72 rationales of 24 questions are kept as the least alike." in report
    assert "0 of 72 pairs have answers of unequal tokens" in report


@pytest.mark.slow
def test_without_its_factor_the_divergence_is_logged_and_not_trained_on(mcc, runs):
    without = run(runs / "without", *MCC, "mcc_kd.alpha=0")
    assert student_of(without) != student_of(mcc)
    rows = [row for row in load_run(without).metrics if "train/kl" in row]
    assert all(
        row["train/weighted_nats_per_token"] == row["train/nats_per_token"] and row["train/kl"] > 0 for row in rows
    )

"""SCOTT and KRSL: right rationales beside wrong ones, with losses by hand, and turned off the same as plain."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import small_runs
import torch
from small_runs import EXPERIMENT, student_of

from kpod_lightning.__main__ import main
from kpod_lightning.data.answers import extract_answer
from kpod_lightning.data.datamodule import ExampleDataModule
from kpod_lightning.data.edits import unmatched
from kpod_lightning.data.examples import make_examples
from kpod_lightning.data.rationales import wrong_of
from kpod_lightning.data.stages import Progress
from kpod_lightning.data.wrong import wrong_rows
from kpod_lightning.methods.base import load_experiment, method_of
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import load_jsonl
from kpod_lightning.store.reading import read_object

SMALL = [*small_runs.SMALL, "data.num_train=12", "data.num_validation=2", "data.num_test=2", "optim.batch_size=6"]
WITHOUT = 3
"""Position of the rationale that has no wrong one in the tests without a run."""


def run(folder, *settings, until="train"):
    assert main(["run", EXPERIMENT, "--run", str(folder), *SMALL, *settings, "--until", until]) == 0
    return folder


def losses_of(folder):
    return [row["train/nats_per_token"] for row in load_jsonl(folder / "metrics.jsonl") if "train/stage" in row]


def begun(name, student, rationales, *settings):
    """The method, and a data module with the texts of five rationales of which one has no wrong one."""
    method = method_of(load_experiment(None, [f"method={name}", *settings]))
    right = rationales[:5]
    pairs = [wrong_of(r, row) for r, row in zip(right, wrong_rows(right, None, seed=0), strict=True)]
    pairs[WITHOUT] = right[WITHOUT]
    if method.wrong is None:
        pairs = right
    texts = [(i, r.key, text) for i, r in enumerate(pairs) for text in method.texts(r)]
    sources, keys, few = zip(*texts, strict=True)
    family = {"encoder_decoder": student.encoder_decoder}
    examples = make_examples(keys, few, student.tokenizer, sources=sources, normalise=student.normalise, **family)
    method.begin(SimpleNamespace(examples=examples, student=student, config=method.config))
    data = ExampleDataModule(
        examples,
        stages=method.stages,
        pad_token_id=student.pad_token_id,
        eos_token_id=student.tokenizer.eos_token_id,
        views=method.views,
        draw=method.draw,
        batch_size=5,
        **family,
    )
    return method, data


def loss_of(method, data, student, epoch, accumulate=1):
    """The loss of the epoch's one global batch, summed over its micro-batches."""
    parts = [data.dataset[part] for part in data.micro_batches(Progress(epoch=epoch), accumulate=accumulate)]
    with torch.no_grad():
        return sum(method.loss(student, part).weighted.item() / part.divisor for part in parts)


@torch.no_grad()
def token_losses(student, example):
    """[len(target_ids)] losses of an example that is run alone, without views or batches."""
    targets = torch.tensor(example.target_ids)
    if student.encoder_decoder:
        ids = torch.tensor([[*example.prompt_ids, student.tokenizer.eos_token_id]])
        logits = student.model(input_ids=ids, labels=targets[None]).logits[0]
    else:
        ids = torch.tensor([[*example.prompt_ids, *example.target_ids]])
        logits = student.model(input_ids=ids).logits[0, len(example.prompt_ids) - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none").numpy()


# ---- SCOTT ----


def test_scotts_texts_carry_their_prefixes_on_both_sides_and_steps_tile_the_rationale(rationales):
    method = method_of(load_experiment(None, ["method=scott"]))
    (row,) = wrong_rows(rationales[:1], None, seed=0)
    factual, other = method.texts(wrong_of(rationales[0], row))
    assert factual.prompt == f"[factual] {other.prompt.removeprefix('[counterfactual] ')}"
    assert factual.rationale == f"[factual] {rationales[0].text}"
    assert other.rationale == f"[counterfactual] {row['rationale']}"
    assert (factual.answer, other.answer) == (rationales[0].problem.answer, row["answer"])
    for text in (factual, other):
        assert "".join(text.rationale[start:end] for start, end in text.steps) == text.rationale
    assert method.prompt(rationales[0].problem) == factual.prompt


@pytest.mark.parametrize(
    ("kind", "said", "answer"),
    [
        ("number", "[factual] So 3 + 4 = 7. Therefore, the answer is 7", "7"),
        ("choice", "[factual] BBB. Therefore, the answer is B", "B"),
        ("choice", "[factual] It is a bank, so (B)", "B"),
        ("yes_no", "[factual] It does. Therefore, the answer is yes", "yes"),
        ("number", "[factual] nobody knows", None),
        ("choice", "[factual] nobody knows", None),
    ],
)
def test_an_answer_behind_the_prefix_is_read_and_the_prefix_is_none(kind, said, answer):
    assert extract_answer(said, kind=kind, variant="flexible", labels=("A", "B", "C")) == answer


@pytest.mark.parametrize("accumulate", [1, 2])
def test_scotts_loss_is_two_means_of_which_the_second_asks_the_wrong_answers_alone(student, rationales, accumulate):
    method, data = begun("scott", student, rationales, "scott.alpha=0.3")
    factual, counterfactual = [], []
    for example in data.examples:
        losses = token_losses(student, example)
        (counterfactual if example.kind else factual).append(losses[example.answer_start :] if example.kind else losses)
    expected = 0.7 * np.concatenate(factual).mean() + 0.3 * np.concatenate(counterfactual).mean()
    assert (len(factual), len(counterfactual)) == (5, 4)
    assert loss_of(method, data, student, 0, accumulate) == pytest.approx(expected, rel=1e-5)


# ---- KRSL ----


def test_krsl_is_plain_before_its_epoch_and_raises_the_loss_of_wrong_key_tokens_from_there_on(student, rationales):
    method, data = begun("krsl", student, rationales, "optim.epochs=4", "krsl.beta=0.25", "krsl.alpha=2")
    right = [e for e in data.examples if e.kind == 0]
    wrong = {e.key: e for e in data.examples if e.kind == 1}
    plain = np.concatenate([token_losses(student, e) for e in right]).mean()
    assert loss_of(method, data, student, 1) == pytest.approx(plain, rel=1e-5)
    total = num_tokens = 0
    for one in (e for e in right if e.key in wrong):
        other = wrong[one.key]
        ours, theirs = unmatched(one.target_ids, other.target_ids)
        total += 2 * (ours * token_losses(student, one)).sum() - 0.25 * (theirs * token_losses(student, other)).sum()
        num_tokens += len(ours) + len(theirs)
    assert loss_of(method, data, student, 2) == pytest.approx(total / num_tokens, rel=1e-4)
    assert [method.rate_factor(epoch) for epoch in range(4)] == [1, 1, 0.025, 0.025]
    assert [len(group) for group in method.draw(9, 2)] == [2, 2, 2, 2]


# ---- Runs ----


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run(tmp_path_factory.mktemp("plain"), "method=plain")


@pytest.mark.parametrize("name", ["tiny-llama", pytest.param("tiny-t5", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "off", [["method=scott", "scott.alpha=0", "scott.prefixes=false"], ["method=krsl", "krsl.start_epoch=2"]]
)
def test_turned_off_it_is_plain_distillation_to_the_byte(name, off, plain, tmp_path):
    folder = run(tmp_path / "run", *off, f"student.name={name}")
    other = plain if name == "tiny-llama" else run(tmp_path / "plain", "method=plain", f"student.name={name}")
    assert student_of(folder) == student_of(other)
    assert not (folder / "wrong.jsonl").exists()


def test_krsl_begins_as_plain_distillation_and_goes_on_at_a_smaller_rate(plain, tmp_path):
    one, other = (run(tmp_path / scale, "method=krsl", f"krsl.lr_scale={scale}") for scale in ("0.025", "1"))
    assert losses_of(one)[0] == losses_of(other)[0] == losses_of(plain)[0]
    assert student_of(one) != student_of(other)
    assert (one / "rationales.jsonl").read_bytes() == (plain / "rationales.jsonl").read_bytes()


def test_scott_learns_from_a_teachers_own_mistakes(tmp_path):
    made = run(tmp_path / "made", "method=plain", until="rationales")
    lines = []
    for number, row in enumerate(load_jsonl(made / "rationales.jsonl")):
        told = [row["rationale"], "They are 1 + 1 = 2. The answer is 2."] if number < 7 else [row["rationale"]]
        lines += [{"problem_id": row["problem_id"], "sample": i, "rationale": text} for i, text in enumerate(told)]
    teacher = tmp_path / "teacher.jsonl"
    teacher.write_text("".join(json.dumps(line) + "\n" for line in lines))
    recorded = ["rationales.source=recorded", f"rationales.teacher={teacher}", "scott.counterfactual=recorded"]
    folder = run(tmp_path / "run", "method=scott", *recorded)
    rows = load_jsonl(folder / "wrong.jsonl")
    assert [row["answer"] for row in rows] == ["2"] * 7 + [None] * 5
    assert rows[0]["rationale"] == "They are 1 + 1 = 2."
    assert read_object(folder / "provenance.json")["counts"]["with a wrong rationale beside it"] == 7


# ---- What is refused ----


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["method=scott", "scott.alpha=1"], "scott.alpha lies in"),
        (["method=scott", "scott.counterfactual=made_up"], "scott.counterfactual=made_up is none of made, recorded"),
        (["method=scott", "scott.counterfactual=recorded"], "needs rationales.source=recorded, not generated"),
        (["method=scott", "optim.loss_scale=sum"], "take optim.loss_scale=tokens"),
        (["method=scott", "rationales.correct_only=false"], "take rationales.correct_only=true"),
        (["method=krsl", "krsl.lr_scale=0"], "krsl.lr_scale lies in"),
        (["method=krsl", "krsl.beta=-1"], "krsl.beta is at least 0"),
        (["method=krsl", "optim.loss_scale=mass"], "weights of krsl may be negative"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(settings, words):
    with pytest.raises(InputError, match=words):
        load_experiment(None, settings)


def test_a_teacher_without_mistakes_is_one_line(capsys, tmp_path):
    made = run(tmp_path / "made", "method=plain", until="rationales")
    capsys.readouterr()
    settings = ["rationales.source=recorded", f"rationales.teacher={made / 'rationales.jsonl'}", "krsl.wrong=recorded"]
    words = ["run", EXPERIMENT, "--run", str(tmp_path / "run"), *SMALL, "method=krsl", *settings]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "none of 12 rationales has a wrong one beside it" in error and error.count("\n") == 1

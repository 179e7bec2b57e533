"""Weightings whose table follows from the rationales alone, and what ``weights.*`` does to every table."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kpod_lightning.data.arithmetic import generate
from kpod_lightning.data.examples import make_example, make_examples
from kpod_lightning.data.rationales import Rationale
from kpod_lightning.data.steps import split_steps
from kpod_lightning.data.texts import text_of
from kpod_lightning.keypoints.base import Weighting
from kpod_lightning.keypoints.in_loss import loss_weights
from kpod_lightning.keypoints.numbers import ARITHMETIC
from kpod_lightning.methods.base import load_experiment, method_of
from kpod_lightning.store.errors import InputError

EXPERIMENT = Path("experiments/arithmetic.yaml")


def config_of(kind, *settings):
    return load_experiment(
        EXPERIMENT, ["method=kpod", f"weights.kind={kind}", "weights.floor=0", "data.max_steps=5", *settings]
    )


def context_of(student, rationales):
    """What a table reads of a run's context."""
    examples = make_examples(
        [r.key for r in rationales],
        [text_of(r) for r in rationales],
        student.tokenizer,
        encoder_decoder=student.encoder_decoder,
    )
    return SimpleNamespace(
        examples=examples, texts=[r.text for r in rationales], problems=[r.problem for r in rationales]
    )


def weighting_of(kind, *settings):
    return method_of(config_of(kind, *settings)).weighting


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("Tom has 1,450 + 7 = 1,457 pens.", ["1,450", "+", "7", "=", "1,457"]),
        ("48/2=24, so $24.50 - $3 is $21.50.", ["48", "/", "2", "=", "24", "24.50", "-", "3", "21.50"]),
        ("Step 2: 3 well-known pens and/or books", ["2", "3"]),
        ("**Step 1**: 3 x 4 × (2 - 5)", ["1", "3", "x", "4", "×", "2", "-", "5"]),
        ("- five pens\n* six at -8 %", ["-", "8 %"]),
        ("4 boxes * 6 pens are 25% of ½ (3²)", ["4", "*", "6", "25%", "½", "3²"]),
        ("At 9:30 he counts 2-3 at x = 4", ["9:30", "2", "-", "3", "=", "4"]),
        ("", []),
    ],
)
def test_numbers_and_operators_are_marked_and_hyphens_bullets_and_letters_are_not(text, marked):
    assert [match.group() for match in ARITHMETIC.finditer(text)] == marked


def test_tokens_over_digits_and_operators_weigh_high_the_others_low_and_the_answer_one(student, rationales):
    context = context_of(student, rationales)
    table = weighting_of("numbers", "numbers.high=2", "numbers.low=0.25").table(context)
    for row, example, rationale in zip(table, context.examples, rationales, strict=True):
        spans = example.spans[: example.num_rationale_tokens]
        for weight, (start, stop) in zip(row, spans, strict=False):
            covered = rationale.text[start:stop]
            assert weight == (2 if any(c.isdigit() or c in "+-*/=" for c in covered) else 0.25), covered
        assert row[len(spans) :].tolist() == [1.0] * (len(example.target_ids) - len(spans))


def test_the_oracle_raises_the_results_of_every_wording_of_the_generator(student):
    made = generate("train", 3, seed=0, num_rationales=3)
    rationales = [
        Rationale(problem=m.problem, text=text, sample=sample, steps=tuple(split_steps(text)))
        for m in made
        for sample, (text, _) in enumerate([(m.problem.rationale, m.kinds), *m.others])
    ]
    context = context_of(student, rationales)
    context.problems = [m.problem for m in made]
    table = weighting_of("oracle", "rationales.num_per_problem=3", "oracle.low=0.5").table(context)
    for row, example, rationale in zip(table, context.examples, rationales, strict=True):
        for j, (start, stop) in enumerate(example.spans[: example.num_rationale_tokens]):
            before = rationale.text[:start].rstrip()
            is_result = any(c.isdigit() for c in rationale.text[start:stop]) and (
                before.endswith("=") or (before[-1:].isdigit() and row[j - 1] == 1 and stop > start)
            )
            assert row[j] == (1 if is_result else 0.5), (rationale.text, start, stop)


def test_the_oracle_refuses_a_rationale_that_the_generator_did_not_write(student, rationales):
    context = context_of(student, rationales)  # of another seed than the settings'
    with pytest.raises(InputError, match="is not the generator's"):
        weighting_of("oracle").table(context)


def test_a_random_share_of_each_rationale_weighs_one_whatever_their_order(student, rationales):
    weighting = weighting_of("random", "random.share=0.25", "seed=3")
    context, reverse = context_of(student, rationales), context_of(student, rationales[::-1])
    found = dict(zip(context.examples.keys, map(list, weighting.table(context)), strict=True))
    again = dict(zip(reverse.examples.keys, map(list, weighting.table(reverse)), strict=True))
    for rationale in rationales:
        example = make_example(rationale, student.tokenizer, encoder_decoder=student.encoder_decoder)
        n, row = example.num_rationale_tokens, found[rationale.key]
        assert sorted(set(row)) == [0.0, 1.0] and sum(row[:n]) == round(0.25 * n)
        assert row[n:] == [1.0] * (len(row) - n)
        assert again[rationale.key] == row
    other = weighting_of("random", "random.share=0.25", "seed=4").table(context_of(student, rationales))
    assert any(row.tolist() != found[r.key] for row, r in zip(other, rationales, strict=True))


@pytest.mark.parametrize("kind", ["numbers", "random"])
def test_every_table_is_shuffled_within_its_rationale_raised_to_the_floor_and_rescaled(kind, student, rationales):
    context = context_of(student, rationales)
    plain, shuffled, raised = (
        weighting_of(kind, *settings).loss_table(context)
        for settings in (
            ["weights.rescale=none"],
            ["weights.permuted=true", "weights.rescale=none"],
            ["weights.floor=0.5"],
        )
    )
    sizes = [e.num_rationale_tokens for e in context.examples]
    mean = np.concatenate([0.5 + 0.5 * row[:n] for row, n in zip(plain, sizes, strict=True)]).mean()
    for before, other, up, n in zip(plain, shuffled, raised, sizes, strict=True):
        assert sorted(other[:n]) == sorted(before[:n]) and other[n:].tolist() == before[n:].tolist()
        np.testing.assert_allclose(up[:n], (0.5 + 0.5 * before[:n]) / mean)
        assert up[n:].tolist() == [1.0] * (len(up) - n)
    assert any(other.tolist() != before.tolist() for before, other in zip(plain, shuffled, strict=True))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("numbers", ["numbers.low=0.7", "numbers.high=0.7"]),
        ("random", ["random.share=1"]),
        ("oracle", ["oracle.low=1"]),
    ],
)
def test_equal_weights_are_those_of_no_weighting(kind, settings, student):
    made = generate("train", 5)
    rationales = [
        Rationale(problem=m.problem, text=m.problem.rationale, steps=tuple(split_steps(m.problem.rationale)))
        for m in made
    ]
    table = weighting_of(kind, *settings).loss_table(context_of(student, rationales))
    assert {float(np.float32(weight)) for row in table for weight in row} == {1.0}


def test_where_a_table_weighs_the_answer_rescaling_keeps_its_ratio_to_the_rationale(student, rationales):
    context = context_of(student, rationales)
    sizes = [e.num_rationale_tokens for e in context.examples]
    rows = [np.where(np.arange(len(e.target_ids)) < n, 0.8, 2.0) for e, n in zip(context.examples, sizes, strict=True)]
    found = loss_weights(config_of("uniform"), rows, context.examples, with_answers=True)
    assert found.values.mean() == pytest.approx(1)
    for row, n in zip(found, sizes, strict=True):
        np.testing.assert_allclose(row[n:] / row[0], 2.0 / 0.8)


def test_without_weights_in_the_loss_no_table_is_read():
    weighting = weighting_of("numbers", "weights.in_loss=false")
    assert weighting.loss_table(None) is None
    assert Weighting(config_of("uniform")).loss_table(None) is None


def test_weights_that_are_all_zero_are_one_line(student, rationales):
    weighting = weighting_of("numbers", "numbers.low=0", "numbers.high=0")
    with pytest.raises(InputError, match="all token weights are 0"):
        weighting.loss_table(context_of(student, rationales))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["weights.kind=numbers", "numbers.low=-1"], "numbers.low is at least 0, got -1"),
        (["weights.kind=random", "random.share=0"], "random.share"),
        (
            ["weights.kind=oracle", "data.dataset=gsm8k", "rationales.source=human"],
            "weights.kind=oracle knows the results",
        ),
        (["weights.kind=oracle", "rationales.source=recorded", "rationales.teacher=x"], "not arithmetic and recorded"),
        (["weights.kind=numbers", "random.share=1"], "random"),
    ],
)
def test_a_setting_that_a_table_cannot_have_is_one_line(settings, words):
    with pytest.raises(InputError, match=words) as error:
        load_experiment(EXPERIMENT, ["method=kpod", *settings])
    assert "\n" not in str(error.value)

"""A teacher's distributions on a student's tokens: what is copied, what stays the target's own."""

import math

import numpy as np
import pytest

from kpod_lightning.data.distributions import Distributions, make_distributions, recorded_tokens
from kpod_lightning.data.examples import make_examples
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.rationales import Rationale
from kpod_lightning.data.steps import split_steps
from kpod_lightning.data.texts import text_of
from kpod_lightning.store.errors import InputError

TEXT = "He has 5 + 7 = 12."


@pytest.fixture
def rationale() -> Rationale:
    problem = Problem(id="a", question="How many?", answer="12", kind="number", split="train")
    return Rationale(problem=problem, text=TEXT, steps=tuple(split_steps(TEXT)))


def made_of(student, rationale, recorded):
    examples = make_examples(
        [rationale.key], [text_of(rationale)], student.tokenizer, encoder_decoder=student.encoder_decoder
    )
    found = make_distributions(examples, [rationale], {0}, lambda key: recorded, student.tokenizer)
    return examples[0], found


def rows_of(student, example, found):
    """Of each target its text and the texts of its distribution."""
    texts = student.tokenizer.convert_ids_to_tokens
    rows = [
        {i: float(p) for i, p in zip(ids.tolist(), values.tolist(), strict=True) if p > 0}
        for ids, values in zip(found.ids, found.probabilities, strict=True)
    ]
    return list(zip(texts(list(example.target_ids)), rows, strict=True))


def test_aligned_tokens_have_the_teachers_probabilities_of_tokens_that_the_student_has(student, rationale):
    own = student.tokenizer.convert_tokens_to_ids
    sure = [(" ", 1.0)]
    recorded = [
        ("So", sure),  # what the teacher wrote before and behind the rationale belongs to none of its tokens
        ("He", [("He", 0.5)]),
        (" has", [(" has", 0.75), (" had", 0.125), (" no-such-token", 0.0625)]),
        (" 5", [(" 5", 0.5), (" 7", 0.25), (".", 0.125)]),
        (" +", [(" +", 1.0)]),
        (" 7", [(" 7", 1.0)]),
        (" =", [(" =", 0.5), (" +", 0.25), (" is", 0.125)]),
        (" 12", [(" 12", 0.5)]),
        (".", [(".", 0.5), ("!", 0.25)]),
        (" The answer is 12.", sure),
    ]
    example, found = made_of(student, rationale, recorded)
    rows = rows_of(student, example, found)
    texts = [text for text, _ in rows]
    by_text = dict(zip(texts, [row for _, row in rows], strict=True))
    assert by_text["Ġhas"][own("Ġhas")] == 0.75 and sum(by_text["Ġhas"].values()) <= 0.875
    # The student has the blank in a token of its own, so the teacher's " 5" and " 7" are its "5" and "7"; a full stop
    # would have stood before that blank.
    assert by_text["5"] == {own("5"): 0.5, own("7"): 0.25}
    assert by_text["Ġ="][own("Ġ=")] == 0.5 and by_text["Ġ="][own("Ġ+")] == 0.25
    one = texts.index("1")
    assert rows[one][1] == {own("1"): 1.0} and rows[one + 1][1] == {own("2"): 1.0}  # cut otherwise
    for text, row in rows[example.num_rationale_tokens :]:  # the answer phrase and the end are the template's
        assert row == {own(text): 1.0}
    copied = [text for text, row in rows[: example.num_rationale_tokens] if row != {own(text): 1.0}]
    assert found.num_copied == len(copied) + 2  # of " +" and " 7" the teacher was sure


def test_without_a_record_or_of_another_text_every_target_has_probability_1(student, rationale):
    for recorded in (None, [("Another", [("Another", 0.5)]), (" text", [(" text", 0.5)])]):
        example, found = made_of(student, rationale, recorded)
        assert found.num_copied == 0
        assert found.ids[:, 0].tolist() == list(example.target_ids)
        assert (found.probabilities == 1).all() and found.ids.shape == (len(example.target_ids), 1)


def test_distributions_are_kept_and_given_by_example(tmp_path):
    ids, ends = np.arange(10, dtype=np.int32).reshape(5, 2), np.array([2, 2, 5])
    made = Distributions(ids, ids.astype(np.float32), ends, 3)
    made.save(tmp_path / "file.npz")
    read = Distributions.load(tmp_path / "file.npz")
    assert read.num_copied == 3
    assert read.of([2, 0])[0].tolist() == [[4, 5], [6, 7], [8, 9], [0, 1], [2, 3]]
    assert read.of([0])[1].tolist() == [[0.0, 1.0], [2.0, 3.0]]


def test_a_row_gives_tokens_and_probabilities_or_nothing():
    row = {"logprobs": [["a", -0.5]], "top_logprobs": [[["a", math.log(0.5)], ["b", math.log(0.25)]]]}
    assert recorded_tokens(row, "file:1") == [("a", [("a", 0.5), ("b", pytest.approx(0.25))])]
    assert recorded_tokens({"logprobs": [["a", -0.5]]}, "file:1") is None


@pytest.mark.parametrize(
    ("tokens", "tops", "words"),
    [
        ([["a", -0.5]], [], "lists of one length"),
        ([["a", -0.5]], "a", "lists of one length"),
        ([["a", 0.5]], [[]], "is no pair of a token and the natural log"),
        ([["a", -0.5]], [["b"]], "is no pair"),
        ([["a", -0.5]], [[["b", float("nan")]]], "is no pair"),
        ([["a", -0.5]], [[["a", -0.1], ["b", -0.2]]], "add up to more than 1"),
        ([["a", -0.5]], [None], "is no pair"),
    ],
)
def test_a_row_of_another_form_is_one_line_with_its_place(tokens, tops, words):
    with pytest.raises(InputError, match=f"file:1: .*{words}"):
        recorded_tokens({"logprobs": tokens, "top_logprobs": tops}, "file:1")

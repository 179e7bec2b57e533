"""Token weights stay with their characters."""

import numpy as np
import pytest

from kpod_lightning.data.examples import make_example
from kpod_lightning.keypoints.in_loss import permuted, rescaled
from kpod_lightning.keypoints.table import TokenWeights, WeightTable, text_hash
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.ragged import Ragged
from kpod_lightning.students.student import load_student


def table_of(examples, rationales):
    rng = np.random.default_rng(0)
    rows = {}
    for example, rationale in zip(examples, rationales, strict=True):
        n = example.num_rationale_tokens
        values = rng.random(n).astype(np.float32)
        rows[example.key] = TokenWeights(text_hash(rationale.text), np.asarray(example.spans[:n]), values)
    return WeightTable.of_rows(rows, {"share": 0.3}, {"mlp.bias": np.ones(3, dtype=np.float32)})


def examples_of(student, rationales):
    return [make_example(r, student.tokenizer, encoder_decoder=student.encoder_decoder) for r in rationales]


def test_a_saved_table_comes_back_whole(student, rationales, tmp_path):
    examples = examples_of(student, rationales)
    table = table_of(examples, rationales)
    table.save(tmp_path / "weights.safetensors")
    again = WeightTable.load(tmp_path / "weights.safetensors")
    assert again.about == table.about and list(again.rows) == list(table.rows)
    np.testing.assert_array_equal(again.network["mlp.bias"], table.network["mlp.bias"])
    for example, rationale in zip(examples, rationales, strict=True):
        np.testing.assert_array_equal(again.of(example, rationale.text), table.rows[example.key].values)


def test_another_tokenizer_takes_the_mean_over_the_characters(rationales):
    llama = load_student("tiny-llama")
    examples = examples_of(llama, rationales)
    table = table_of(examples, rationales)
    for example, rationale in zip(examples, rationales, strict=True):
        row = table.rows[example.key]
        by_character = WeightTable.of_rows(
            {
                example.key: TokenWeights(
                    row.text_sha256,
                    np.array([(i, i + 1) for left, right in row.spans for i in range(left, right)]),
                    np.concatenate(
                        [[v] * (right - left) for v, (left, right) in zip(row.values, row.spans, strict=True)]
                    ),
                )
            }
        )
        own = row.spans[:, 1] > row.spans[:, 0]  # the blank before the rationale takes its first character's
        read = by_character.of(example, rationale.text)
        np.testing.assert_allclose(read[own], row.values[own])
        assert read[0] == by_character.rows[example.key].values[0]


def test_a_table_of_another_text_is_refused_by_name(student, rationales):
    examples = examples_of(student, rationales)
    table = table_of(examples, rationales)
    with pytest.raises(InputError, match=f"another text of .*{rationales[0].problem.id}"):
        table.of(examples[0], rationales[0].text + " ")


def test_a_rationale_that_the_table_does_not_have_is_named(student, rationales):
    examples = examples_of(student, rationales)
    table = table_of(examples[1:], rationales[1:])
    with pytest.raises(InputError, match=rationales[0].problem.id):
        table.of(examples[0], rationales[0].text)


def test_a_broken_table_is_named_in_one_line(student, rationales, tmp_path):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(InputError, match=r"weights\.safetensors"):
        WeightTable.load(path)
    table_of(examples_of(student, rationales), rationales).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"weights\.safetensors"):
        WeightTable.load(path)


def test_rescaled_weights_have_mean_one_over_all_tokens_and_keep_their_ratios():
    rows = [np.array([0.1, 0.2]), np.array([0.3, 0.3, 0.6])]
    new = list(rescaled(Ragged.stored(rows, np.float64)))
    assert np.concatenate(new).mean() == pytest.approx(1)
    np.testing.assert_allclose(new[1] / new[0][0], rows[1] / rows[0][0])
    with pytest.raises(InputError, match="all token weights are 0"):
        rescaled(Ragged.stored([np.zeros(3)], np.float64))


def test_permuted_weights_are_the_same_ones_in_another_order():
    rows = [np.arange(50.0), np.arange(30.0)]
    new = list(permuted(rows, seed=1))
    for row, other in zip(rows, new, strict=True):
        assert sorted(other) == sorted(row) and list(other) != list(row)
    np.testing.assert_array_equal(new[0], next(permuted(rows, seed=1)))

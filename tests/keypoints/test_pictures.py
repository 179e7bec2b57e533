"""What the report shows of weights and schedule."""

import numpy as np
import pytest

from kpod_lightning.data.arithmetic import generate
from kpod_lightning.keypoints import pictures
from kpod_lightning.keypoints.pictures import sentence_on_weights
from kpod_lightning.keypoints.table import TokenWeights, WeightTable, text_hash


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("3 * 7 = 21 euros", {"3": "operand", "*": "operator", "7": "operand", "=": "equals", "21": "result"}),
        ("$4.50 + $2 = $6.50.", {"4.50": "operand", "+": "operator", "2": "operand", "6.50": "result"}),
        ("The 3 days pay well-known 5", {"3": "other number", "days": "word", "-": "punctuation", "5": "other number"}),
        ("12 - 5 = 7", {"12": "operand", "-": "operator", "5": "operand", "7": "result"}),
        ("So 10/2=5", {"10": "operand", "/": "operator", "2": "operand", "=": "equals", "5": "result"}),
    ],
)
def test_characters_have_their_kind(text, marked):
    kinds = pictures.kinds_of_characters(text)
    for piece, kind in marked.items():
        start = text.index(piece)
        assert kinds[start : start + len(piece)] == [kind] * len(piece), piece


def test_rules_agree_with_the_truth_of_generated_rationales():
    names = {"filler_number": "other number"}
    for made in generate("train", 100, seed=3):
        text = made.problem.rationale
        kinds = pictures.kinds_of_characters(text)
        for left, right, kind in made.kinds:
            if kind != "filler":
                assert set(kinds[left:right]) == {names.get(kind, kind)}, (text, text[left:right])


def table_of(text, spans, values):
    return WeightTable.of_rows(
        {("a", 0): TokenWeights(text_hash(text), np.array(spans), np.array(values, dtype=np.float32))},
        {
            "reason": None,
            "sufficiency": {"share": 0.3, "value": 0.8, "interval": (0.7, 0.9), "num_rationales": 9, "mean_nats": {}},
        },
    )


def test_mean_weights_are_those_of_the_kind_of_a_tokens_first_character():
    table = table_of("1 + 2 = 3", [(0, 1), (1, 3), (3, 5), (5, 7), (7, 9)], [0.1, 0.9, 0.3, 0.8, 0.6])
    found = pictures.weights_by_kind([(table.row(0), "1 + 2 = 3")])
    assert {kind: (pytest.approx(mean), n) for kind, (mean, n) in found.items()} == {
        "result": (0.6, 1),
        "equals": (0.8, 1),
        "operator": (0.9, 1),
        "operand": (0.2, 2),
    }


def test_a_coloured_rationale_is_the_whole_text_escaped():
    text = "1 < 2, <b> & so"
    row = table_of(text, [(0, 1), (1, 3), (3, 5), (7, 15)], [0.1, 0.9, 0.5, 1.0]).rows[("a", 0)]
    html = pictures.coloured_html(row, text)
    assert "<b>" not in html and "&lt;b&gt; &amp; so" in html
    assert pictures.coloured_terminal(row, text).plain == text


def test_the_sentence_on_weights_says_what_was_done_without_keypoints():
    table = table_of("1", [(0, 1)], [1.0])
    assert "0.80 [0.70, 0.90]" in sentence_on_weights(table)
    lost = WeightTable.of_rows(table.rows, {**table.about, "reason": "all tokens weigh the same"})
    assert "so all tokens weigh 1: all tokens weigh the same" in sentence_on_weights(lost)


def test_the_section_on_weights_names_the_kinds_and_shows_the_rationales():
    text = "1 < 2 = 3"
    table = table_of(text, [(0, 1), (6, 7), (8, 9)], [0.25, 0.5, 0.75])
    about = {**table.about, "history": [{"epoch": 1, "answer_nats": 2.0, "kept": 0.5}]}
    about["sufficiency"] = {**about["sufficiency"], "mean_nats": {"none": 2.0, "all": 1.0, "top 0.3": 1.2}}
    section = pictures.describe_weights(WeightTable.of_rows(table.rows, about), [(table.row(0), text)])
    assert section.table.texts() == [["result", "0.75", "1"], ["equals", "0.50", "1"], ["other number", "0.25", "1"]]
    assert "1</span>" in section.html["rationales"] and "&lt; 2" in section.html["rationales"]
    assert set(section.figures) == {"sufficiency", "kinds", "history"}
    assert section.figures["sufficiency"].data[0].x == (0.0, 0.3, 1.0)
    assert [trace.yaxis for trace in section.figures["history"].data] == [None, "y2"]  # nats and a share


def test_weights_are_shown_with_the_texts_of_their_rationales():
    table = table_of("kept", [(0, 4)], [0.5])
    rows = [{"problem_id": name, "sample": n, "rationale": f"{name}{n}"} for name, n in (("0", 0), ("a", 0), ("a", 1))]
    assert [text for _, text in pictures.with_texts(table, rows)] == ["a0"]

"""What the report shows of weights and schedule."""

import numpy as np
import pytest

from kpod_lightning.curricula.pictures import describe_schedule
from kpod_lightning.curricula.schedule import build_schedule
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


def test_the_schedule_has_a_row_for_every_stage():
    schedule = build_schedule([[1.0, 2.0], [3.0], [0.5, 0.5, 0.5]], np.array([0, 1, 0]), 3)
    described = describe_schedule(schedule)
    assert [row["stage"] for row in described["stages"]] == [0, 1, 2, 3]
    assert described["stages"][-1]["asked"] == pytest.approx(7.5)
    asked = described["figures"]["asked"].data
    assert asked[1].y == pytest.approx(schedule.asked) and asked[0].y == pytest.approx(schedule.budgets)
    steps = described["figures"]["input-steps"].data
    assert (
        sum(trace.y[0] * (schedule.clusters == i).sum() for i, trace in enumerate(steps))
        == schedule.input_steps[0].sum()
    )


def test_only_the_first_figure_of_a_page_carries_the_script():
    figures = {name: pictures.difficulty_figure([{"difficulties": [1.0, 2.0]}]) for name in ("one", "other")}
    one, other = pictures.html(figures).values()
    assert 'id="one"' in one and 'id="other"' in other
    assert len(one) > 1e6 > 1e5 > len(other)


def test_the_accuracy_figure_says_where_stages_begin():
    metrics = []
    for epoch, stage in enumerate((0, 1, 1)):
        step = 10 * epoch + 9
        metrics.append(
            {"step": step, "validation/accuracy": 0.5, "validation/accuracy_low": 0.4, "validation/accuracy_high": 0.6}
        )
        metrics.append({"step": step, "train/stage": float(stage)})
    figure = pictures.accuracy_figure(metrics)
    assert figure.data[0].y == pytest.approx([50.0] * 3) and figure.data[0].error_y.array == pytest.approx([10.0] * 3)
    assert [
        (line.x0, note.text) for line, note in zip(figure.layout.shapes, figure.layout.annotations, strict=True)
    ] == [(10, "stage 1")]

"""Figures and pages that all reports share."""

import plotly.graph_objects as go
import pytest

from kpod_lightning.evaluation.figures import accuracy_figure, labelled
from kpod_lightning.evaluation.pages import plot
from kpod_lightning.evaluation.sections import Table


def test_a_figure_is_part_of_a_page_without_a_script_of_its_own():
    part = plot(go.Figure(go.Bar(y=[1, 2])), "one")
    assert 'id="one"' in part and len(part) < 1e5


def test_the_accuracy_figure_says_where_stages_begin():
    metrics = []
    for epoch, stage in enumerate((0, 1, 1)):
        step = 10 * epoch + 9
        metrics.append(
            {"step": step, "validation/accuracy": 0.5, "validation/accuracy_low": 0.4, "validation/accuracy_high": 0.6}
        )
        metrics.append({"step": step, "train/stage": float(stage)})
    figure = accuracy_figure(metrics)
    assert figure.data[0].y == pytest.approx([50.0] * 3) and figure.data[0].error_y.array == pytest.approx([10.0] * 3)
    assert [
        (line.x0, note.text) for line, note in zip(figure.layout.shapes, figure.layout.annotations, strict=True)
    ] == [(10, "stage 1")]


@pytest.mark.parametrize(("num_stages", "each"), [(3, 1), (60, None)])
def test_stages_are_marked_one_by_one_while_there_is_room(num_stages, each):
    figure = labelled(go.Figure(go.Bar(x=list(range(num_stages)), y=[1] * num_stages)), "title", "stage", "nats")
    assert figure.layout.xaxis.dtick == each


def test_cells_of_a_table_have_the_format_of_their_column():
    table = Table("name", {"kind": "", "share": ".2f", "number": "d"}, (("a", 0.125, 3), ("b", None, 4)))
    assert table.texts() == [["a", "0.12", "3"], ["b", "", "4"]]

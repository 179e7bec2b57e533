"""Plotly figures that every report shares."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go

NUM_SHOWN = 10_000
"""Rows that figures of a run look at: means of more are the same to the eye."""


def labelled(figure: go.Figure, title: str, x: str, y: str) -> go.Figure:
    """The figure with its title and the names of its axes; stages, steps and epochs are counted one by one."""
    figure.update_layout(title=title, xaxis_title=x, yaxis_title=y, height=380)
    if x in ("stage", "step", "epoch"):
        figure.update_xaxes(dtick=1)
    return figure


def html(figures: Mapping[str, go.Figure]) -> dict[str, str]:
    """Figures as parts of one page; plotly's script stands in it once, with the first."""
    return {
        name: str(figure.to_html(full_html=False, include_plotlyjs=i == 0, div_id=name))
        for i, (name, figure) in enumerate(figures.items())
    }


def accuracy_figure(metrics: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Validation accuracy over optimiser steps, with its 95 % interval, and where stages begin."""
    rows = [row for row in metrics if "validation/accuracy" in row]
    value, low, high = (
        np.array([100 * row[f"validation/accuracy{part}"] for row in rows]) for part in ("", "_low", "_high")
    )
    figure = go.Figure(
        go.Scatter(
            x=[row["step"] + 1 for row in rows],
            y=value,
            error_y={"type": "data", "symmetric": False, "array": high - value, "arrayminus": value - low},
            name="right",
            mode="lines+markers",
        )
    )
    stages = [row for row in metrics if "train/stage" in row]
    for before, after in pairwise(stages):
        if after["train/stage"] != before["train/stage"]:
            figure.add_vline(
                x=before["step"] + 1,
                line={"dash": "dot", "color": "grey"},
                annotation_text=f"stage {after['train/stage']:.0f}",
            )
    return labelled(figure, "validation accuracy, with 95 % intervals", "optimiser steps", "% right")

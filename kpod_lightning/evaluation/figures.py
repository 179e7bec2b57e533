"""Plotly figures of every report: their common look, and validation accuracy."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go

NUM_SHOWN = 10_000
"""Rows that figures of a run look at: means of more are the same to the eye."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, which colour-blind readers can tell apart."""

COUNTED = ("stage", "step", "steps", "epoch", "tokens")
"""Axes of whole numbers."""

MOST_TICKS = 20
"""An axis of whole numbers over a longer range is not marked at every one."""


def labelled(figure: go.Figure, title: str, x: str, y: str) -> go.Figure:
    """The figure with its title, the names of its axes and the look of every report."""
    figure.update_layout(
        title=title,
        xaxis_title=x,
        yaxis_title=y,
        height=380,
        template="plotly_white",
        colorway=COLOURS,
        margin={"l": 60, "r": 20, "t": 60, "b": 50},
    )
    if x in COUNTED:
        figure.update_xaxes(tickformat="d")
        values = [value for trace in figure.data for value in trace.x]
        if max(values, default=0) - min(values, default=0) <= MOST_TICKS:
            figure.update_xaxes(dtick=1)  # plotly would also mark halves
    return figure


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
                annotation_position="top",
            )
    figure.update_yaxes(rangemode="tozero")
    return labelled(figure, "validation accuracy, with 95 % intervals", "optimiser steps", "% right")

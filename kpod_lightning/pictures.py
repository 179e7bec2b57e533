"""Pictures of weights, difficulties and schedule, for the report and the terminal."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go
from rich.text import Text

from kpod_lightning.schedule import Schedule
from kpod_lightning.token_weights import TokenWeights

KINDS = ("result", "equals", "operator", "operand", "other number", "word", "punctuation")

_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_OPERATOR = re.compile(r"(?<=[\d\s%)])[-+*/×÷](?=\s*[$€£(]?\d)")


def kinds_of_characters(text: str) -> list[str]:
    """What every character of a rationale is: one of ``KINDS``, by rules that need no truth.

    A number behind "=" is a result, one beside an operator an operand.
    """
    kinds = ["word" if character.isalnum() else "punctuation" for character in text]
    for match in _OPERATOR.finditer(text):
        kinds[match.start()] = "operator"
    for match in re.finditer("=", text):
        kinds[match.start()] = "equals"
    for match in _NUMBER.finditer(text):
        before, after = text[: match.start()].rstrip(" $€£("), text[match.end() :].lstrip(" )%")
        if before.endswith("="):
            kind = "result"
        elif (before and kinds[len(before) - 1] == "operator") or re.match(r"[-+*/×÷=]\s*[$€£(]?\d", after):
            kind = "operand"
        else:
            kind = "other number"
        kinds[match.start() : match.end()] = [kind] * (match.end() - match.start())
    return kinds


def weights_by_kind(rows: Iterable[tuple[TokenWeights, str]]) -> dict[str, tuple[float, int]]:
    """Mean weight and number of tokens of each kind; a token has the kind of its first character that is no blank."""
    found: dict[str, list[float]] = defaultdict(list)
    for row, text in rows:
        kinds = kinds_of_characters(text)
        for (left, right), value in zip(row.spans.tolist(), row.values.tolist(), strict=True):
            first = next((i for i in range(left, right) if not text[i].isspace()), None)
            if first is not None:
                found[kinds[first]].append(value)
    return {kind: (float(np.mean(found[kind])), len(found[kind])) for kind in KINDS if found[kind]}


def _shades(row: TokenWeights, text: str) -> list[tuple[str, float]]:
    """Pieces that tile the text, each with its weight (0 between tokens)."""
    pieces, end = [], 0
    for (left, right), value in zip(row.spans.tolist(), row.values.tolist(), strict=True):
        if left > end:
            pieces.append((text[end:left], 0.0))
        if right > max(left, end):
            pieces.append((text[max(left, end) : right], float(value)))
            end = right
    return [*pieces, (text[end:], 0.0)]


def coloured_html(row: TokenWeights, text: str) -> str:
    """The rationale with a darker ground behind tokens of larger weight."""
    return "".join(
        f'<span title="w = {value:.2f}" style="background:rgba(255,140,0,{value:.2f})">{escape(piece)}</span>'
        for piece, value in _shades(row, text)
        if piece
    )


def coloured_terminal(row: TokenWeights, text: str) -> Text:
    """The same for a terminal: orange on black, brighter with the weight."""
    line = Text()
    for piece, value in _shades(row, text):
        light = round(255 * min(1.0, value))
        style = f"black on rgb({light},{light * 140 // 255},0)" if value > 0.5 else f"on rgb({light},{light // 2},0)"
        line.append(piece, style=style if value > 0.05 else None)
    return line


def _labelled(figure: go.Figure, title: str, x: str, y: str) -> go.Figure:
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


def sufficiency_figure(about: Mapping[str, Any]) -> go.Figure:
    """Held-out answer loss over the share of tokens kept: the best by weight, and a random choice."""
    nats = about["sufficiency"]["mean_nats"]
    figure = go.Figure()
    for name, label in (("top", "largest weights kept"), ("random", "random tokens kept")):
        points = sorted((float(key.split()[1]), value) for key, value in nats.items() if key.startswith(name + " "))
        points = [(0.0, nats["none"]), *points, (1.0, nats["all"])]
        figure.add_scatter(x=[p[0] for p in points], y=[p[1] for p in points], name=label, mode="lines+markers")
    return _labelled(figure, "what the kept tokens are worth to the answer", "share kept", "nats an answer")


def history_figure(about: Mapping[str, Any]) -> go.Figure:
    """Answer loss of the whole rationale as masked in training, epoch by epoch, and the share of tokens it kept."""
    rows = about["history"]
    epochs = [row["epoch"] for row in rows]
    figure = go.Figure()
    figure.add_scatter(x=epochs, y=[row["answer_nats"] for row in rows], name="nats an answer", mode="lines+markers")
    figure.add_scatter(x=epochs, y=[row["kept"] for row in rows], name="share kept", mode="lines+markers")
    return _labelled(figure, "learning of the weights", "epoch", "nats, and share")


def kinds_figure(means: Mapping[str, tuple[float, int]]) -> go.Figure:
    figure = go.Figure(
        go.Bar(x=list(means), y=[m for m, _ in means.values()], text=[f"{n}" for _, n in means.values()])
    )
    return _labelled(figure, "mean weight by kind of token (number of tokens on the bars)", "", "mean w")


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
    return _labelled(figure, "validation accuracy, with 95 % intervals", "optimiser steps", "% right")


def difficulty_figure(rows: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Difficulty of the k-th step: median, and the middle half of the rationales."""
    by_step: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        for k, value in enumerate(row["difficulties"], start=1):
            by_step[k].append(value)
    steps = sorted(by_step)
    low, middle, high = (np.array([np.percentile(by_step[k], q) for k in steps]) for q in (25, 50, 75))
    figure = go.Figure(
        go.Scatter(
            x=steps,
            y=middle,
            error_y={"type": "data", "symmetric": False, "array": high - middle, "arrayminus": middle - low},
            mode="lines+markers",
        )
    )
    return _labelled(figure, "difficulty by position: median and middle half", "step", "nats a token")


def asked_figure(schedule: Schedule) -> go.Figure:
    """Difficulty asked by stage against the budget D(t)."""
    stages = list(range(schedule.num_stages + 1))
    figure = go.Figure()
    figure.add_scatter(x=stages, y=schedule.budgets, name="budget D(t)", mode="lines", line={"dash": "dash"})
    figure.add_bar(x=stages, y=schedule.asked, name="asked H(t)")
    return _labelled(figure, "difficulty asked by stage", "stage", "nats")


def input_steps_figure(schedule: Schedule) -> go.Figure:
    """How many input steps the rationales have at each stage, cluster by cluster: mean c_i(t)."""
    figure = go.Figure()
    for cluster in np.unique(schedule.clusters):
        columns = schedule.input_steps[:, schedule.clusters == cluster]
        figure.add_scatter(
            x=list(range(schedule.num_stages + 1)),
            y=columns.mean(1),
            name=f"cluster {cluster} ({columns.shape[1]} questions)",
            mode="lines+markers",
        )
    return _labelled(figure, "input steps by stage and cluster, mean", "stage", "steps given as input")

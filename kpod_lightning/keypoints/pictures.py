"""The report's section on token weights, and coloured rationales for a terminal."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from itertools import islice
from typing import Any

import numpy as np
import plotly.graph_objects as go
from rich.text import Text

from kpod_lightning.evaluation.figures import NUM_SHOWN, labelled
from kpod_lightning.evaluation.sections import Section, Table
from kpod_lightning.keypoints.table import TokenWeights, WeightTable
from kpod_lightning.store.json_lines import JsonLines

KINDS = ("result", "equals", "operator", "operand", "other number", "word", "punctuation")

NUM_COLOURED = 5
"""Rationales shown with their weights as colours."""

_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")

_OPERATOR = re.compile(r"(?<=[\d\s%)])[-+*/×÷](?=\s*[$€£(]?\d)")


def kinds_of_characters(text: str) -> list[str]:
    """[len(text)] kind of every character of a rationale, one of ``KINDS``, by rules on the text alone.

    A number behind "=" is a result, a number beside an operator is an operand.
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
    """Mean weight and number of tokens by kind; the kind of a token is that of its first non-blank character."""
    found: dict[str, list[float]] = defaultdict(list)
    for row, text in rows:
        kinds = kinds_of_characters(text)
        for (left, right), value in zip(row.spans.tolist(), row.values.tolist(), strict=True):
            first = next((i for i in range(left, right) if not text[i].isspace()), None)
            if first is not None:
                found[kinds[first]].append(value)
    return {kind: (float(np.mean(found[kind])), len(found[kind])) for kind in KINDS if found[kind]}


def _shades(row: TokenWeights, text: str) -> list[tuple[str, float]]:
    """The text cut at the borders of tokens: pieces in order, each with its weight; 0 for text between tokens."""
    pieces, end = [], 0
    for (left, right), value in zip(row.spans.tolist(), row.values.tolist(), strict=True):
        if left > end:
            pieces.append((text[end:left], 0.0))
        if right > max(left, end):
            pieces.append((text[max(left, end) : right], float(value)))
            end = right
    return [*pieces, (text[end:], 0.0)]


def coloured_html(row: TokenWeights, text: str) -> str:
    """The escaped rationale as HTML: the larger a token's weight, the stronger its background."""
    return "".join(
        f'<span title="w = {value:.2f}" style="background:rgba(255,140,0,{value:.2f})">{escape(piece)}</span>'
        for piece, value in _shades(row, text)
        if piece
    )


def legend_html() -> str:
    """What the colours of ``coloured_html`` mean, in the same colours."""
    shades = " ".join(
        f'<span style="background:rgba(255,140,0,{value:.2f})">&nbsp;{value:.2f}&nbsp;</span>'
        for value in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    return f"<p>Weight w of each token, by the colour behind it: {shades}; the mouse on a token shows its number.</p>"


def coloured_terminal(row: TokenWeights, text: str) -> Text:
    """The rationale for a terminal: the larger a token's weight, the brighter its background."""
    line = Text()
    for piece, value in _shades(row, text):
        light = round(255 * min(1.0, value))
        style = f"black on rgb({light},{light * 140 // 255},0)" if value > 0.5 else f"on rgb({light},{light // 2},0)"
        line.append(piece, style=style if value > 0.05 else None)
    return line


def sufficiency_figure(about: Mapping[str, Any]) -> go.Figure:
    """Answer loss on held-out rationales over the share of tokens kept: those of largest weight, and random ones."""
    nats = about["sufficiency"]["mean_nats"]
    figure = go.Figure()
    for name, label in (("top", "largest weights kept"), ("random", "random tokens kept")):
        points = sorted((float(key.split()[1]), value) for key, value in nats.items() if key.startswith(name + " "))
        points = [(0.0, nats["none"]), *points, (1.0, nats["all"])]
        figure.add_scatter(x=[p[0] for p in points], y=[p[1] for p in points], name=label, mode="lines+markers")
    return labelled(figure, "what the kept tokens are worth to the answer", "share kept", "nats per answer")


def history_figure(about: Mapping[str, Any]) -> go.Figure:
    """Answer loss under the masks of training, epoch by epoch, and the share of tokens that the masks kept."""
    rows = about["history"]
    epochs = [row["epoch"] for row in rows]
    figure = go.Figure()
    figure.add_scatter(x=epochs, y=[row["answer_nats"] for row in rows], name="nats per answer", mode="lines+markers")
    figure.add_scatter(x=epochs, y=[row["kept"] for row in rows], name="share kept", mode="lines+markers", yaxis="y2")
    labelled(figure, "learning of the weights", "epoch", "nats per answer")
    share = {
        "title": "share kept",
        "overlaying": "y",
        "side": "right",
        "range": [0, 1],
        "tickmode": "auto",
        "showgrid": False,
    }
    return figure.update_layout(
        yaxis2=share, margin_r=60, legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.1}
    )


def kinds_figure(means: Mapping[str, tuple[float, int]]) -> go.Figure:
    figure = go.Figure(
        go.Bar(x=list(means), y=[m for m, _ in means.values()], text=[f"{n}" for _, n in means.values()])
    )
    return labelled(figure, "mean weight by kind of token (number of tokens on the bars)", "", "mean w")


def sentence_on_weights(table: WeightTable) -> str:
    """One sentence on how well keypoints were found; where they were not, why not and what the run did instead."""
    found = table.about["sufficiency"]
    if found["value"] is None:
        return f"No keypoints were found, so all tokens weigh 1: {table.about['reason']}."
    low, high = found["interval"]
    text = (
        f"The {found['share']:.0%} of the tokens with the largest weights keep {found['value']:.2f} "
        f"[{low:.2f}, {high:.2f}] of what the whole rationale is worth to its answer, on {found['num_rationales']} "
        "held-out rationales"
    )
    if table.about["reason"] is None:
        return text + "."
    return f"{text}. No keypoints were found, so all tokens weigh 1: {table.about['reason']}."


def describe_weights(table: WeightTable, rows: Iterable[tuple[TokenWeights, str]]) -> Section:
    """The section on keypoint weights.

    Args:
        rows: rows of the table with their rationales' texts, in its order; the first ``NUM_SHOWN`` are read.
    """
    shown = list(islice(rows, NUM_SHOWN))
    means = weights_by_kind(shown)
    return Section(
        "Keypoint weights",
        (sentence_on_weights(table),),
        html={"rationales": legend_html() + "".join(f"<p>{coloured_html(*row)}</p>" for row in shown[:NUM_COLOURED])},
        table=Table(
            "kinds",
            {"kind of token": "", "mean weight": ".2f", "tokens": "d"},
            tuple((kind, mean, number) for kind, (mean, number) in means.items()),
        ),
        figures={
            "sufficiency": sufficiency_figure(table.about),
            "kinds": kinds_figure(means),
            "history": history_figure(table.about),
        },
    )


def with_texts(table: WeightTable, rationales: JsonLines) -> Iterator[tuple[TokenWeights, str]]:
    """Rows of the table with their rationales' texts.

    Both have the same order; a rationale that was too long to train on has no row.
    """
    position = 0
    for row in rationales:
        if position < len(table.keys) and table.keys[position] == (row["problem_id"], row["sample"]):
            yield table.row(position), row["rationale"]
            position += 1

"""The report's sections on step difficulties and on the schedule."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import plotly.graph_objects as go

from kpod_lightning.curricula.schedule import Schedule
from kpod_lightning.evaluation.figures import COLOURS, NUM_SHOWN, labelled
from kpod_lightning.evaluation.sections import Section, Table


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
    return labelled(figure, "difficulty by position: median and middle half", "step", "nats per token")


def asked_figure(schedule: Schedule) -> go.Figure:
    """Difficulty asked by stage against the budget D(t)."""
    stages = list(range(schedule.num_stages + 1))
    figure = go.Figure()
    figure.add_scatter(x=stages, y=schedule.budgets, name="budget D(t)", mode="lines+markers", line={"dash": "dash"})
    figure.add_bar(x=stages, y=schedule.asked, name="asked H(t)", marker_color=COLOURS[5], width=0.6)
    return labelled(figure, "difficulty asked by stage", "stage", "nats")


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
    return labelled(figure, "input steps by stage and cluster, mean", "stage", "steps given as input")


def sentence_on_schedule(schedule: Schedule) -> str:
    asked = ", ".join(f"{share:.0%}" for share in schedule.asked / max(schedule.total, 1e-300))
    return (
        f"Difficulty asked by stage: {asked} of all; value / upper bound of every selection at least "
        f"{schedule.certificate:.4f}; {schedule.num_jumping} questions "
        f"({schedule.num_jumping / len(schedule.clusters):.1%}) drop their last input steps at once, "
        f"{schedule.num_beyond_step_size} of them more than Δ_s = {schedule.step_size}; D(T − 1) leaves "
        f"{1 - schedule.budgets[-2] / max(schedule.total, 1e-300):.0%} of the difficulty to that stage."
    )


def sentence_on_diversity(schedule: Schedule) -> str:
    """What the diversity of Eq. (12) is worth beside the difficulty that the selections ask."""
    asked = float(schedule.values.sum() - schedule.diversity.sum())
    return (
        f"In Eq. (12), diversity is {schedule.diversity.sum():.4g} nats beside {asked:.4g} nats of difficulty, "
        f"{schedule.diversity_share:.1%} of the value of the selections (of each stage the first one); "
        "schedule.diversity_scale=budget lets β go with the budget."
    )


@dataclass(frozen=True)
class DifficultyFigures:
    """What difficulties measure.

    ``mean`` is that of all steps, in nats a token. ``correlation`` is Pearson's, of a rationale's summed difficulty
    with its number of steps; None where one of the two is the same for all.
    """

    mean: float
    correlation: float | None


def figures_of(rows: Iterable[Mapping[str, Any]]) -> DifficultyFigures:
    """Figures of all rows of ``difficulties.jsonl``."""
    numbers, sums = [], []
    for row in rows:
        numbers.append(len(row["difficulties"]))
        sums.append(math.fsum(row["difficulties"]))
    mean = math.fsum(sums) / max(1, sum(numbers))
    # Of equal numbers, rounding would leave a spread that says nothing.
    if len(set(numbers)) < 2 or np.ptp(sums) <= 1e-9 * max(sums):
        return DifficultyFigures(mean, None)
    return DifficultyFigures(mean, float(np.corrcoef(numbers, sums)[0, 1]))


def sentences_on_difficulties(figures: DifficultyFigures, num_tokens: int | None) -> list[str]:
    """What the difficulties measure; first a warning, where the student writes no better than by guessing.

    Args:
        num_tokens: V, the tokens of the student's vocabulary; None where it is not known.
    """
    found = "none, they do not vary" if figures.correlation is None else f"{figures.correlation:.3f}"
    said = [
        f"Mean step difficulty {figures.mean:.2f} nats; correlation of a rationale's summed difficulty with its number "
        f"of steps: {found}."
    ]
    if num_tokens is not None and figures.mean > math.log(num_tokens):
        said.insert(
            0,
            f"The student cannot yet write: mean difficulty {figures.mean:.1f} nats, guessing among {num_tokens:,} "
            f"tokens is {math.log(num_tokens):.1f}; difficulties then mostly count steps (correlation with the number "
            f"of steps: {found}).",
        )
    return said


def describe_difficulties(rows: Iterable[Mapping[str, Any]], num_tokens: int | None = None) -> Section:
    """The section on step difficulties; the figure shows the first ``NUM_SHOWN`` rows of ``difficulties.jsonl``.

    Args:
        rows: read twice.
        num_tokens: V, the tokens of the student's vocabulary; None where it is not known.
    """
    return Section(
        "Difficulty of the steps",
        tuple(sentences_on_difficulties(figures_of(rows), num_tokens)),
        figures={"difficulty": difficulty_figure(list(islice(rows, NUM_SHOWN)))},
    )


def describe_schedule(schedule: Schedule) -> Section:
    """The section on the schedule, with a row for every stage."""
    rows = tuple(
        (
            t,
            float(schedule.budgets[t]),
            float(schedule.asked[t]),
            float(schedule.asked[t] / schedule.budgets[t]) if schedule.budgets[t] else None,
            float(schedule.values[t] / schedule.upper_bounds[t]) if schedule.upper_bounds[t] else None,
            float(schedule.diversity[t] / schedule.values[t]) if schedule.values[t] else None,
            float(schedule.input_steps[t].mean()),
            float((schedule.input_steps[t] > 0).mean()),
        )
        for t in range(schedule.num_stages + 1)
    )
    columns = {
        "stage": "d",
        "budget, nats": ".1f",
        "asked, nats": ".1f",
        "asked / budget": ".1%",
        "value / upper bound": ".5f",
        "diversity in the value": ".1%",
        "mean input steps": ".2f",
        "questions with input steps": ".1%",
    }
    return Section(
        "Schedule",
        (sentence_on_schedule(schedule), sentence_on_diversity(schedule)),
        table=Table("schedule", columns, rows),
        figures={"asked": asked_figure(schedule), "input-steps": input_steps_figure(schedule)},
    )

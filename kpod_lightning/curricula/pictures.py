"""The report's sections on step difficulties and on the schedule."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
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
        f"{schedule.certificate:.4f}; {schedule.num_jumping} questions drop their last input steps at once."
    )


def describe_difficulties(rows: Iterable[Mapping[str, Any]]) -> Section:
    """The section on step difficulties, of the first ``NUM_SHOWN`` rows of ``difficulties.jsonl``."""
    return Section("Difficulty of the steps", figures={"difficulty": difficulty_figure(list(islice(rows, NUM_SHOWN)))})


def describe_schedule(schedule: Schedule) -> Section:
    """The section on the schedule, with a row for every stage."""
    rows = tuple(
        (
            t,
            float(schedule.budgets[t]),
            float(schedule.asked[t]),
            float(schedule.values[t] / schedule.upper_bounds[t]) if schedule.upper_bounds[t] else None,
            float(schedule.input_steps[t].mean()),
        )
        for t in range(schedule.num_stages + 1)
    )
    columns = {
        "stage": "d",
        "budget, nats": ".1f",
        "asked, nats": ".1f",
        "value / upper bound": ".5f",
        "mean input steps": ".2f",
    }
    return Section(
        "Schedule",
        (sentence_on_schedule(schedule),),
        table=Table("schedule", columns, rows),
        figures={"asked": asked_figure(schedule), "input-steps": input_steps_figure(schedule)},
    )

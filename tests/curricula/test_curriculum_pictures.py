"""What the report shows of difficulties and schedule."""

import numpy as np
import pytest

from kpod_lightning.curricula.pictures import describe_difficulties, describe_schedule
from kpod_lightning.curricula.schedule import build_schedule


def test_the_schedule_has_a_row_for_every_stage():
    schedule = build_schedule([[1.0, 2.0], [3.0], [0.5, 0.5, 0.5]], np.array([0, 1, 0]), 3)
    section = describe_schedule(schedule)
    assert [row[0] for row in section.table.rows] == [0, 1, 2, 3]
    assert section.table.rows[-1][2] == pytest.approx(7.5)
    assert section.table.texts()[-1][2] == "7.5"
    budget, asked = section.figures["asked"].data
    assert asked.y == pytest.approx(schedule.asked) and budget.y == pytest.approx(schedule.budgets)
    steps = section.figures["input-steps"].data
    assert (
        sum(trace.y[0] * (schedule.clusters == i).sum() for i, trace in enumerate(steps))
        == schedule.input_steps[0].sum()
    )


def test_difficulties_are_shown_by_position():
    section = describe_difficulties([{"difficulties": [1.0, 2.0]}, {"difficulties": [3.0]}])
    (trace,) = section.figures["difficulty"].data
    assert list(trace.x) == [1, 2] and list(trace.y) == [2.0, 2.0]

"""What the report shows of difficulties and schedule."""

import numpy as np
import pytest

from kpod_lightning.curricula.pictures import (
    describe_difficulties,
    describe_schedule,
    figures_of,
    sentences_on_difficulties,
)
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


def test_the_report_sets_budget_jumps_and_diversity_beside_what_was_asked():
    # B = 8, D = 2, 8/3, 14/3, 8 as in test_schedule_by_hand: H = 2, 2, 4, 8; a selection of cost 2 and diversity 1
    # in rows 0 and 2; one question moves a stage, so that both have one input step at stage 2.
    schedule = build_schedule(
        [[1.0, 2.0], [3.0, 2.0]], [0, 1], 3, initial_fraction=0.25, growth_exponent=1.0, diversity=1.0
    )
    section = describe_schedule(schedule)
    columns = list(section.table.columns)
    of = {name: [row[columns.index(name)] for row in section.table.rows] for name in columns}
    assert of["asked / budget"] == pytest.approx([1, 0.75, 6 / 7, 1])
    assert of["diversity in the value"] == [pytest.approx(1 / 3), None, pytest.approx(1 / 3), None]
    assert of["questions with input steps"] == [1, 1, 1, 0]
    jumps = "2 questions (100.0%) drop their last input steps at once, 0 of them more than Δ_s = 1"
    assert f"{jumps}; D(T − 1) leaves 42% of the difficulty to that stage." in section.sentences[0]
    assert "diversity is 2 nats beside 4 nats of difficulty, 33.3%" in section.sentences[1]


def test_difficulties_above_guessing_are_warned_of_with_their_correlation_with_the_number_of_steps():
    rows = [{"difficulties": [3.0]}, {"difficulties": [3.0, 2.0]}, {"difficulties": [4.0, 2.0, 1.0]}]
    # Sums 3, 5, 7 over 1, 2, 3 steps; the mean of the six is 2.5.
    assert figures_of(rows).mean == 2.5 and figures_of(rows).correlation == pytest.approx(1.0)
    below = sentences_on_difficulties(figures_of(rows), 13)  # ln 13 = 2.565
    assert [line.partition(" nats")[0] for line in below] == ["Mean step difficulty 2.50"]
    warning, _ = sentences_on_difficulties(figures_of(rows), 12)  # ln 12 = 2.485
    assert warning == (
        "The student cannot yet write: mean difficulty 2.5 nats, guessing among 12 tokens is 2.5; difficulties then "
        "mostly count steps (correlation with the number of steps: 1.000)."
    )
    assert warning in describe_difficulties(rows, 12).sentences


@pytest.mark.parametrize("rows", [[[1.0, 2.0], [0.5, 7.0]], [[2.0], [1.0, 1.0]]])
def test_where_steps_or_sums_do_not_vary_there_is_no_correlation(rows):
    assert figures_of([{"difficulties": row} for row in rows]).correlation is None

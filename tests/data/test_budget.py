"""A training ends with the global batch that reaches its steps or its target tokens."""

import pytest

from kpod_lightning.data.budget import Budget
from kpod_lightning.data.stages import Progress

BATCHES = [[3, 4], [5], [1, 1, 1]]
"""Tokens of the examples of three batches: 7, 5 and 3."""


@pytest.mark.parametrize(
    ("budget", "step", "tokens", "expected"),
    [
        (Budget(), 0, 0, (3, False)),
        (Budget(steps=2), 0, 0, (2, True)),
        (Budget(steps=3), 0, 0, (3, True)),
        (Budget(steps=4), 0, 0, (3, False)),
        (Budget(steps=4), 3, 0, (1, True)),
        (Budget(steps=4), 4, 0, (0, True)),
        (Budget(tokens=7), 0, 0, (1, True)),
        (Budget(tokens=8), 0, 0, (2, True)),
        (Budget(tokens=15), 0, 0, (3, True)),
        (Budget(tokens=16), 0, 0, (3, False)),
        (Budget(tokens=16), 3, 15, (1, True)),
        (Budget(tokens=15), 3, 15, (0, True)),
    ],
)
def test_an_epoch_has_as_many_batches_as_there_is_budget_for(budget, step, tokens, expected):
    progress = Progress(epoch=1, step=step, tokens=tokens)
    assert budget.within(BATCHES, progress, sum, most=15) == expected

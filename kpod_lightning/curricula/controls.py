"""What a schedule is compared with: difficulties without meaning, equal shares of steps, whole rationales mixed in."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kpod_lightning.curricula.schedule import Schedule, Steps


def permuted_difficulties(difficulties: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """Difficulties in random order among all steps of the rationales that have as many steps.

    Neither which question is hard is left in them, nor which of its steps. The sum of all is, up to rounding, and so
    are budgets, numbers of steps, and the spread of difficulties at each number of steps: what a schedule still gains
    over whole rationales is not due to measured difficulty.

    Args:
        difficulties: N arrays [n_i].
    """
    rng = np.random.default_rng([seed, 3])
    lengths = np.array([len(row) for row in difficulties])
    found: list[np.ndarray] = [np.empty(0)] * len(lengths)
    for length in np.unique(lengths):
        alike = np.flatnonzero(lengths == length)
        shuffled = rng.permutation(np.concatenate([difficulties[int(i)] for i in alike])).reshape(-1, length)
        for i, row in zip(alike, shuffled, strict=True):
            found[i] = row
    return found


def uniform(schedule: Schedule, difficulties: Sequence[np.ndarray], seed: int) -> Schedule:
    """The schedule in which everyone is asked the same share of steps: as many nats as before, less than a step fewer.

    Of n_i steps the last ⌊s n_i + u_i⌋ are asked, with u_i in [0, 1) drawn once: rationales of few steps would else
    move all at once, and the sum would jump far over H(t). The share s of a stage is the largest that keeps to H(t).

    Args:
        difficulties: N arrays [n_i], those that the schedule was made of.
    """
    steps = Steps(list(difficulties))
    offsets = np.random.default_rng([seed, 4]).random(len(steps.lengths))
    owner = np.repeat(np.arange(len(steps.lengths)), steps.lengths)
    from_end = steps.lengths[owner] - steps.index  # 1 for the last step
    order = np.argsort((from_end - offsets[owner]) / steps.lengths[owner], kind="stable")  # the share that asks it
    sums = np.cumsum(steps.flat[order])
    rows = []
    for target in schedule.asked[:-1]:
        num_asked = int(np.searchsorted(sums, target * (1 + 1e-9), side="right"))  # the sums are rounded
        rows.append(steps.lengths - np.bincount(owner[order[:num_asked]], minlength=len(steps.lengths)))
    rows.append(np.zeros_like(steps.lengths))
    nothing = np.zeros_like(schedule.values)  # nothing was selected
    return replace(
        schedule,
        input_steps=np.stack(rows),
        asked=np.array([steps.asked(row) for row in rows]),
        values=nothing,
        upper_bounds=nothing,
        diversity=nothing,
    )


def mixed(schedule: Schedule, difficulties: Sequence[np.ndarray], share: float, seed: int) -> Schedule:
    """The schedule with a share of the rationales whole at every stage, drawn by (seed, stage, position).

    What it asks is then more than its budget.

    Args:
        difficulties: N arrays [n_i], those that the schedule was made of.
        share: in [0, 1]; every rationale is drawn by itself, so that it is met on average.
    """
    steps = Steps(list(difficulties))
    rows = schedule.input_steps.copy()
    for stage, row in enumerate(rows):
        row[np.random.default_rng([seed, 5, stage]).random(len(row)) < share] = 0
    return replace(schedule, input_steps=rows, asked=np.array([steps.asked(row) for row in rows]))

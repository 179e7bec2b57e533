"""Stages: what a curriculum decides. At which progress, of which examples, which steps are input and not asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kpod_lightning.data.examples import Example, first_asked


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training has come when a global batch begins.

    ``epoch`` counts from 0, ``step`` counts optimiser steps, ``tokens`` target tokens over all ranks.
    """

    epoch: int
    step: int = 0
    tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long a stage lasts: ``length`` of ``unit``, which is epochs, steps or tokens."""

    unit: str = "epochs"
    length: int = 1

    def stage(self, progress: Progress) -> int:
        """Stages that have gone by."""
        done = {"epochs": progress.epoch, "steps": progress.step, "tokens": progress.tokens}
        return done[self.unit] // self.length


class Stages:
    """Every rationale whole at every stage: no curriculum. A curriculum overrides what differs.

    Args:
        num_examples: of the train set.
    """

    def __init__(self, num_examples: int) -> None:
        self.num_examples = num_examples

    follows: str = "epochs"
    """What ``stage_of`` depends on, beside the epoch: epochs (nothing else), steps, or tokens."""

    def stage_of(self, progress: Progress) -> int:
        """The stage of a global batch; it is logged and stands in every batch."""
        return 0

    def input_steps(self, stage: int) -> Sequence[int] | np.ndarray:
        """[num_examples] c_i: the first so many steps are input and not asked."""
        return np.zeros(self.num_examples, np.int64)

    def windows(self, stage: int, positions: Sequence[int], examples: Sequence[Example]) -> list[tuple[int, int]]:
        """Of each example the first target token that is asked, and one past the last: those before are input.

        Args:
            positions: of the examples in the train set.
        """
        input_steps = self.input_steps(stage)
        return [
            (first_asked(example, int(input_steps[i])), len(example.target_ids))
            for i, example in zip(positions, examples, strict=True)
        ]

    def is_whole(self, stage: int) -> bool:
        """Whether the stage teaches every rationale whole."""
        return self.taken(stage) is None and not np.any(self.input_steps(stage))

    def state_dict(self) -> dict[str, Any]:
        """What changes in the course of a training, as plain containers and tensors; a checkpoint keeps it."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""

    def taken(self, stage: int) -> np.ndarray | None:
        """Positions of the examples that the stage trains on; None takes all."""
        return None

    def metrics(self, stage: int) -> dict[str, float]:
        """What is logged of a stage beside its number."""
        return {}


class PacedStages(Stages):
    """Stages 0 to T one after the other; every rationale is whole at stage T and from then on.

    Args:
        num_stages: T.
        pace: how long each lasts.
        logged: numbers of every stage, e.g. ``schedule/asked_nats``: [num_stages + 1].
    """

    def __init__(
        self,
        num_examples: int,
        num_stages: int,
        pace: Pace | None = None,
        logged: Mapping[str, Sequence[float] | np.ndarray] | None = None,
    ) -> None:
        super().__init__(num_examples)
        self.num_stages, self.pace, self.logged = num_stages, pace or Pace(), logged or {}
        self.follows = self.pace.unit

    def stage_of(self, progress: Progress) -> int:
        return min(self.pace.stage(progress), self.num_stages)

    def metrics(self, stage: int) -> dict[str, float]:
        return {name: float(values[stage]) for name, values in self.logged.items()}


class InputSteps(PacedStages):
    """Stages from a table.

    Args:
        rows: [num_stages + 1][num_examples] c_i(t).
        others: those of ``PacedStages``.
    """

    def __init__(self, rows: Sequence[Any], **others: Any) -> None:
        super().__init__(len(rows[0]), len(rows) - 1, **others)
        self.rows = rows

    def input_steps(self, stage: int) -> Sequence[int] | np.ndarray:
        return self.rows[stage]


class FromEpoch(Stages):
    """Stage 0 before an epoch, and stage 1 from it on; every rationale is whole at both."""

    def __init__(self, num_examples: int, epoch: int) -> None:
        super().__init__(num_examples)
        self.epoch = epoch

    def stage_of(self, progress: Progress) -> int:
        return int(progress.epoch >= self.epoch)

"""First steps first: KPOD's schedule in the other direction, what follows is dropped and not shown (truncation)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kpod_lightning.curricula.in_rationale import SCHEDULE, InRationale

if TYPE_CHECKING:
    from kpod_lightning.curricula.schedule import Schedule
    from kpod_lightning.data.stages import Pace, Stages
    from kpod_lightning.evaluation.sections import Section


class Forward(InRationale):
    """Where KPOD's schedule asks the last n − c of n steps and the answer, the first n − c are asked and no answer.

    The schedule is KPOD's own, so that both directions ask as many steps of every rationale at every stage. A
    rationale of which KPOD asks the answer alone (c = n) is asked its first step here, since nothing would be left. One
    whose steps are all asked is whole, with its answer, as it is there.
    """

    def staged(self, context: Any, pace: "Pace") -> "Stages":
        from kpod_lightning.data.prefixes import FirstSteps

        num_steps = context.examples.num_steps
        asked = first_steps(self.loaded(context), num_steps)
        return FirstSteps(asked, num_steps, pace=pace, logged={"schedule/asked_steps": asked.sum(1)})

    def describe(self, folder: Path) -> "Sequence[Section]":
        from kpod_lightning.evaluation.sections import Section

        if not (folder / SCHEDULE).is_file():
            return []
        said = (
            "First steps first: where the schedule below shows the first c of n steps and asks the rest with the "
            "answer, this run asked the first n - c steps, at least one, and dropped the rest. Rationales whose steps "
            "were all asked were whole, with their answer."
        )
        return [Section("Forward curriculum", (said,)), *super().describe(folder)]


def first_steps(schedule: "Schedule", num_steps: np.ndarray) -> np.ndarray:
    """[num_stages + 1, N] k_i(t) = n_i − c_i(t), at least 1.

    Args:
        num_steps: [N] n_i.
    """
    return np.maximum(num_steps - schedule.input_steps, 1)

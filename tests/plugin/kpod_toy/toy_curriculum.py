"""FirstFew: a curriculum that takes a share of the examples in the first epoch, and all of them later."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kpod_lightning.curricula.base import Curriculum
from kpod_lightning.data.stages import Progress, Stages
from kpod_lightning.store.bounds import check, within

if TYPE_CHECKING:
    from kpod_lightning.methods.context import Context


@dataclass(frozen=True, kw_only=True)
class FirstFewSettings:
    """The block ``toy:`` of an experiment."""

    first_share: float = field(default=0.5, metadata=within("[0, 1]"))
    """Share of the examples that the first epoch takes."""

    def __post_init__(self) -> None:
        check(self, "toy")


class FirstFewStages(Stages):
    """Stage 0 is the first epoch, stage 1 every later one."""

    def __init__(self, num_examples: int, num_first: int) -> None:
        super().__init__(num_examples)
        self.num_first = num_first

    def stage_of(self, progress: Progress) -> int:
        return min(progress.epoch, 1)

    def taken(self, stage: int) -> np.ndarray | None:
        return np.arange(self.num_first) if stage == 0 else None

    def metrics(self, stage: int) -> dict[str, float]:
        return {"toy/examples": float(self.num_first if stage == 0 else self.num_examples)}


class FirstFew(Curriculum):
    Settings = FirstFewSettings

    def stages(self, context: "Context") -> Stages:
        num_examples: int = len(context.examples)
        settings: Any = self.settings
        return FirstFewStages(num_examples, round(settings.first_share * num_examples))

"""Adaptive curriculum learning: first the examples that are easy for the student as it is, more and more of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kpod_lightning.config import RunConfig
from kpod_lightning.curricula.base import Curriculum
from kpod_lightning.data.stages import Progress, Stages
from kpod_lightning.store.artefacts import Arrow
from kpod_lightning.store.bounds import at_least, check, within

if TYPE_CHECKING:
    from kpod_lightning.data.examples import Example
    from kpod_lightning.students.student import Student


@dataclass(frozen=True, kw_only=True)
class AdaptiveSettings:
    """The block ``adaptive:`` of an experiment; what is null follows from the number of epochs E."""

    initial_fraction: float = field(default=0.1, metadata=within("(0, 1]"))
    """p: share of the examples that the first epoch takes, the easiest; 1 takes all, always: no curriculum."""
    growth_factor: float | None = field(default=None, metadata=at_least(1))
    """q: what the share is multiplied by; null: all examples are taken from epoch E / 2 on."""
    growth_every: int | None = field(default=None, metadata=at_least(1))
    """ρ: epochs after which the share grows; null: 0.075 E, at least 1."""
    measure_every: int | None = field(default=None, metadata=at_least(1))
    """inv: epochs after which difficulties are measured again; null: 0.1 E, at least 1."""
    smoothing: float = field(default=0.7, metadata=within("[0, 1]"))
    """a: weight of the loss that was measured last; 0 keeps the difficulties before distillation."""

    def __post_init__(self) -> None:
        check(self, "adaptive")


@dataclass(frozen=True, kw_only=True)
class Pacing:
    """How the share of the examples grows: min(1, p q^⌊e/ρ⌋) in epoch e."""

    initial_fraction: float
    growth_factor: float
    growth_every: int

    @classmethod
    def of(cls, settings: AdaptiveSettings, epochs: int) -> "Pacing":
        """The pacing of a training; q, where it is null, makes p q^⌊T/ρ⌋ = 1 at T = E / 2."""
        p, q = settings.initial_fraction, settings.growth_factor
        every = settings.growth_every or max(1, round(0.075 * epochs))
        num_growths = max(1, math.floor(epochs / 2 / every))
        factor = (1.0 / p) ** (1.0 / num_growths) if q is None else q
        return cls(initial_fraction=p, growth_factor=factor, growth_every=every)

    def share(self, epoch: int) -> float:
        # The logarithm of the power is bounded first: a float has no room for 10^1000.
        grown = (epoch // self.growth_every) * math.log(self.growth_factor) + math.log(self.initial_fraction)
        return math.exp(min(0.0, grown))

    def num_taken(self, epoch: int, num_examples: int, least: int) -> int:
        """Examples of an epoch: the share of all, rounded up, and at least a global batch.

        Rounded before: p q^⌊T/ρ⌋ is 1 only up to the last digits of a float.
        """
        asked = math.ceil(round(self.share(epoch) * num_examples, 6))
        return min(num_examples, max(least, asked))


class AdaptiveStages(Stages):
    """A stage is an epoch, which takes the easiest examples by the difficulties in hand.

    Args:
        difficulties: [num_examples] in nats a token.
        least: most examples of a global batch; an epoch takes no fewer.
    """

    def __init__(self, difficulties: np.ndarray, pacing: Pacing, least: int) -> None:
        super().__init__(len(difficulties))
        self.difficulties, self.pacing, self.least = np.asarray(difficulties, np.float64), pacing, least

    def stage_of(self, progress: Progress) -> int:
        return progress.epoch

    def num_taken(self, stage: int) -> int:
        return self.pacing.num_taken(stage, self.num_examples, self.least)

    def taken(self, stage: int) -> np.ndarray | None:
        number = self.num_taken(stage)
        if number == self.num_examples:
            return None
        return np.sort(np.argsort(self.difficulties, kind="stable")[:number])

    def metrics(self, stage: int) -> dict[str, float]:
        taken = self.taken(stage)
        of_taken = self.difficulties if taken is None else self.difficulties[taken]
        return {
            "adaptive/share_taken": self.num_taken(stage) / self.num_examples,
            "adaptive/mean_difficulty": float(self.difficulties.mean()),
            "adaptive/mean_difficulty_taken": float(of_taken.mean()),
        }

    def state_dict(self) -> dict[str, Any]:
        import torch

        return {"difficulties": torch.from_numpy(self.difficulties)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state:
            self.difficulties = np.asarray(state["difficulties"], np.float64)


class Adaptive(Curriculum):
    """Whole examples, from the easiest share to all; difficulties follow the student."""

    Settings = AdaptiveSettings

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.examples: Sequence[Example] = ()
        self.paced: AdaptiveStages

    @property
    def follows_student(self) -> bool:
        return not self.takes_all

    def uses(self, key: str) -> bool:
        return key == "curriculum"

    @property
    def takes_all(self) -> bool:
        return bool(self.settings.initial_fraction == 1)

    def arrows(self, weights: str | None) -> list[Arrow]:
        from kpod_lightning.students.losses_before import loss_arrow

        return [] if self.takes_all else [loss_arrow()]

    def stages(self, context: Any) -> Stages:
        if self.takes_all:
            return super().stages(context)
        from kpod_lightning.curricula.mean_losses import means_of_rationales
        from kpod_lightning.students.losses_before import losses_before

        epochs, pacing = self.config.optim.epochs, Pacing.of(self.settings, self.config.optim.epochs)
        self.examples = context.examples
        before = means_of_rationales(self.examples, losses_before(context))
        self.paced = AdaptiveStages(before, pacing, self.config.optim.batch_size)
        if not self.paced.is_whole(epochs - 1):
            number = self.paced.num_taken(epochs - 1)
            context.say(
                f"optim.epochs={epochs} ends before all examples are taken: the last epoch takes {number} of "
                f"{len(self.examples)}; raise the epochs or adaptive.growth_factor"
            )
        return self.paced

    def after_epoch(self, student: "Student", epoch: int) -> None:
        """d ← (1 − a) d + a ℓ, where a later epoch still leaves examples out."""
        optim = self.config.optim
        every = self.settings.measure_every or max(1, round(0.1 * optim.epochs))
        ends = optim.steps is None and optim.tokens is None and epoch + 1 == optim.epochs
        if self.takes_all or ends or self.paced.is_whole(epoch + 1) or (epoch + 1) % every:
            return
        from kpod_lightning.curricula.mean_losses import measured

        a, now = self.settings.smoothing, measured(student, self.examples, self.config.optim.batch_size)
        self.paced.difficulties = (1.0 - a) * self.paced.difficulties + a * now

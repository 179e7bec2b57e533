"""Self-paced learning: targets weigh as much as the student is sure of them in this step (Wan et al., 2020)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kpod_lightning.config import RunConfig
from kpod_lightning.curricula.base import Curriculum
from kpod_lightning.data.stages import Stages
from kpod_lightning.store.bounds import at_least, check, one_of, within
from kpod_lightning.store.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from kpod_lightning.data.views import Batch
    from kpod_lightning.students.student import Student


@dataclass(frozen=True, kw_only=True)
class SelfPacedSettings:
    """The block ``self_paced:`` of an experiment; values of the paper and of its released code."""

    num_passes: int = field(default=5, metadata=at_least(2, most=1000))
    """M: passes with dropout that a confidence is the variance of. A step takes M passes more, without gradients."""
    exponent: float = field(default=2.0, metadata=at_least(0, most=1000))
    """k: the larger, the more a target that the student is unsure of is held back. 0 makes no passes: no curriculum."""
    normalise: str = field(default="softmax", metadata=one_of("softmax", "mean", "none"))
    """softmax (of all confidences of a micro-batch, times their number: as released) | mean (over it) | none."""
    dropout: float | None = field(default=0.1, metadata=within("(0, 1)"))
    """Rate for a student without dropout of its own, in the M passes alone; null refuses such a student."""

    def __post_init__(self) -> None:
        check(self, "self_paced")


class SelfPacedStages(Stages):
    """Every rationale whole; an epoch's mean confidence is counted over all ranks.

    Args:
        num_examples: of the train set.
    """

    def __init__(self, num_examples: int) -> None:
        from kpod_lightning.distributed.sums import RankSums

        super().__init__(num_examples)
        self.sums = RankSums("confidence", "targets")

    def metrics(self, stage: int) -> dict[str, float]:
        sums = self.sums.compute()
        return {"self_paced/mean_confidence": sums["confidence"] / max(1.0, sums["targets"])}

    def state_dict(self) -> dict[str, Any]:
        return self.sums.compute()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state:
            self.sums.restore(state)


class SelfPaced(Curriculum):
    """Factors of the token weights from the student's confidence in each step; no order of the examples."""

    Settings = SelfPacedSettings

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.rate: float | None = None
        self.paced: SelfPacedStages

    def check(self) -> None:
        super().check()
        if self.settings.exponent and self.config.optim.loss_scale == "mass":
            raise InputError(
                "optim.loss_scale=mass divides by the weights of a global batch before its step, and "
                "curriculum=self_paced makes them in the step: take optim.loss_scale=tokens or sum"
            )

    def uses(self, key: str) -> bool:
        return key == "curriculum"

    def stages(self, context: Any) -> Stages:
        """
        Raises:
            InputError: the student has no dropout, and none is put on.
        """
        if not self.settings.exponent:
            return super().stages(context)
        from kpod_lightning.students.dropout import blocks_of, has_dropout

        student = context.student
        if not has_dropout(student.model):
            self.rate = self.settings.dropout
            if self.rate is None or not blocks_of(student.model):
                raise InputError(
                    f"curriculum=self_paced: {student.name} has no dropout, so that all confidences would be 1: "
                    "set self_paced.dropout=0.1, or take a student that has dropout of its own"
                )
            context.say(f"{student.name} has no dropout: confidences are made with self_paced.dropout={self.rate}")
        self.paced = SelfPacedStages(len(context.examples))
        return self.paced

    def factors(self, student: "Student", batch: "Batch") -> "Tensor | None":
        settings = self.settings
        if not settings.exponent:
            return None
        from kpod_lightning.curricula.confidence import confidences, losses_under_dropout, normalised

        nll = losses_under_dropout(
            student, batch, num_passes=settings.num_passes, rate=self.rate, seed=self.config.seed
        )
        sure = confidences(nll, batch.example_of, len(batch.keys), settings.exponent)
        self.paced.sums.update(confidence=sure.sum(), targets=len(sure))
        return normalised(sure, settings.normalise)

    def after_epoch(self, student: "Student", epoch: int) -> None:
        if self.settings.exponent:
            self.paced.sums.reset()

"""Curriculum: the seam of every curriculum. What it makes before the training, and the stages of the training."""

from typing import TYPE_CHECKING, Any, ClassVar

from kpod_lightning.config import RunConfig
from kpod_lightning.store import plugins
from kpod_lightning.store.artefacts import Arrow
from kpod_lightning.store.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from kpod_lightning.data.stages import Stages
    from kpod_lightning.data.views import Batch
    from kpod_lightning.evaluation.sections import Section
    from kpod_lightning.students.student import Student

GROUP = "kpod_lightning.curricula"
SHIPPED = {
    "adaptive": "kpod_lightning.curricula.adaptive:Adaptive",
    "forward": "kpod_lightning.curricula.forward:Forward",
    "in_rationale": "kpod_lightning.curricula.in_rationale:InRationale",
    "in_sample": "kpod_lightning.curricula.in_sample:InSample",
    "none": "kpod_lightning.curricula.base:Curriculum",
    "prefix_adaptive": "kpod_lightning.curricula.prefix_adaptive:PrefixAdaptive",
    "self_paced": "kpod_lightning.curricula.self_paced:SelfPaced",
}


class Curriculum:
    """No curriculum: every rationale whole, from the first epoch on. Others are subclasses, a file each.

    A file of a curriculum loads no torch when it is imported: its settings are read before anything heavy is.
    """

    Settings: ClassVar[type | None] = None
    """Dataclass of its own block of the YAML, which has the curriculum's name; None: it has none."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @property
    def settings(self) -> Any:
        """The curriculum's own block."""
        return getattr(self.config, self.config.curriculum)

    @property
    def follows_student(self) -> bool:
        """Whether what it asks depends on what the student has learned, so that it is not known beforehand."""
        return False

    def check(self) -> None:
        """Refuse settings that contradict each other; one that overrides it calls it, too.

        Raises:
            InputError: they do.
        """
        optim = self.config.optim
        if self.follows_student and optim.decay_from == "whole" and optim.tokens is not None:
            raise InputError(
                "optim.decay_from=whole needs the target tokens before all rationales are whole, and "
                f"curriculum={self.config.curriculum} chooses what it asks in the course of the training: take "
                "optim.decay_from=start, or optim.steps instead of optim.tokens"
            )

    def uses(self, key: str) -> bool:
        """Whether it reads a setting of ``schedule``, by its name with dots; no curriculum reads none."""
        return type(self) is not Curriculum

    def arrows(self, weights: str | None) -> list[Arrow]:
        """What is made before the student learns, in order.

        Args:
            weights: the artefact that holds learned token weights (``Context.keypoints`` reads them); None: there
                are none, or ``weights.in_difficulty`` is false.
        """
        return []

    def training_settings(self) -> tuple[str, ...]:
        """Settings outside its own block that the training depends on and none of its artefacts does."""
        return ()

    def stages(self, context: Any) -> "Stages":
        """The stages of the training, from the artefacts.

        Args:
            context: a ``methods.context.Context``.
        """
        from kpod_lightning.data.stages import Stages

        return Stages(len(context.examples))

    def factors(self, student: "Student", batch: "Batch") -> "Tensor | None":
        """[N] that the weights of a batch's targets are multiplied by; None: 1."""
        return None

    def after_epoch(self, student: "Student", epoch: int) -> None:
        """Change the stages by what the student has learned; every rank calls it, when an epoch has ended.

        What it changes is kept in ``Stages.state_dict``.
        """

    def models(self) -> dict[str, str]:
        """Models beside the student that have to be fetched: setting -> name."""
        return {}

    def describe(self, folder: "Path") -> "Sequence[Section]":
        """Its part of the report, from what lies in the run folder."""
        return []


def find_curriculum(name: str) -> type[Curriculum]:
    """A shipped curriculum, or one of an installed package (entry points ``kpod_lightning.curricula``).

    Raises:
        InputError: there is none of this name, or what has the name is no curriculum.
    """
    found: type[Curriculum] = plugins.load(GROUP, name, SHIPPED, setting="curriculum", base=Curriculum)
    return found

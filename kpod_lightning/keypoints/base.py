"""Weighting: the seam of every token weighting. Weights from a table, or computed in the step from the logits."""

from typing import TYPE_CHECKING, Any, ClassVar

from kpod_lightning.config import RunConfig
from kpod_lightning.store import plugins
from kpod_lightning.store.artefacts import Arrow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from torch import Tensor
    from torch.nn import Module

    from kpod_lightning.data.views import Batch
    from kpod_lightning.evaluation.sections import Section
    from kpod_lightning.store.ragged import Ragged
    from kpod_lightning.students.nll import LossSums
    from kpod_lightning.students.student import Student

GROUP = "kpod_lightning.keypoints"
SHIPPED = {
    "learned": "kpod_lightning.keypoints.learned:Learned",
    "file": "kpod_lightning.keypoints.from_file:FromFile",
    "numbers": "kpod_lightning.keypoints.numbers:Numbers",
    "oracle": "kpod_lightning.keypoints.oracle:Oracle",
    "random": "kpod_lightning.keypoints.random_share:RandomShare",
    "uniform": "kpod_lightning.keypoints.base:Weighting",
    "dft": "kpod_lightning.keypoints.probability:DFT",
    "power": "kpod_lightning.keypoints.probability:Power",
    "threshold": "kpod_lightning.keypoints.probability:Threshold",
    "eaft": "kpod_lightning.keypoints.entropy:EAFT",
    "entropy_top": "kpod_lightning.keypoints.entropy:EntropyTop",
    "excess": "kpod_lightning.keypoints.excess:Excess",
}

OF_ALL = tuple(f"weights.{name}" for name in ("in_loss", "floor", "rescale", "answer_weight", "start_epoch"))
"""Settings that act on the weights of every weighting alike, see ``in_loss`` and ``in_step``."""
OF_TABLES = (*OF_ALL, "weights.permuted")
"""Settings that act on the table of every weighting alike, see ``in_loss.loss_weights``."""


class Weighting:
    """Uniform: every target token weighs 1. Others are subclasses, a file each.

    A file of a weighting loads no torch when it is imported: its settings are read before anything heavy is.
    """

    Settings: ClassVar[type | None] = None
    """Dataclass of its own block of the YAML, which has the weighting's name; None: it has none."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @property
    def settings(self) -> Any:
        """The weighting's own block."""
        return getattr(self.config, self.config.weights.kind)

    def check(self) -> None:
        """Refuse settings that contradict each other (InputError)."""

    reads: ClassVar[tuple[str, ...] | None] = None
    """Settings of ``weights`` that it reads, by their names with dots; None: all of them."""

    def uses(self, key: str) -> bool:
        """Whether it reads a setting of ``weights``, by its name with dots; the uniform one has the answer's."""
        if type(self) is Weighting:
            return self.config.weights.answer_weight != 1 and key in (OF_ALL[0], *OF_ALL[-2:])
        return self.reads is None or key in self.reads

    def arrows(self) -> list[Arrow]:
        """What is made before the student learns, in order."""
        return []

    @property
    def artefact(self) -> str | None:
        """The artefact with weights of rationale tokens, which step difficulties may use, Eq. (8); None: none."""
        return None

    def keypoints(self, context: Any) -> "Ragged | None":
        """[num_examples] rows [num_rationale_tokens] w of Eq. (3), in (0, 1); None where there are none."""
        return None

    def table(self, context: Any) -> "Sequence[np.ndarray] | None":
        """[num_examples] rows [len(target_ids)] weights, those of the rationale's tokens first; None: all are 1.

        Args:
            context: a ``methods.context.Context``.
        """
        return None

    weighs_answers: bool = False
    """Whether its table says what answer phrase and EOS weigh; otherwise it has 1 for them, which stays 1."""

    def loss_table(self, context: Any) -> "Sequence[np.ndarray] | None":
        """The table as the loss reads it, Eq. (15), after the settings ``OF_TABLES``; None: all weights are 1.

        Raises:
            InputError: all weights are 0.
        """
        if not self.config.weights.in_loss:
            return None
        table = self.table(context)
        if table is None and self.config.weights.answer_weight == 1:
            return None
        from kpod_lightning.keypoints.in_loss import loss_weights, ones

        if table is None:
            table = ones(context.examples)

        return loss_weights(self.config, table, context.examples, with_answers=self.weighs_answers)

    def in_step(self, logits: "Tensor", nll: "Tensor", targets: "Tensor", weights: "Tensor") -> "Tensor":
        """Weights computed anew in every step. It is called for some targets at a time, so a token's weight may depend
        on that token alone: the logits of a whole batch are never in memory together.

        Args:
            logits: [n, V] of the student, float32, detached.
            nll: [n] losses in nats: the targets' probabilities are ``exp(-nll)``.
            targets: [n] token ids.
            weights: [n] of 1; the result is multiplied by the weights of the table.

        Returns:
            [n].
        """
        return weights

    def chosen(self, nll: "Tensor", weights: "Tensor", batch: "Batch") -> "Tensor":
        """Weights that compare the targets of a micro-batch with each other, e.g. 1 for a share of them, or mean 1.

        Ranks and accumulated micro-batches see their own targets alone; what is compared within an example
        (``batch.example_of``) does not depend on how many there are.

        Args:
            nll: [N] losses in nats, detached.
            weights: [N] of ``in_step``, or of 1.

        Returns:
            [N].
        """
        return weights

    @property
    def is_in_step(self) -> bool:
        """Whether weights follow from the step: from what the student predicts, or from the epoch."""
        return self.config.weights.start_epoch > 0 or self.reads_step

    @property
    def reads_step(self) -> bool:
        """Whether it computes weights of its own in the step."""
        return any(getattr(type(self), name) is not getattr(Weighting, name) for name in ("in_step", "chosen"))

    def loss(self, student: "Student", batch: "Batch", factors: "Tensor | None" = None) -> "LossSums":
        """The weighted loss of a micro-batch, Eq. (15).

        Args:
            factors: [N] that the weights of the table are multiplied by, e.g. of a curriculum; None: 1.
        """
        import torch

        from kpod_lightning.keypoints.in_step import weighted_in_step
        from kpod_lightning.students.nll import losses

        plain = batch.epoch < self.config.weights.start_epoch
        weights = torch.ones_like(batch.target_weights) if plain else batch.target_weights
        weights = weights if factors is None else weights * factors
        in_step = None if type(self).in_step is Weighting.in_step else self.in_step
        chosen = None if type(self).chosen is Weighting.chosen else self.chosen
        if plain or in_step is chosen is None or not self.config.weights.in_loss:
            return losses(student, batch, weights=weights)[0]
        return weighted_in_step(student, batch, weights, self.config.weights, in_step, chosen)

    def network(self, context: Any) -> "Module | None":
        """The trained weight network, frozen; None where none is learned."""
        return None

    def models(self) -> dict[str, str]:
        """Models beside the student that have to be fetched: setting -> name."""
        return {}

    def describe(self, folder: "Path") -> "Sequence[Section]":
        """Its part of the report, from what lies in the run folder."""
        return []


def find_weighting(name: str) -> type[Weighting]:
    """A shipped weighting, or one of an installed package (entry points ``kpod_lightning.keypoints``).

    Raises:
        InputError: there is none of this name, or what has the name is no weighting.
    """
    found: type[Weighting] = plugins.load(GROUP, name, SHIPPED, setting="weights.kind", base=Weighting)
    return found

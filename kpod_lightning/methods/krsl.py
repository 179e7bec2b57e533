"""KRSL of EDIT: plain distillation, then the tokens in which right and wrong rationales differ (Dai et al., 2025)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kpod_lightning.config import RunConfig
from kpod_lightning.methods.base import Method
from kpod_lightning.store.bounds import at_least, check, one_of, positive, within
from kpod_lightning.store.errors import InputError

if TYPE_CHECKING:
    from kpod_lightning.data.examples import Example
    from kpod_lightning.data.rationales import Rationale
    from kpod_lightning.data.texts import Text
    from kpod_lightning.data.views import View

RIGHT, WRONG = 0, 1
"""Kinds of its two texts."""


@dataclass(frozen=True, kw_only=True)
class KRSLSettings:
    """The block ``krsl:`` of an experiment."""

    start_epoch: int | None = field(default=None, metadata=at_least(0))
    """Epochs of plain distillation before; null takes half of ``optim.epochs``. As many as there are, or more, leave
    plain distillation."""
    wrong: str = field(default="made", metadata=one_of("made", "recorded"))
    """made: the right rationale with a wrong result | recorded: one of the teacher's that reach another answer."""
    alpha: float = field(default=1.0, metadata=positive())
    """Weight of the right rationale's key tokens; 1.0 in the paper."""
    beta: float = field(default=0.025, metadata=at_least(0))
    """Weight of the wrong one's, whose loss is raised; 0.025 in the paper."""
    lr_scale: float = field(default=0.025, metadata=within("(0, 1]"))
    """The learning rate's factor from then on; 5e-6 of 2e-4 in the paper."""

    def __post_init__(self) -> None:
        check(self, "krsl")


class KRSL(Method):
    """Σ α ℓ over key tokens of right rationales − Σ β ℓ over those of wrong ones, behind epochs of plain distillation.

    Key tokens are those of the targets that a minimum edit distance between the two does not match.
    """

    Settings = KRSLSettings
    group_size = 2
    kinds = ("right", "wrong")

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.context: Any = None
        self.groups: list[tuple[int, ...]] = []
        self.partner: dict[int, int] = {}
        self._keys: dict[int, Any] = {}

    @property
    def start_epoch(self) -> int:
        start = self.settings.start_epoch
        return self.config.optim.epochs // 2 if start is None else int(start)

    @property
    def is_plain(self) -> bool:
        """Whether the whole training is plain distillation."""
        return self.start_epoch >= self.config.optim.epochs

    @property
    def wrong(self) -> str | None:
        return None if self.is_plain else self.settings.wrong

    def check(self) -> None:
        super().check()
        if self.config.optim.loss_scale == "mass":
            raise InputError(
                "optim.loss_scale=mass: weights of krsl may be negative, take optim.loss_scale=tokens or sum"
            )

    def text_settings(self) -> tuple[str, ...]:
        return ()  # they follow from the wrong rationales, if there are any

    def texts(self, rationale: "Rationale") -> "list[Text]":
        from kpod_lightning.data.texts import text_of

        both = (rationale, *([] if rationale.wrong is None else [rationale.wrong]))
        return [replace(text_of(each), kind=kind) for kind, each in enumerate(both)]

    def begin(self, context: Any) -> None:
        from kpod_lightning.data.drawing import texts_of_rationales
        from kpod_lightning.data.stages import FromEpoch

        super().begin(context)
        self.context = context
        if not self.is_plain:
            self.stages = FromEpoch(len(context.examples), self.start_epoch)
            self.groups = texts_of_rationales(context.examples.sources)
            pairs = [group for group in self.groups if len(group) == 2]
            self.partner = dict(pairs) | {wrong: right for right, wrong in pairs}

    def draw(self, num_examples: int, epoch: int) -> Sequence[tuple[int, ...]] | None:
        """At first the right rationales alone, as plain distillation has them; then those with a wrong one, and it."""
        if self.is_plain:
            return None
        if epoch < self.start_epoch:
            return [group[:1] for group in self.groups]
        return [group for group in self.groups if len(group) == 2]

    def rate_factor(self, epoch: int) -> float:
        return 1.0 if epoch < self.start_epoch else float(self.settings.lr_scale)

    def views(self, examples: "Sequence[Example]", positions: Sequence[int], stage: int) -> "list[View]":
        from kpod_lightning.data.views import window_view

        student = self.context.student
        return [
            window_view(
                example,
                (0, len(example.target_ids)),
                encoder_decoder=student.encoder_decoder,
                token_weights=self.weights(example, position) if stage else None,
                eos_token_id=student.tokenizer.eos_token_id,
            )
            for example, position in zip(examples, positions, strict=True)
        ]

    def weights(self, example: "Example", position: int) -> list[float]:
        """[len(target_ids)] ω: α or −β of key tokens, 0 of the others."""
        if position not in self._keys:
            from kpod_lightning.data.edits import unmatched

            other = self.partner[position]
            right, wrong = sorted((position, other))
            targets = [self.context.examples[i].target_ids for i in (right, wrong)]
            self._keys[right], self._keys[wrong] = unmatched(*targets)
        weight = self.settings.alpha if example.kind == RIGHT else -self.settings.beta
        found: list[float] = (weight * self._keys[position]).tolist()
        return found

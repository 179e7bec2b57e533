"""SCoTD: plain distillation on K rationales a question, of which an epoch draws one (Li et al., ACL 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kpod_lightning.config import RunConfig
from kpod_lightning.methods.base import Method
from kpod_lightning.store.bounds import check, one_of

if TYPE_CHECKING:
    from kpod_lightning.data.drawing import Questions
    from kpod_lightning.evaluation.sections import Section


@dataclass(frozen=True, kw_only=True)
class SCoTDSettings:
    """The block ``scotd:`` of an experiment. ``rationales.num_per_problem`` is K, ``correct_only`` the filter."""

    draw: str = field(default="balanced", metadata=one_of("balanced", "all", "one"))
    """balanced (the release's): a question counts once an epoch, by one of its rationales drawn anew | all: every
    rationale in every epoch | one: the same drawn rationale in every epoch."""

    def __post_init__(self) -> None:
        check(self, "scotd")


class SCoTD(Method):
    """The loss of plain distillation; with K = 1 it is plain distillation."""

    Settings = SCoTDSettings
    usual: ClassVar = {"rationales.num_per_problem": 10}

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.questions: Questions

    def text_settings(self) -> tuple[str, ...]:
        return ()

    def begin(self, context: Any) -> None:
        from kpod_lightning.data.drawing import Questions

        super().begin(context)
        self.questions = Questions(context.examples.keys)
        if self.config.rationales.num_per_problem > 1 and len(self.questions) == len(context.examples):
            context.say(
                f"warning: {len(self.questions)} questions have one rationale each, so method=scotd trains as plain"
                " does; take a rationales.teacher with several, or rationales.correct_only=false"
            )

    def draw(self, num_examples: int, epoch: int) -> Sequence[tuple[int, ...]] | None:
        """One example of each question, which seed, epoch and question decide; None: all."""
        how = self.settings.draw
        if how == "all" or len(self.questions) == num_examples:
            return None
        drawn = self.questions.one(self.config.seed, epoch if how == "balanced" else 0)
        return [(position,) for position in drawn.tolist()]

    def describe(self, folder: Path) -> "list[Section]":
        from kpod_lightning.evaluation.questions import rationales_a_question

        return [*super().describe(folder), *rationales_a_question(folder)]

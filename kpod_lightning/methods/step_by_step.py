"""Step by step (Hsieh et al., 2023): label and rationale are two tasks of one student, told apart by their prompts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from kpod_lightning.methods.base import Method
from kpod_lightning.store.bounds import check, one_of, within

if TYPE_CHECKING:
    from kpod_lightning.data.problems import Problem
    from kpod_lightning.data.rationales import Rationale
    from kpod_lightning.data.texts import Text
    from kpod_lightning.data.views import Batch
    from kpod_lightning.students.nll import LossSums
    from kpod_lightning.students.student import Student

LABEL, RATIONALE = 0, 1
"""Kinds of text."""


@dataclass(frozen=True, kw_only=True)
class StepByStepSettings:
    """The block ``step_by_step:`` of an experiment."""

    alpha: float = field(default=0.5, metadata=within("[0, 1]"))
    """Share of the label's loss, as the release recommends. The paper's λ, which it sets to 1, is 1/alpha - 1."""
    label: str = field(default="gold", metadata=one_of("gold", "teacher"))
    """gold | teacher: whose answer is the label. They differ with rationales.correct_only=false alone; where no answer
    can be read off a rationale, its label is the gold one."""
    prefixes: bool = True
    """Prompts begin with ``predict:`` and ``explain:``, as the paper's do. False: the template's two prompts tell the
    tasks apart, that of answers_only and that of plain."""

    def __post_init__(self) -> None:
        check(self, "step_by_step")


class StepByStep(Method):
    """L = alpha L_label + (1 - alpha) L_rationale, each the mean over its target tokens in a global batch.

    A task of share 0 has no texts: with alpha = 1 and no prefixes this is answers_only.
    """

    Settings = StepByStepSettings
    group_size = 2

    @property
    def shares(self) -> dict[int, float]:
        """Share of the loss of each kind of text that is learned."""
        alpha: float = self.settings.alpha
        return {kind: share for kind, share in ((LABEL, alpha), (RATIONALE, 1.0 - alpha)) if share > 0}

    def prompt(self, problem: "Problem") -> str:
        from kpod_lightning.data.template import prompt_text

        return self.prefix("predict") + prompt_text(problem, think=False)

    def prefix(self, task: str) -> str:
        return f"{task}: " if self.settings.prefixes else ""

    def see(self, rationales: "Iterable[Rationale]") -> None:
        """Say how many labels are gold where the teacher's were asked for."""
        if self.settings.label == "gold" or self.config.rationales.correct_only:
            return
        from kpod_lightning.distributed.console import console

        unread = sum(rationale.predicted is None for rationale in rationales)
        if unread:
            console.print(
                f"step_by_step.label=teacher: {unread} rationales state no answer that can be read, their labels are "
                "the gold answers",
                soft_wrap=True,
            )

    def labelled(self, rationale: "Rationale") -> "Rationale":
        """The rationale with the label as its problem's answer."""
        if self.settings.label == "gold" or rationale.predicted is None:
            return rationale
        return replace(rationale, problem=replace(rationale.problem, answer=rationale.predicted))

    def texts(self, rationale: "Rationale") -> "list[Text]":
        from kpod_lightning.data.template import prompt_text
        from kpod_lightning.data.texts import Text, text_of

        prefixes = self.settings.prefixes
        made = {
            LABEL: text_of(self.labelled(rationale), prompt=self.prompt(rationale.problem), with_rationale=False),
            RATIONALE: Text(
                prompt=self.prefix("explain") + prompt_text(rationale.problem, think=not prefixes),
                rationale=rationale.text.rstrip(),
                steps=rationale.steps,
                answer_phrase="",
                answer="",
                kind=RATIONALE,
            ),
        }
        return [made[kind] for kind in self.shares]

    def draw(self, num_examples: int, epoch: int) -> Sequence[tuple[int, ...]] | None:
        """The two texts of a rationale, which stand together in the train set and are left out together."""
        if len(self.shares) == 1:
            return None
        return [(first, first + 1) for first in range(0, num_examples, 2)]

    def loss(self, student: "Student", batch: "Batch") -> "LossSums":
        return self.weighting.loss(student, batch, batch.means_of_kinds(self.shares))

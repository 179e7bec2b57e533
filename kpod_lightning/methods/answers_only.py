"""Fine-tuning on answers: the student is asked the answer without a rationale."""

from typing import TYPE_CHECKING

from kpod_lightning.methods.base import Method

if TYPE_CHECKING:
    from kpod_lightning.data.problems import Problem
    from kpod_lightning.data.rationales import Rationale
    from kpod_lightning.data.texts import Text


class AnswersOnly(Method):
    """The comparison that tells what rationales are worth."""

    def prompt(self, problem: "Problem") -> str:
        from kpod_lightning.data.template import prompt_text

        return prompt_text(problem, think=False)

    def texts(self, rationale: "Rationale") -> "list[Text]":
        from kpod_lightning.data.texts import text_of

        return [text_of(rationale, prompt=self.prompt(rationale.problem), with_rationale=False)]

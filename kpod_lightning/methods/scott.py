"""SCOTT: counterfactual training, in which a wrong rationale leads to its wrong answer (Wang et al., ACL 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kpod_lightning.config import RunConfig
from kpod_lightning.methods.base import Method
from kpod_lightning.store.bounds import check, one_of, within
from kpod_lightning.store.errors import InputError

if TYPE_CHECKING:
    from kpod_lightning.data.examples import Example
    from kpod_lightning.data.problems import Problem
    from kpod_lightning.data.rationales import Rationale
    from kpod_lightning.data.texts import Text
    from kpod_lightning.data.views import Batch, View
    from kpod_lightning.students.nll import LossSums
    from kpod_lightning.students.student import Student

FACTUAL, COUNTERFACTUAL = 0, 1
"""Kinds of its two texts."""

PREFIXES = ("[factual] ", "[counterfactual] ")


@dataclass(frozen=True, kw_only=True)
class ScottSettings:
    """The block ``scott:`` of an experiment."""

    alpha: float = field(default=0.5, metadata=within("[0, 1)"))
    """Share α of the counterfactual loss; 0.5 in the release. 0 makes and trains on no counterfactual texts."""
    counterfactual: str = field(default="made", metadata=one_of("made", "recorded"))
    """made: the right rationale with a wrong result | recorded: one of the teacher's that reach another answer."""
    prefixes: bool = True
    """"[factual] " or "[counterfactual] " before question and rationale, as in the release."""

    def __post_init__(self) -> None:
        check(self, "scott")


class Scott(Method):
    """(1 − α) · mean loss of right rationales + α · mean loss of wrong answers behind the wrong rationales shown."""

    Settings = ScottSettings
    group_size = 2
    kinds = ("factual", "counterfactual")

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.student: Student
        self.groups: list[tuple[int, ...]] | None = None

    def check(self) -> None:
        super().check()
        if self.config.optim.loss_scale != "tokens":
            raise InputError(
                f"optim.loss_scale={self.config.optim.loss_scale}: the losses of scott are means over tokens, take "
                "optim.loss_scale=tokens"
            )

    @property
    def wrong(self) -> str | None:
        return self.settings.counterfactual if self.settings.alpha else None

    def text_settings(self) -> tuple[str, ...]:
        return ("scott.prefixes",)

    def prompt(self, problem: "Problem") -> str:
        return (PREFIXES[FACTUAL] if self.settings.prefixes else "") + super().prompt(problem)

    def texts(self, rationale: "Rationale") -> "list[Text]":
        from kpod_lightning.data.texts import text_of

        both = (rationale, *([] if rationale.wrong is None else [rationale.wrong]))
        return [self._prefixed(replace(text_of(each), kind=kind)) for kind, each in enumerate(both)]

    def _prefixed(self, text: "Text") -> "Text":
        """The text with the words that tell the student which task it is, before prompt and rationale."""
        if not self.settings.prefixes:
            return text
        prefix = PREFIXES[text.kind]
        starts = (0, *(len(prefix) + start for start, _ in text.steps[1:]))
        steps = tuple(
            (start, len(prefix) + end) for start, (_, end) in zip(starts, text.steps, strict=bool(text.steps))
        )
        return replace(text, prompt=prefix + text.prompt, rationale=prefix + text.rationale, steps=steps)

    def begin(self, context: Any) -> None:
        from kpod_lightning.data.drawing import texts_of_rationales

        super().begin(context)
        self.student = context.student
        if self.wrong is not None:
            self.groups = texts_of_rationales(context.examples.sources)

    def draw(self, num_examples: int, epoch: int) -> Sequence[tuple[int, ...]] | None:
        """Right rationales, each with its counterfactual one, if it has one."""
        return self.groups

    def views(self, examples: "Sequence[Example]", positions: Sequence[int], stage: int) -> "list[View]":
        """Right ones are asked whole; of a counterfactual one the wrong answer is, behind its rationale.

        A decoder that has an encoder reads the rationale where it would write it, at weight 0; a decoder-only student
        has it before what is asked.
        """
        from kpod_lightning.data.views import window_view

        views = []
        for example in examples:
            num_targets, first, weights = len(example.target_ids), 0, None
            if example.kind == COUNTERFACTUAL and self.student.encoder_decoder:
                weights = [0.0] * example.answer_start + [1.0] * (num_targets - example.answer_start)
            elif example.kind == COUNTERFACTUAL:
                first = example.answer_start
            views.append(
                window_view(
                    example,
                    (first, num_targets),
                    encoder_decoder=self.student.encoder_decoder,
                    token_weights=weights,
                    eos_token_id=self.student.tokenizer.eos_token_id,
                )
            )
        return views

    def loss(self, student: "Student", batch: "Batch") -> "LossSums":
        alpha = self.settings.alpha
        return self.weighting.loss(student, batch, batch.means_of_kinds({FACTUAL: 1 - alpha, COUNTERFACTUAL: alpha}))

"""Specialized (Fu et al., 2023): one student learns answers and rationales, with and without demonstrations."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from kpod_lightning.config import RunConfig
from kpod_lightning.methods.base import Method
from kpod_lightning.store.bounds import at_least, check, one_of
from kpod_lightning.store.errors import InputError

if TYPE_CHECKING:
    from kpod_lightning.data.problems import Problem
    from kpod_lightning.data.rationales import Rationale
    from kpod_lightning.data.texts import Text

FORMATS = ("answer", "cot", "in_context_answer", "in_context_cot")
"""Zero-shot answer-only, zero-shot chain of thought, and both behind demonstrations; the place is ``Text.kind``."""


@dataclass(frozen=True, kw_only=True)
class SpecializedSettings:
    """The block ``specialized:`` of an experiment."""

    formats: list[str] = field(default_factory=lambda: list(FORMATS))
    """Some of answer, cot, in_context_answer, in_context_cot: what each rationale becomes; the release's four."""
    num_demos: int = field(default=4, metadata=at_least(1, most=64))
    """Demonstrations of an in-context prompt: other questions of the train set, drawn anew for each example. The
    release's has 4."""
    evaluate: str = field(default="zero_shot", metadata=one_of("zero_shot", "in_context"))
    """zero_shot | in_context: the prompt of validation and test, chain of thought in both; in_context has the same
    num_demos demonstrations, drawn by seed, for all problems."""

    def __post_init__(self) -> None:
        check(self, "specialized")
        for name in self.formats:
            if name not in FORMATS:
                raise InputError(f"specialized.formats: {name} is none of {', '.join(FORMATS)}")
        if not self.formats or len(set(self.formats)) < len(self.formats):
            raise InputError(f"specialized.formats={self.formats} has none or one twice; name each format once")


class Specialized(Method):
    """The loss of plain distillation, on texts of several formats that never meet in a global batch.

    With ``formats=[cot]`` it is plain distillation.
    """

    Settings = SpecializedSettings
    apart = True
    drop_alone = True
    kinds: ClassVar = FORMATS
    usual: ClassVar = {"student.max_length": 1024}

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.demos: list[Rationale] = []
        self.first: dict[str, int] = {}

    @property
    def is_in_context(self) -> bool:
        """Whether any prompt has demonstrations."""
        return self.settings.evaluate == "in_context" or any(name.startswith("in") for name in self.settings.formats)

    def prompts_from(self) -> tuple[str, ...]:
        return ("tokens",) if self.settings.evaluate == "in_context" else ()

    def text_settings(self) -> tuple[str, ...]:
        return ("specialized.formats", "specialized.num_demos", *(["seed"] if self.is_in_context else []))

    def see(self, rationales: "Iterable[Rationale]") -> None:
        """Take the first rationale of each question for its demonstration.

        Raises:
            InputError: there are too few questions to draw demonstrations from.
        """
        self.first = {}
        demos: dict[str, Rationale] = {}
        for rationale in rationales:
            if self.first.setdefault(rationale.problem.id, rationale.sample) == rationale.sample and self.is_in_context:
                demos.setdefault(question_of(rationale), rationale)
        self.demos = list(demos.values())
        num = self.settings.num_demos
        if self.is_in_context and len(demos) <= num:
            raise InputError(
                f"specialized.num_demos={num} needs {num + 1} different questions, and the train set has {len(demos)}: "
                "lower it, or leave the in_context formats out of specialized.formats"
            )

    def texts(self, rationale: "Rationale") -> "list[Text]":
        """One text a format; answers alone are asked once a question, behind its first rationale."""
        is_first = self.first[rationale.problem.id] == rationale.sample
        return [
            self.text(rationale, name)
            for name in FORMATS
            if name in self.settings.formats and (is_first or name.endswith("cot"))
        ]

    def text(self, rationale: "Rationale", name: str) -> "Text":
        """The text of a format."""
        from dataclasses import replace

        from kpod_lightning.data.texts import with_demonstrations

        text = replace(text_in(rationale, thinks=name.endswith("cot")), kind=FORMATS.index(name))
        if not name.startswith("in_context"):
            return text
        problem_id, sample = rationale.key
        drawn = self.drawn(f"{self.config.seed}/{problem_id}/{sample}/{name}", question_of(rationale))
        shown = [text_in(demo, thinks=name.endswith("cot")) for demo in drawn]
        return replace(text, prompt=with_demonstrations(text.prompt, shown))

    def drawn(self, place: str, question: str) -> "list[Rationale]":
        """Demonstrations, none twice and none of the question itself.

        Args:
            place: all that the draw depends on beside the train set.
        """
        draw = random.Random(place)
        found: dict[int, Rationale] = {}
        while len(found) < self.settings.num_demos:
            i = draw.randrange(len(self.demos))
            if question_of(self.demos[i]) != question:
                found[i] = self.demos[i]
        return list(found.values())

    def prompt(self, problem: "Problem") -> str:
        from kpod_lightning.data.texts import with_demonstrations

        prompt = super().prompt(problem)
        if self.settings.evaluate == "zero_shot":
            return prompt
        if not self.demos:
            raise InputError(
                "specialized.evaluate=in_context has demonstrations of the train set, which was not read: give the "
                "module the method of the data module"
            )
        shown = [text_in(demo, thinks=True) for demo in self.drawn(f"{self.config.seed}/evaluation", "")]
        return with_demonstrations(prompt, shown)


def question_of(rationale: "Rationale") -> str:
    """The words of its question: the same in two problems of one data set, they are one question."""
    return " ".join(rationale.problem.text.split())


def text_in(rationale: "Rationale", *, thinks: bool) -> "Text":
    """The zero-shot text: with a rationale that of plain, without one that of answers_only."""
    from kpod_lightning.data.template import prompt_text
    from kpod_lightning.data.texts import text_of

    return text_of(rationale, prompt=prompt_text(rationale.problem, think=thinks), with_rationale=thinks)

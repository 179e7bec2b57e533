"""Specialized (Fu et al., 2023): one student learns answers and rationales, with and without demonstrations."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from kpod_lightning.config import RunConfig
from kpod_lightning.methods.base import Method
from kpod_lightning.store.artefacts import Arrow
from kpod_lightning.store.bounds import at_least, check, one_of
from kpod_lightning.store.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from kpod_lightning.data.distributions import Distributions
    from kpod_lightning.data.problems import Problem
    from kpod_lightning.data.rationales import Rationale
    from kpod_lightning.data.texts import Text
    from kpod_lightning.data.views import Batch
    from kpod_lightning.methods.context import Context
    from kpod_lightning.students.linear_nll import LossSums
    from kpod_lightning.students.student import Student

DISTRIBUTIONS = "distributions.npz"

FORMATS = ("answer", "cot", "in_context_answer", "in_context_cot")
"""Zero-shot answer-only, zero-shot chain of thought, and both behind demonstrations; the place is ``Text.kind``."""

THINKS = frozenset(i for i, name in enumerate(FORMATS) if name.endswith("cot"))
"""Kinds of text with a rationale."""


@dataclass(frozen=True, kw_only=True)
class SpecializedSettings:
    """The block ``specialized:`` of an experiment."""

    formats: list[str] = field(default_factory=lambda: list(FORMATS))
    """Some of answer, cot, in_context_answer, in_context_cot: what each rationale becomes; the release's four."""
    num_demos: int = field(default=4, metadata=at_least(1, most=64))
    """Demonstrations of an in-context prompt: other questions of the train set, drawn anew for each example. The
    release's has 4."""
    match: str = field(default="sample", metadata=one_of("sample", "distribution"))
    """sample: the teacher's words, the release's default | distribution: on chain-of-thought formats also the tokens
    that the teacher held likely, from the ``top_logprobs`` of the recorded file that rationales.teacher names."""
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
        self.distributions: Distributions | None = None

    def check(self) -> None:
        super().check()
        if self.settings.match == "distribution":
            if self.config.rationales.source != "recorded":
                raise InputError(
                    "specialized.match=distribution needs a teacher's recorded top_logprobs: set rationales.source="
                    "recorded and rationales.teacher=FILE.jsonl, or specialized.match=sample"
                )
            if not any(name.endswith("cot") for name in self.settings.formats):
                raise InputError("specialized.match=distribution needs cot or in_context_cot in specialized.formats")

    def arrows(self) -> list[Arrow]:
        if self.settings.match == "sample":
            return super().arrows()
        from kpod_lightning.data.distributions import ALIGNMENT

        made = Arrow(
            verb="distributions",
            artefact=DISTRIBUTIONS,
            settings=("specialized.match",),
            needs=("tokens", "rationales.jsonl"),
            also=(ALIGNMENT,),
            make=self.made,
            save=lambda path, distributions: distributions.save(path),
            show=lambda context: context.say(sentence(context.folder)),
            shared=True,
        )
        return [*super().arrows(), made]

    def made(self, context: "Context") -> "Distributions":
        """Distributions of all chain-of-thought texts.

        Raises:
            InputError: the file has none, or none that fits the student's tokens.
        """
        from kpod_lightning.data.distributions import make_distributions, recorded_by_key
        from kpod_lightning.data.sources import recorded_file
        from kpod_lightning.store.json_lines import JsonLines

        rows = JsonLines(recorded_file(self.config))
        tokenizer = context.student.tokenizer
        found = make_distributions(context.examples, context.rationales, THINKS, recorded_by_key(rows), tokenizer)
        if not found.num_copied:
            raise InputError(
                f"{rows.path}: no row has logprobs and top_logprobs of tokens that the student has too; record them "
                "(docs/methods.md, specialized), or set specialized.match=sample"
            )
        return found

    def begin(self, context: "Context") -> None:
        super().begin(context)
        if self.settings.match == "distribution":
            from kpod_lightning.data.distributions import Distributions

            self.distributions = Distributions.load(context.folder / DISTRIBUTIONS)

    def loss(self, student: "Student", batch: "Batch") -> "LossSums":
        if self.distributions is None or THINKS.isdisjoint(batch.kinds):
            return super().loss(student, batch)
        import torch

        from kpod_lightning.students.nll import logits_and_targets

        logits, targets, weights = logits_and_targets(student, batch)
        ids, q = (torch.from_numpy(each).to(logits.device) for each in self.distributions.of(batch.positions))
        return divergence(logits, targets, weights, ids.long(), q)

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


def divergence(logits: "Tensor", targets: "Tensor", weights: "Tensor", ids: "Tensor", q: "Tensor") -> "LossSums":
    """Sums of w_t Σ_v q_t(v) (log q_t(v) - log p_t(v)); with q 1 at the targets it is their weighted loss.

    Args:
        logits: [N, V] of p.
        targets: [N] token ids.
        weights: [N].
        ids: [N, K] tokens v of q.
        q: [N, K] their probabilities, 0 where there are fewer; a row may sum to less than 1.
    """
    import torch

    from kpod_lightning.students.nll import token_nll, weighted_sums

    wide = torch.promote_types(logits.dtype, torch.float32)
    log_p = logits.to(wide).log_softmax(-1)
    q = q.to(wide)
    sums = weighted_sums((torch.xlogy(q, q) - q * log_p.gather(1, ids)).sum(1), weights)
    return sums._replace(nats=token_nll(logits.detach(), targets).sum())


def sentence(folder: "Path") -> str:
    """How many targets have the teacher's distribution."""
    from kpod_lightning.data.distributions import Distributions

    made = Distributions.load(folder / DISTRIBUTIONS)
    mass = float(made.probabilities.sum(1).mean())
    return (
        f"{made.num_copied} of {len(made.ids)} targets of chain-of-thought texts have the teacher's distribution, the "
        f"others only their own token; the mean probability mass is {mass:.3f}."
    )

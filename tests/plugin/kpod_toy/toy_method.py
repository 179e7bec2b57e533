"""Shuffled: a rival that learns rationales whose steps are out of order, with smoothed labels."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kpod_lightning.config import RunConfig
from kpod_lightning.methods.base import Method
from kpod_lightning.store.artefacts import Arrow
from kpod_lightning.store.bounds import check, within

if TYPE_CHECKING:
    from kpod_lightning.data.examples import Example
    from kpod_lightning.data.rationales import Rationale
    from kpod_lightning.data.texts import Text
    from kpod_lightning.data.views import Batch, View
    from kpod_lightning.evaluation.sections import Section
    from kpod_lightning.methods.context import Context
    from kpod_lightning.students.nll import LossSums
    from kpod_lightning.students.student import Student

SHUFFLES = "shuffles.jsonl"


@dataclass(frozen=True, kw_only=True)
class ShuffledSettings:
    """The block ``shuffled:`` of an experiment."""

    seed: int = 0
    """Of the orders."""
    smoothing: float = field(default=0.1, metadata=within("[0, 1)"))
    """Share of a target's probability that is spread over the vocabulary."""
    answers: bool = False
    """Every problem is also asked for its answer alone."""

    def __post_init__(self) -> None:
        check(self, "shuffled")


class Shuffled(Method):
    """One artefact (the order of every example's steps), texts, views and a loss of its own."""

    Settings = ShuffledSettings

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.orders: Sequence[Sequence[int]] = ()
        self.student: Student

    def arrows(self) -> list[Arrow]:
        from kpod_lightning.store.json_lines import save_jsonl

        shuffles = Arrow(
            verb="shuffles",
            artefact=SHUFFLES,
            settings=("shuffled.seed",),
            needs=("tokens",),
            make=self.made,
            save=save_jsonl,
            show=lambda context: context.say(sentence(context.folder)),
            shared=True,
        )
        return [*super().arrows(), shuffles]

    def text_settings(self) -> tuple[str, ...]:
        return ("shuffled.answers",)

    def texts(self, rationale: "Rationale") -> "list[Text]":
        from kpod_lightning.data.texts import text_of

        asked = [True, False] if self.settings.answers else [True]
        prompt = self.prompt(rationale.problem)
        return [text_of(rationale, prompt=prompt, with_rationale=whole) for whole in asked]

    def made(self, context: "Context") -> Iterator[dict[str, Any]]:
        examples = context.examples  # by all ranks together: rank 0 alone goes through the rows
        return (self.row(position, example) for position, example in enumerate(examples))

    def row(self, position: int, example: "Example") -> dict[str, Any]:
        order = list(range(example.num_steps))
        random.Random(f"{self.settings.seed}/{position}").shuffle(order)
        return {"problem_id": example.key[0], "sample": example.key[1], "order": order}

    def begin(self, context: "Context") -> None:
        from kpod_lightning.store.json_lines import load_jsonl

        super().begin(context)
        self.student = context.student
        self.orders = [row["order"] for row in load_jsonl(context.folder / SHUFFLES)]

    def views(self, examples: "Sequence[Example]", positions: Sequence[int], stage: int) -> "list[View]":
        from kpod_lightning.data.views import view

        return [
            view(
                in_order(example, self.orders[position]),
                0,
                encoder_decoder=self.student.encoder_decoder,
                eos_token_id=self.student.tokenizer.eos_token_id,
            )
            for example, position in zip(examples, positions, strict=True)
        ]

    def loss(self, student: "Student", batch: "Batch") -> "LossSums":
        from torch.nn.functional import cross_entropy

        from kpod_lightning.students.nll import logits_and_targets, weighted_sums

        logits, targets, weights = logits_and_targets(student, batch)
        smoothing = self.settings.smoothing
        nll = cross_entropy(logits.float(), targets, label_smoothing=smoothing, reduction="none")
        return weighted_sums(nll, weights)

    def describe(self, folder: Path) -> "list[Section]":
        from kpod_lightning.evaluation.sections import Section, Table
        from kpod_lightning.store.json_lines import load_jsonl

        if not (folder / SHUFFLES).is_file():
            return super().describe(folder)
        orders = [row["order"] for row in load_jsonl(folder / SHUFFLES)]
        counts = {steps: sum(len(order) == steps for order in orders) for steps in sorted({*map(len, orders)})}
        table = Table("shuffles", {"steps": "d", "rationales": "d"}, tuple(counts.items()))
        return [*super().describe(folder), Section("Shuffled steps", (sentence(folder),), table=table)]


def in_order(example: "Example", order: Sequence[int]) -> "Example":
    """The example with its steps in another order, and the answer behind them as before."""
    by_step: list[list[int]] = [[] for _ in range(example.num_steps + 1)]
    for token, step in enumerate(example.step_of):
        by_step[step].append(token)
    parts = [by_step[step] for step in (*order, example.num_steps)]
    tokens = [token for part in parts for token in part]
    return replace(
        example,
        target_ids=tuple(example.target_ids[token] for token in tokens),
        spans=tuple(example.spans[token] for token in tokens),
        step_of=tuple(place for place, part in enumerate(parts) for _ in part),
    )


def sentence(folder: Path) -> str:
    """How many rationales have another order than their teacher's."""
    from kpod_lightning.store.json_lines import load_jsonl

    orders = [row["order"] for row in load_jsonl(folder / SHUFFLES)]
    return f"{sum(order != sorted(order) for order in orders)} of {len(orders)} rationales have their steps moved."

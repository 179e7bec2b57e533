"""MCC-KD: two diverse rationales of a question at a time, whose answers must be predicted alike (Chen et al., 2023)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from kpod_lightning.config import RunConfig
from kpod_lightning.methods.base import Method
from kpod_lightning.store.artefacts import Arrow
from kpod_lightning.store.bounds import at_least, check, one_of, positive
from kpod_lightning.store.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from kpod_lightning.data.drawing import Questions
    from kpod_lightning.data.examples import Examples
    from kpod_lightning.data.views import Batch
    from kpod_lightning.evaluation.sections import Section
    from kpod_lightning.methods.context import Context
    from kpod_lightning.students.nll import LossSums
    from kpod_lightning.students.student import Student

DIVERSE = "diverse.jsonl"


@dataclass(frozen=True, kw_only=True)
class MCCKDSettings:
    """The block ``mcc_kd:`` of an experiment. ``rationales.num_per_problem`` of a question are chosen from."""

    num_kept: int = field(default=5, metadata=at_least(2))
    """Most rationales of a question that are kept, the least alike (the paper's K)."""
    n_gram: int = field(default=3, metadata=at_least(1))
    """N: rationales are as alike as the Jaccard similarity of their sets of runs of N words. The paper's 3."""
    alpha: float = field(default=0.1, metadata=at_least(0))
    """Factor of the divergence. The release's default; its script for GSM8K has 0.01. Try 0.01, 0.05, 0.1 and 0.5."""
    temperature: float = field(default=1.0, metadata=positive())
    """T: logits are divided by it before the two distributions are compared. The release's default; its script: 1.3."""
    span: str = field(default="minus_one", metadata=one_of("minus_one", "as_released"))
    """minus_one: the distributions that predict the answer's tokens | as_released: those behind each of them."""
    mean: str = field(default="tokens", metadata=one_of("tokens", "examples"))
    """tokens: the loss is a mean over the tokens of a batch, as everywhere here | examples: over its rationales, each
    by the mean over its tokens, as released."""
    singles: str = field(default="keep", metadata=one_of("keep", "drop"))
    """keep: a question with one rationale is trained on without a divergence | drop: it is left out."""

    def __post_init__(self) -> None:
        check(self, "mcc_kd")


class MCCKD(Method):
    """L = CE + α · ½ [mean_t KL(P_t‖Q_t) + mean_t KL(Q_t‖P_t)] over the answer's tokens of two rationales.

    Both are means over the rationales of a batch; one that has no partner, or whose answer has other tokens than its
    partner's, counts with a divergence of 0.
    """

    Settings = MCCKDSettings
    group_size = 2
    usual: ClassVar = {"rationales.num_per_problem": 10}
    sums = ("kl", "kl_skipped")

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.examples: Examples
        self.questions: Questions
        self.kept: np.ndarray
        self.question_of: np.ndarray

    def check(self) -> None:
        super().check()
        if self.settings.singles == "drop" and self.config.rationales.num_per_problem == 1:
            raise InputError(
                "mcc_kd.singles=drop leaves no question where rationales.num_per_problem=1: raise it, or take keep"
            )

    # ---- The diverse rationales ----

    def arrows(self) -> list[Arrow]:
        from kpod_lightning.store.json_lines import save_jsonl

        diverse = Arrow(
            verb="diverse",
            artefact=DIVERSE,
            settings=("mcc_kd.num_kept", "mcc_kd.n_gram"),
            needs=("tokens",),
            make=self.made,
            save=save_jsonl,
            show=lambda context: context.say(" ".join(sentences(context.folder))),
            shared=True,
        )
        return [*super().arrows(), diverse]

    def text_settings(self) -> tuple[str, ...]:
        return ()

    def made(self, context: "Context") -> Iterator[dict[str, Any]]:
        from kpod_lightning.data.drawing import Questions

        examples, texts = context.examples, context.texts  # by all ranks: rank 0 alone goes through the rows
        questions = Questions(examples.keys)
        starts = questions.starts.tolist()
        for name, start, end in zip(questions.names, starts[:-1], starts[1:], strict=True):
            yield {"problem_id": name, **self.chosen(texts[start:end], examples, start)}

    def chosen(self, texts: Sequence[str], examples: "Examples", start: int) -> dict[str, Any]:
        """The most diverse rationales of a question: samples, highest similarity, pairs, pairs of unequal answers.

        Args:
            texts: of all its rationales.
            start: position of the first of them.
        """
        from kpod_lightning.data.diversity import gram_set, jaccard, most_diverse

        sets = [gram_set(text, self.settings.n_gram) for text in texts]
        kept = most_diverse(sets, self.settings.num_kept)
        answers = [examples.answer_ids(start + i).tolist() for i in kept]
        return {
            "samples": [examples.keys[start + i][1] for i in kept],
            "similarity": max((jaccard(sets[i], sets[j]) for i, j in combinations(kept, 2)), default=None),
            "pairs": len(kept) * (len(kept) - 1) // 2,
            "unequal": sum(one != other for one, other in combinations(answers, 2)),
        }

    # ---- The training ----

    def begin(self, context: Any) -> None:
        from kpod_lightning.data.drawing import Questions
        from kpod_lightning.store.json_lines import load_jsonl

        super().begin(context)
        self.examples = context.examples
        kept = {
            (row["problem_id"], sample) for row in load_jsonl(context.folder / DIVERSE) for sample in row["samples"]
        }
        keys = self.examples.keys
        self.kept = np.array([position for position, key in enumerate(keys) if key in kept])
        self.questions = Questions(keys[position] for position in self.kept.tolist())
        self.question_of = np.full(len(keys), -1)
        self.question_of[self.kept] = np.repeat(np.arange(len(self.questions)), self.questions.sizes)

    def draw(self, num_examples: int, epoch: int) -> Sequence[tuple[int, ...]] | None:
        """Two examples of each question, or its only one; None: no question has two."""
        if self.settings.singles == "keep" and len(self.questions) == num_examples:
            return None
        pairs = zip(*(self.kept[found].tolist() for found in self.questions.two(self.config.seed, epoch)), strict=True)
        groups = [(one,) if one == other else (one, other) for one, other in pairs]
        return [group for group in groups if self.settings.singles == "keep" or len(group) == 2]

    def spans(self, positions: Sequence[int]) -> "tuple[Tensor, Tensor, int]":
        """Where the answers of the pairs of a batch are predicted, among its targets.

        Args:
            positions: of the examples, whose targets are all asked; the two of a pair stand side by side.

        Returns:
            Rows [2, R] of either of a pair, the pair [R] of each, and how many pairs have unequal answers.
        """
        import torch

        places = np.array(positions)
        starts = np.cumsum([0, *self.examples.num_targets[places]])[:-1] + self.examples.column["answer_start"][places]
        starts += self.settings.span == "as_released"
        question = self.question_of[places]
        rows = [np.zeros((2, 0), np.int64)]
        unequal = 0
        for first in np.flatnonzero(question[1:] == question[:-1]).tolist():
            one, other = (self.examples.answer_ids(positions[i]) for i in (first, first + 1))
            if np.array_equal(one, other):
                rows.append(starts[first : first + 2, None] + np.arange(len(one)))
            else:
                unequal += 1
        pair_of = np.repeat(np.arange(len(rows) - 1), [found.shape[1] for found in rows[1:]])
        return torch.from_numpy(np.concatenate(rows, axis=1)), torch.from_numpy(pair_of), unequal

    def loss(self, student: "Student", batch: "Batch") -> "LossSums":
        """Sums whose quotient by the targets of the global batch is L, whatever part of it the batch is."""
        from kpod_lightning.students.divergence import two_way_kl
        from kpod_lightning.students.nll import losses_and_logits

        rows, pair_of, unequal = self.spans(batch.positions)
        rows, pair_of = rows.to(batch.asked.device), pair_of.to(batch.asked.device)
        weights = self.weights(batch) if self.settings.mean == "examples" else None
        sums, _, logits = losses_and_logits(student, batch, rows.flatten(), weights=weights)
        of_pair = 2 * batch.num_asked / batch.num_examples  # a mean over rationales as a sum over target tokens
        kl = sums.nats.new_zeros(())
        if len(pair_of):
            one, other = logits.chunk(2)
            kl = of_pair * two_way_kl(one, other, pair_of, int(pair_of[-1]) + 1, self.settings.temperature).sum()
        if len(pair_of) and self.settings.alpha:
            sums = sums._replace(weighted=sums.weighted + self.settings.alpha * kl)
        return sums._replace(more={"kl": kl.detach(), "kl_skipped": kl.new_tensor(of_pair * unequal)})

    def weights(self, batch: "Batch") -> "Tensor":
        """[N] of the targets: their sum over the targets of the global batch is a mean over its rationales."""
        counts = batch.example_of.bincount()
        of_example: Tensor = batch.num_asked / (batch.num_examples * counts)
        return of_example[batch.example_of]

    # ---- The report ----

    def describe(self, folder: Path) -> "list[Section]":
        from kpod_lightning.evaluation.questions import rationales_a_question
        from kpod_lightning.evaluation.sections import Section

        found = [*super().describe(folder), *rationales_a_question(folder)]
        return [*found, Section("Pairs", sentences(folder))] if (folder / DIVERSE).is_file() else found


def sentences(folder: Path) -> tuple[str, ...]:
    """How many rationales are kept, how alike they are, and how many pairs have no common answer tokens."""
    from kpod_lightning.store.json_lines import load_jsonl

    rows = load_jsonl(folder / DIVERSE)
    alike = [row["similarity"] for row in rows if row["similarity"] is not None]
    pairs, unequal = (sum(row[name] for row in rows) for name in ("pairs", "unequal"))
    singles = len(rows) - len(alike)
    kept = (
        f"{sum(len(row['samples']) for row in rows)} rationales of {len(rows)} questions are kept as the least alike."
    )
    if alike:
        kept += f" The two most alike of a question have a similarity of {np.mean(alike):.2f} on the mean."
    return (
        kept,
        f"{singles} questions have one rationale and no partner for it.",
        f"{unequal} of {pairs} pairs have answers of unequal tokens, which are not compared.",
    )

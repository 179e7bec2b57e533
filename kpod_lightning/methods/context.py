"""Context: what a method is given to make its artefacts from. Rationales and their examples, the student, places."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from kpod_lightning.config import RunConfig, measuring_epochs
from kpod_lightning.data.example_table import ExampleTable, save_examples
from kpod_lightning.data.examples import ROW, Examples, make_examples
from kpod_lightning.data.problems import Problem, contents_of
from kpod_lightning.data.rationales import (
    SELECTION,
    TOO_LONG,
    Counts,
    Rationale,
    RationaleTable,
    Texts,
    sentence_on_lengths,
)
from kpod_lightning.data.selection import select
from kpod_lightning.data.sources import Source
from kpod_lightning.data.template import TEMPLATE
from kpod_lightning.data.texts import Text
from kpod_lightning.data.tokens import TOKENS
from kpod_lightning.data.wrong import WRONG, wrong_rows
from kpod_lightning.distributed.console import console, say
from kpod_lightning.distributed.progress import shown
from kpod_lightning.distributed.ranks import first_rank
from kpod_lightning.methods.base import MEASURING, WARM, Method
from kpod_lightning.store.artefacts import Arrow
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import fingerprint
from kpod_lightning.store.json_lines import JsonLines, save_jsonl
from kpod_lightning.store.kept import keeping, kept
from kpod_lightning.store.keys import Key
from kpod_lightning.store.ragged import Ragged
from kpod_lightning.store.reading import read_object
from kpod_lightning.students.student import Student, contents, load_before


def input_fingerprints(config: RunConfig, splits: Mapping[str, Sequence[Problem]]) -> dict[str, str]:
    """Fingerprints of what a run is given: the problems of every split, and the student before distillation."""
    of_problems = {f"problems/{name}": fingerprint(contents_of(problems)) for name, problems in splits.items()}
    return of_problems | {"student/before": fingerprint(config.student.name, contents(config.student.name))}


WRONG_FILE = "wrong.jsonl"


def wrong_arrow(problems: Sequence[Problem], source: Source, how: str) -> Arrow:
    """The wrong rationales: a row for each right one.

    Args:
        how: made | recorded, ``Method.wrong``.
    """

    def made(context: Context) -> Iterator[dict[str, Any]]:
        rationales = context.config.rationales
        return wrong_rows(
            RationaleTable(JsonLines(context.folder / "rationales.jsonl"), problems),
            source.groups(problems) if how == "recorded" else None,
            context.config.seed,
            step_rule=rationales.step_rule,
            verdict=rationales.verdict,
        )

    return Arrow(
        verb="wrong",
        artefact=WRONG_FILE,
        settings=("seed", "rationales"),
        needs=("rationales.jsonl",),
        also=(WRONG, how, source.contents if how == "recorded" else None),
        make=made,
        save=save_jsonl,
        show=lambda context: count_wrong(context, how),
        shared=True,
    )


def count_wrong(context: "Context", how: str) -> None:
    """Say how many rationales have a wrong one beside them.

    Raises:
        InputError: none has.
    """
    rows = JsonLines(context.folder / WRONG_FILE)
    number = sum(row["rationale"] is not None for row in rows)
    if not number:
        other = (
            "the teacher's file has none that states another answer than the gold one"
            if how == "recorded"
            else "none mentions its answer, so that it could be changed"
        )
        raise InputError(
            f"{rows.path}: none of {len(rows)} rationales has a wrong one beside it: {other}; take "
            f"{'made' if how == 'recorded' else 'recorded'} ones, or another method than {context.config.method}"
        )
    context.count({"with a wrong rationale beside it": number})
    context.say(f"{number} of {len(rows)} rationales have a wrong one beside them ({how})")


def train_set_arrows(
    problems: Sequence[Problem], source: Source, method: Method, show: Callable[[Any], None] | None = None
) -> list[Arrow]:
    """The selected rationales, wrong ones beside them where the method asks for them, and their examples.

    The examples are kept in the cache alone.

    Args:
        problems: of the train split.
        source: where candidates come from.
        method: whose texts are tokenised.
        show: prints what was selected.
    """

    def selected(context: Context) -> Path:
        folder = context.cache(context.fingerprints["rationales.jsonl"]) / "selection"
        path, counts = select(context.config.rationales, context.config.seed, folder, problems, source)
        context.count(counts)
        return path

    return [
        Arrow(
            verb="rationales",
            artefact="rationales.jsonl",
            settings=("seed", "rationales"),
            needs=("problems/train",),
            also=(SELECTION, source.contents),
            make=selected,
            save=lambda path, made: shutil.copyfile(made, path),
            show=show,
        ),
        *([] if method.wrong is None else [wrong_arrow(problems, source, method.wrong)]),
        tokens_arrow(method),
    ]


def tokens_arrow(method: Method) -> Arrow:
    """The tokenised train set of a method.

    Args:
        method: whose texts are tokenised.
    """
    return Arrow(
        verb="tokens",
        artefact=None,
        settings=("method", "student.max_length", *method.text_settings()),
        needs=("rationales.jsonl", *([] if method.wrong is None else [WRONG_FILE]), "student/before"),
        also=(TEMPLATE, TOKENS, ROW),
        make=lambda context: context.examples,
    )


@dataclass(frozen=True)
class Questions(Iterable[str]):
    """Questions of some of the rationales, read anew each time.

    Args:
        positions: rising.
    """

    rationales: RationaleTable
    positions: np.ndarray

    def __iter__(self) -> Iterator[str]:
        wanted = np.zeros(len(self.rationales), bool)
        wanted[self.positions] = True
        return (rationale.problem.question for rationale in compress(self.rationales, wanted))


@dataclass
class Context:
    """The train set of a run as a method sees it; each part is made or read when it is first needed.

    Args:
        folder: the run folder.
        cache: the folder that runs beside this one share for a fingerprint.
        problems: of the train split.
        fingerprints: of the inputs and of every artefact up to now; the pipeline adds to it.
        count: told of numbers that belong into the report, e.g. how many examples are too long.
    """

    config: RunConfig
    folder: Path
    cache: Callable[[str], Path]
    method: Method
    problems: Sequence[Problem]
    fingerprints: dict[str, str]
    count: Callable[[Counts | dict[str, int]], None] = field(default=lambda counts: None)

    def say(self, text: Any) -> None:
        """Print, on the first rank."""
        console.print(text)

    def tuned(self, epochs: int) -> Student:
        """A new copy of the student after so many epochs of plain tuning, from the run folder; of 0, as it came."""
        name = WARM if epochs == self.config.student.warm_epochs else MEASURING
        return load_before(self.config.student, self.folder / name if epochs else None)

    @cached_property
    def student(self) -> Student:
        """The student before distillation, from which the training starts (``student.warm_epochs``)."""
        return self.tuned(self.config.student.warm_epochs)

    @cached_property
    def measuring(self) -> Student:
        """The student that difficulties and learned weights are measured with; mostly the one above, too."""
        same = measuring_epochs(self.config) == self.config.student.warm_epochs
        return self.student if same else self.measuring_copy()

    def reading(self, *, measuring: bool = True) -> Student:
        """A student for passes without a training: another copy under FSDP, which shards what it is given for good.

        Args:
            measuring: the one that measures; else the one from which the training starts.
        """
        if self.config.launch.strategy != "fsdp":
            return self.measuring if measuring else self.student
        return self.measuring_copy() if measuring else self.tuned(self.config.student.warm_epochs)

    def measuring_copy(self) -> Student:
        """A new copy of the student that measures, for what changes it."""
        return self.tuned(measuring_epochs(self.config))

    @cached_property
    def rationales(self) -> RationaleTable:
        """The selected rationales."""
        wrong = None if self.method.wrong is None else JsonLines(self.folder / WRONG_FILE)
        return RationaleTable(JsonLines(self.folder / "rationales.jsonl"), self.problems, wrong)

    @cached_property
    def examples(self) -> ExampleTable:
        """The tokenised train set, which runs with the same rationales, student and texts share."""
        folder = self.cache(self.fingerprints["tokens"]) / "examples"
        if type(self.method).see is not Method.see:
            self.method.see(self.rationales)

        def make() -> None:
            if not kept(folder, say):
                with keeping(folder) as aside:
                    # A warm student is not made yet; its tokenizer is that of the student as it came.
                    reader = self.tuned(0) if self.config.student.warm_epochs else self.student
                    tokenise(self.rationales, reader, self.method, self.config.student.max_length, aside)

        first_rank(make, "the tokenised train set")
        examples = ExampleTable(folder)
        num_too_long = len(self.rationales) - len(np.unique(examples.sources))
        self.count({TOO_LONG: num_too_long, "trained on": len(examples)})
        for name, (lost, total) in (read_object(folder / LOST) if self.method.drop_alone else {}).items():
            self.count({f"{name}: too long": lost})
            if lost:
                console.print(
                    f"{lost} of {total} {name} examples are longer than student.max_length and left out", soft_wrap=True
                )
        if warning := sentence_on_lengths({TOO_LONG: num_too_long, "kept": len(self.rationales)}):
            console.print(warning, soft_wrap=True)
        elif num_too_long:
            console.print(f"{num_too_long} examples are longer than student.max_length and left out")
        if (line := cut_in_evaluation(examples.num_targets, self.config.evaluation.max_new_tokens)) is not None:
            console.print(line)
        return examples

    @property
    def texts(self) -> Texts:
        """The rationales of the examples."""
        return Texts(self.rationales.rows, self.examples.sources)

    @property
    def questions(self) -> Questions:
        """The questions of the examples."""
        return Questions(self.rationales, self.examples.sources)

    def keypoints(self) -> Ragged | None:
        """[num_examples] rows [num_rationale_tokens] of the method's token weights; None where there are none."""
        return self.method.weighting.keypoints(self)


def cut_in_evaluation(num_targets: np.ndarray, max_new_tokens: int) -> str | None:
    """What to say where a student that writes as it was taught would be cut off; None where it would not.

    Args:
        num_targets: [N] tokens of the targets, with the end-of-sequence token.
    """
    longest, num_cut = int(num_targets.max()), int((num_targets > max_new_tokens).sum())
    if not num_cut:
        return None
    return (
        f"{num_cut / len(num_targets):.1%} of the targets of the train set are longer than evaluation.max_new_tokens="
        f"{max_new_tokens}: outputs like them are cut off before their answer and count as wrong; the longest has "
        f"{longest} tokens, so take evaluation.max_new_tokens={longest * 5 // 4}"
    )


LOST = "too-long.json"
"""Of each kind of text how many were too long, and how many there were: a file beside examples that go alone."""

BLOCK = 2**18
"""Characters of text that are tokenised at once: what is held of them takes some tens of megabytes."""


def blocks_of_texts(rationales: Iterable[Rationale], method: Method) -> Iterator[list[tuple[int, Key, Text]]]:
    """The texts of all rationales in blocks of ``BLOCK`` characters: the rationale's position, its key, the text."""
    block: list[tuple[int, Key, Text]] = []
    size = 0
    for source, rationale in enumerate(rationales):
        for text in method.texts(rationale):
            block.append((source, rationale.key, text))
            size += len(text.prompt) + len(text.rationale)
        if size >= BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def tokenise(
    rationales: RationaleTable | Sequence[Rationale], student: Student, method: Method, max_length: int, folder: Path
) -> None:
    """Write the examples as a table, without those that are longer than ``max_length``.

    All texts of a rationale are left out where one of them is too long, or that one alone (``Method.drop_alone``); a
    file beside the table then says of each kind how many were.

    Raises:
        InputError: none is left, or none of a kind.
    """
    made_of, lost = Counter[int](), Counter[int]()
    normalise = student.normalise  # asks the tokenizer

    def examples(block: list[tuple[int, Key, Text]]) -> Examples:
        sources, keys, texts = zip(*block, strict=True)
        made = make_examples(
            keys,
            texts,
            student.tokenizer,
            encoder_decoder=student.encoder_decoder,
            sources=sources,
            normalise=normalise,
        )
        too_long = made.lengths > max_length
        if method.drop_alone:
            made_of.update(made.column["kind"].tolist())
            lost.update(made.column["kind"][too_long].tolist())
            return made.where(~too_long)
        return made.where(~np.isin(made.sources, made.sources[too_long])) if too_long.any() else made

    blocks = blocks_of_texts(shown(rationales, "tokenising", len(rationales)), method)
    if not save_examples(map(examples, blocks), folder):
        raise InputError(
            f"student.max_length={max_length} tokens leaves none of {len(rationales)} examples a target: raise it"
        )
    counts = {method.kinds[kind]: (lost[kind], made_of[kind]) for kind in sorted(made_of)}
    for name, (num_lost, num_texts) in counts.items():
        if num_lost == num_texts:
            raise InputError(
                f"student.max_length={max_length} tokens leaves none of {num_texts} {name} examples of "
                f"method={method.config.method}: raise it, or leave {name} out"
            )
    if method.drop_alone:
        (folder / LOST).write_text(json.dumps(counts), encoding="utf-8")

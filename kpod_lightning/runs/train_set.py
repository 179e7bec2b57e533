"""The train set of a run: rationales selected and tokenised once, on disk, and what the method makes of them."""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from kpod_lightning.config import RunConfig
from kpod_lightning.curricula.in_rationale import make_schedule, measure_difficulties
from kpod_lightning.curricula.schedule import Schedule
from kpod_lightning.data.example_table import ExampleTable, save_examples
from kpod_lightning.data.examples import Example, make_example
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.rationales import Counts, Rationale, RationaleTable, Texts, as_row, select_rationales
from kpod_lightning.data.sources import Source
from kpod_lightning.distributed.checkpoints import forget_other_checkpoints
from kpod_lightning.distributed.ranks import first_rank, is_first
from kpod_lightning.keypoints.learn import keypoints, learn_weights
from kpod_lightning.keypoints.pictures import coloured_terminal, sentence_on_weights
from kpod_lightning.keypoints.table import WeightTable
from kpod_lightning.runs.folder import Run
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import writing
from kpod_lightning.store.json_lines import JsonLines, save_jsonl
from kpod_lightning.store.ragged import Ragged
from kpod_lightning.students.student import Student, load_student

T = TypeVar("T")

console = Console()


def _shown(rows: Iterable[T], what: str, number: int) -> Iterable[T]:
    # A small set is done before a bar is drawn.
    return track(
        rows, description=what, total=number, console=console, transient=True, disable=number < 2000 or not is_first()
    )


def select(run: Run, settings: str, problems: Sequence[Problem], source: Source) -> tuple[Path, Counts]:
    """Rationales that are trained on, selected once for all runs with the same ``settings``: their file, and counts.

    Raises:
        InputError: none is left.
    """
    config = run.config
    folder = run.cache(settings) / "selection"

    def make() -> None:
        if folder.is_dir():
            return
        counts = Counts()
        groups = _shown(source.groups(problems), "selecting rationales", len(problems))
        kept = select_rationales(
            groups,
            counts,
            correct_only=config.rationales.correct_only,
            num_per_problem=config.rationales.num_per_problem,
            step_rule=config.rationales.step_rule,
            seed=config.seed,
        )
        with writing(folder, among_others=True) as aside:
            aside.mkdir()
            save_jsonl(aside / "rationales.jsonl", map(as_row, kept))
            if not counts.num_kept:
                raise InputError(
                    f"no rationale is left: {counts.num_read} read, {counts.num_wrong} do not reach the gold answer; "
                    "set rationales.correct_only=false or another rationales.teacher"
                )
            (aside / "counts.json").write_text(json.dumps(asdict(counts)), encoding="utf-8")

    first_rank(make, "the selection of rationales")
    return folder / "rationales.jsonl", Counts(**json.loads((folder / "counts.json").read_text(encoding="utf-8")))


def tokenise(rationales: RationaleTable, student: Student, config: RunConfig, folder: Path) -> None:
    """Write the examples as a table; one longer than ``student.max_length`` is left out whole.

    Raises:
        InputError: none is left.
    """

    def example(rationale: Rationale) -> Example | None:
        made = make_example(
            rationale,
            student.tokenizer,
            encoder_decoder=student.encoder_decoder,
            method=config.method,
            normalise=student.normalise,
        )
        return made if len(made) <= config.student.max_length else None

    if not save_examples(map(example, _shown(rationales, "tokenising", len(rationales))), folder):
        raise InputError(
            f"student.max_length={config.student.max_length} tokens leaves none of {len(rationales)} examples a "
            "target: raise it"
        )


@dataclass(frozen=True)
class Questions(Iterable[str]):
    """Of some of the rationales, read anew each time.

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
class TrainSet:
    """The tokenised train set and what the method knows of it; each part is made or read when it is first needed."""

    run: Run
    rationales: RationaleTable
    tokens: str
    """Fingerprint of the tokenised train set, which runs of a study and all ranks share."""

    @cached_property
    def student(self) -> Student:
        return load_student(self.run.config.student.name)

    @cached_property
    def examples(self) -> ExampleTable:
        folder = self.run.cache(self.tokens) / "examples"

        def make() -> None:
            if not folder.is_dir():
                with writing(folder, among_others=True) as aside:
                    tokenise(self.rationales, self.student, self.run.config, aside)

        first_rank(make, "the tokenised train set")
        examples = ExampleTable(folder)
        num_too_long = len(self.rationales) - len(examples)
        counts = {"longer than student.max_length": num_too_long, "trained on": len(examples)}
        self.run.provenance["counts"] |= counts
        if num_too_long:
            console.print(f"{num_too_long} examples are longer than student.max_length and left out")
        return examples

    @property
    def texts(self) -> Texts:
        """The rationales of the examples."""
        return Texts(self.rationales.rows, self.examples.sources)

    def learn_weights(self, settings: str) -> WeightTable:
        checkpoints = self.run.folder / "checkpoints-weights"
        forget_other_checkpoints(checkpoints, settings)
        return learn_weights(self.run.config, self.student, self.examples, self.texts, checkpoints)

    def save_weights(self, path: Path, table: WeightTable) -> None:
        table.save(path)
        shutil.rmtree(self.run.folder / "checkpoints-weights")

    def weights(self) -> Ragged | None:
        table = WeightTable.load(self.run.folder / "weights.safetensors")
        console.print(sentence_on_weights(table))
        for key, text in zip(self.examples.keys[:2], self.texts, strict=False):
            console.print(coloured_terminal(table.rows[key], text))
        return keypoints(self.run.config, table, self.examples, self.texts)

    def difficulties(self, weights: Ragged | None) -> Iterator[dict[str, Any]]:
        # A student that is sharded for this stays so: it is another copy, and gone afterwards.
        sharded = self.run.config.launch.strategy == "fsdp"
        student = load_student(self.student.name) if sharded else self.student
        return measure_difficulties(self.run.config, student, self.examples, weights, self._losses)

    @property
    def _losses(self) -> Path:
        return self.run.folder / ".losses"

    def save_difficulties(self, path: Path, rows: Iterator[dict[str, Any]]) -> None:
        save_jsonl(path, rows)
        # Ranks of this machine may still have the files open, and some file systems then keep them a while.
        shutil.rmtree(self._losses, ignore_errors=True)

    def make_schedule(self) -> Schedule:
        rows = JsonLines(self.run.folder / "difficulties.jsonl")
        return make_schedule(self.run.config, self.student, rows, Questions(self.rationales, self.examples.sources))

    def schedule(self) -> Schedule:
        schedule = Schedule.load(self.run.folder / "schedule.npz")
        if schedule.keys != self.examples.keys:
            raise InputError(f"{self.run.folder / 'schedule.npz'} is of other rationales: make it again with --redo")
        return schedule

"""Where rationales come from: written along with the problems, or recorded from a teacher in a file."""

import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kpod_lightning.config import DataConfig, RunConfig
from kpod_lightning.data import arithmetic
from kpod_lightning.data.answers import gold_answer
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.rationales import Group, Rationale
from kpod_lightning.distributed.console import console
from kpod_lightning.distributed.progress import shown as progress
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import JsonLines
from kpod_lightning.store.records import id_of, optional_text, whole_number
from kpod_lightning.store.row_index import RowIndex


def written_along(problems: Iterable[Problem], teacher: str) -> Iterator[Group]:
    """The one rationale that each problem brings with it, or none."""
    for problem in problems:
        text = problem.rationale
        yield problem, [Rationale(problem=problem, text=text, teacher=teacher)] if text else []


def generated(problems: Sequence[Problem], data: DataConfig, num_rationales: int) -> Iterator[Group]:
    """Rationales of the generator in several wordings; the first one is that which the problem brings with it.

    Args:
        problems: the first ones of the train split.
        num_rationales: most of each problem.
    """
    made = arithmetic.problems_of(data, "train", len(problems), num_rationales)
    for problem, story in zip(problems, made, strict=True):
        texts = [story.problem.rationale or "", *(text for text, _ in story.others)]
        yield (
            problem,
            [Rationale(problem=problem, text=text, sample=i, teacher="generated") for i, text in enumerate(texts)],
        )


def _predicted(value: Any, problem: Problem) -> str | None:
    """A recorded answer in the spelling of gold ones; None where there is none that the kind can mean."""
    if value is None:
        return None
    try:
        return gold_answer(value, problem.kind, {choice.label: choice.text for choice in problem.choices} or None)
    except ValueError:
        return None


class RecordedRationales:
    """A teacher's rationales from a JSONL file with ``problem_id`` and ``rationale`` (``sample``, ``teacher``).

    Memory holds an index of the rows, not their texts.

    Args:
        rows: of the file.
        problems: the whole train split.
        others: problems of the other splits, whose rows are skipped.
        needs_verdict: whether rows must say if they are right.

    Raises:
        InputError: a damaged line, rows that are mostly for problems of no split, a field of the wrong type, or a
            sample that a problem has twice.
    """

    def __init__(
        self,
        rows: JsonLines,
        problems: Sequence[Problem],
        others: Iterable[Problem] = (),
        *,
        needs_verdict: bool = False,
    ) -> None:
        self.rows, self.needs_verdict = rows, needs_verdict
        self.name = rows.path.name.split(".")[0]
        samples = array.array("q")
        self._index = RowIndex(rows, self._checked(samples))
        self._skip(problems, others)
        if (pair := self._index.repeated(np.array(samples, np.int64))) is not None:
            i = pair[1]
            raise InputError(
                f"{rows.place(i)}: sample {samples[i]} of problem {rows[i]['problem_id']} stands here twice; "
                "number them"
            )

    def _checked(self, samples: "array.array[int]") -> Iterator[str]:
        """The problem id of each row; ``samples`` gets the index of its sample."""
        rows = progress(self.rows, "reading rationales", len(self.rows), few=200_000)
        for number, row in enumerate(rows, start=1):
            place = self.rows.place(number - 1)
            if "rationale" not in row:
                raise InputError(f"{place}: no field rationale; a rationale has problem_id and rationale")
            for name in ("rationale", "teacher", "licence"):
                optional_text(row, name, place)
            if not isinstance(row.get("correct"), bool | None):  # 1 and 0 would equal true and false
                raise InputError(f"{place}: correct is true, false or null, not {str(row['correct'])[:60]}")
            if self.needs_verdict and "correct" not in row and "predicted_answer" not in row:
                raise InputError(
                    f"{place}: neither correct nor predicted_answer, which rationales.verdict=recorded reads; set "
                    "rationales.verdict=text"
                )
            samples.append(whole_number(row, "sample", place, default=0))
            yield id_of(row, "problem_id", place)

    def _skip(self, problems: Iterable[Problem], others: Iterable[Problem]) -> None:
        """Say how many rows are for none of the problems; they are in no group.

        Raises:
            InputError: there is no row for the problems, or most rows are for problems of no split.
        """
        strange = self._index.strangers(problem.id for problem in problems)
        if not len(strange):
            return
        unknown = np.intersect1d(strange, self._index.strangers(problem.id for problem in others))
        num_rows, num_other = len(self.rows), len(strange) - len(unknown)
        first = int((unknown if len(unknown) else strange)[0])
        name = f"{self.rows.place(first)}: rationale for {'unknown ' if len(unknown) else ''}problem "
        said = (
            f"{name}{self.rows[first]['problem_id']}{'' if len(unknown) else ' of another split'}; of {num_rows} rows "
            f"{len(unknown)} are for problems of no split and {num_other} for those of validation or test"
        )
        if len(strange) == num_rows or 2 * len(unknown) > num_rows:
            raise InputError(f"{said}: the file belongs to another dataset or split; set rationales.teacher")
        console.print(f"{said}: they are skipped", soft_wrap=True)

    def groups(self, problems: Iterable[Problem]) -> Iterator[Group]:
        """Candidates of each of these problems, in the order of the file."""
        for problem in problems:
            yield (
                problem,
                [
                    Rationale(
                        problem=problem,
                        text=row["rationale"] or "",
                        sample=int(row.get("sample", 0)),
                        teacher=row.get("teacher") or self.name,
                        licence=row.get("licence"),
                        predicted=_predicted(row.get("predicted_answer"), problem) if self.needs_verdict else None,
                        correct=row.get("correct") if self.needs_verdict else None,
                    )
                    for _, row in self._index.group(problem.id)
                ],
            )


def sentence_on_origins(origins: Mapping[str, int]) -> str:
    """Who wrote the rationales, and under which licence or terms."""
    if not origins:
        return ""
    return "Rationales by " + "; ".join(f"{name}: {number}" for name, number in origins.items()) + "."


@dataclass(frozen=True)
class Source:
    """Where the rationales come from.

    ``contents``: SHA-256 of the teacher's file, or the name of how further ones are made; None where the problems bring
    all of them along. ``groups``: every candidate for some of the problems, the first so many or all.
    """

    contents: str | None
    groups: Callable[[Sequence[Problem]], Iterable[Group]]


def folder_of(data: DataConfig) -> Path:
    """The folder of a data set that lies on this machine, in which its folder of rationales is."""
    path = Path(data.dir or ".").expanduser()
    if data.dataset == "own":
        return path.parent if path.is_file() else path
    return path / data.dataset


def recorded_file(config: RunConfig) -> Path:
    """The file of the recorded teacher that ``rationales.teacher`` names."""
    teacher = config.rationales.teacher or ""
    if teacher.endswith((".jsonl", ".jsonl.gz")):
        return Path(teacher)
    return folder_of(config.data) / "rationales" / f"{teacher}.jsonl"  # a name may have dots: gpt-3.5-turbo


def others_of(splits: Mapping[str, Sequence[Problem]]) -> Iterator[Problem]:
    """Problems of all splits but the train set."""
    return (problem for name, problems in splits.items() if name != "train" for problem in problems)


def source_of(config: RunConfig, train: Sequence[Problem], others: Iterable[Problem] = ()) -> Source:
    """The configured source, before any filter.

    Args:
        train: the whole split.
        others: problems of the other splits.

    Raises:
        InputError: there are no such rationales.
    """
    rationales, num = config.rationales, config.rationales.num_per_problem
    if rationales.source == "generated" and num > 1:
        return Source(arithmetic.WORDINGS, partial(generated, data=config.data, num_rationales=num))
    if rationales.source in ("generated", "human"):
        if not any(problem.rationale for problem in train):
            ways_out = (
                "; or data.fields.rationale=NAME, or data.thinking=distil" if config.data.dataset == "own" else ""
            )
            raise InputError(
                f"data.dataset={config.data.dataset} has no rationales by people: "
                f"set rationales.source=recorded and rationales.teacher=NAME{ways_out}"
            )
        return Source(None, partial(written_along, teacher=rationales.source))
    rows = JsonLines(recorded_file(config), digest=True)
    read = partial(RecordedRationales, rows, train, list(others), needs_verdict=rationales.verdict == "recorded")
    return Source(rows.sha256, lambda problems: read().groups(problems))

"""Where rationales come from: written along with the problems, or recorded from a teacher in a file."""

import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.progress import track

from kpod_lightning.config import DataConfig, RunConfig
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.rationales import Group, Rationale
from kpod_lightning.distributed.ranks import is_first
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import JsonLines
from kpod_lightning.store.row_index import RowIndex


def written_along(problems: Iterable[Problem], teacher: str) -> Iterator[Group]:
    """The one rationale that each problem brings with it, or none."""
    for problem in problems:
        text = problem.rationale
        yield problem, [Rationale(problem=problem, text=text, teacher=teacher)] if text else []


class RecordedRationales:
    """A teacher's rationales from a JSONL file with ``problem_id`` and ``rationale`` (``sample``, ``teacher``).

    Memory holds an index of the rows, not their texts.

    Args:
        rows: of the file.
        problems: the whole train split.

    Raises:
        InputError: a damaged line, a rationale for a problem that is not in the train split, a sample that is no
            number, or one that a problem has twice.
    """

    def __init__(self, rows: JsonLines, problems: Sequence[Problem]) -> None:
        self.rows = rows
        self.name = rows.path.name.split(".")[0]
        samples = array.array("q")
        self._index = RowIndex(rows, self._checked(samples))
        if (i := self._index.unknown(problem.id for problem in problems)) is not None:
            raise InputError(
                f"{rows.path}:{i + 1}: rationale for unknown problem {rows[i]['problem_id']}; "
                "the file belongs to another dataset or split"
            )
        if (pair := self._index.repeated(np.array(samples, np.int64))) is not None:
            i = pair[1]
            raise InputError(
                f"{rows.path}:{i + 1}: sample {samples[i]} of problem {rows[i]['problem_id']} stands here twice; "
                "number them"
            )

    def _checked(self, samples: "array.array[int]") -> Iterator[str]:
        """The problem id of each row; ``samples`` gets the index of its sample."""
        quiet = len(self.rows) < 200_000 or not is_first()
        rows = track(self.rows, "reading rationales", transient=True, disable=quiet)
        for number, row in enumerate(rows, start=1):
            place = f"{self.rows.path}:{number}"
            for name in ("problem_id", "rationale"):
                if not isinstance(row.get(name), str):
                    raise InputError(f"{place}: no field {name}; a rationale has problem_id and rationale")
            try:
                samples.append(int(row.get("sample", 0)))
            except (TypeError, ValueError, OverflowError) as error:
                raise InputError(f"{place}: sample is a number from 0, not {row['sample']!r}") from error
            yield row["problem_id"]

    def groups(self, problems: Iterable[Problem]) -> Iterator[Group]:
        """Candidates of each of these problems, in the order of the file."""
        for problem in problems:
            yield (
                problem,
                [
                    Rationale(
                        problem=problem,
                        text=row["rationale"],
                        sample=int(row.get("sample", 0)),
                        teacher=str(row.get("teacher", self.name)),
                        licence=row.get("licence"),
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

    ``sha256``: of the teacher's file; None where the problems bring them along. ``groups``: every candidate for some
    of the problems, the first so many or all.
    """

    sha256: str | None
    groups: Callable[[Sequence[Problem]], Iterable[Group]]


def folder_of(data: DataConfig) -> Path:
    """The folder of a data set that lies on this machine, in which its folder of rationales is."""
    path = Path(data.dir or ".").expanduser()
    if data.dataset == "own":
        return path.parent if path.is_file() else path
    return path / data.dataset


def source_of(config: RunConfig, train: Sequence[Problem]) -> Source:
    """The configured source, before any filter.

    Args:
        train: the whole split.

    Raises:
        InputError: there are no such rationales.
    """
    rationales = config.rationales
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
    teacher = rationales.teacher or ""
    path = Path(teacher)
    if not teacher.endswith((".jsonl", ".jsonl.gz")):  # a name, which may have dots: gpt-3.5-turbo
        path = folder_of(config.data) / "rationales" / f"{teacher}.jsonl"
    rows = JsonLines(path, digest=True)
    return Source(rows.sha256, lambda problems: RecordedRationales(rows, train).groups(problems))

"""Where rationales come from: written along with the problems, or recorded from a teacher in a file."""

import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.progress import track

from kpod_lightning.config import RunConfig
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.rationales import Group, Rationale
from kpod_lightning.distributed.ranks import is_first
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import JsonLines
from kpod_lightning.store.keys import Positions


def written_along(problems: Iterable[Problem], teacher: str) -> Iterator[Group]:
    """The one rationale that each problem brings with it, or none."""
    for problem in problems:
        text = problem.rationale
        yield problem, [Rationale(problem=problem, text=text, teacher=teacher)] if text else []


class RecordedRationales:
    """A teacher's rationales from a JSONL file with ``problem_id`` and ``rationale`` (``sample``, ``teacher``).

    Held are four numbers a rationale.

    Args:
        rows: of the file.
        problems: of the whole train split.

    Raises:
        InputError: a broken line, a rationale for a problem that is not in the train split, a key twice.
    """

    def __init__(self, rows: JsonLines, problems: Sequence[Problem]) -> None:
        self.rows = rows
        self.name = rows.path.name.split(".")[0]
        names, samples = array.array("q"), array.array("q")
        quiet = len(rows) < 200_000 or not is_first()
        for number, row in enumerate(track(rows, "reading rationales", transient=True, disable=quiet), start=1):
            for name in ("problem_id", "rationale"):
                if not isinstance(row.get(name), str):
                    raise InputError(f"{rows.path}:{number}: no field {name}; a rationale has problem_id and rationale")
            names.append(hash(row["problem_id"]))
            samples.append(int(row.get("sample", 0)))
        known = Positions(problem.id for problem in problems)
        of_problem = known.first(np.array(names, np.int64))
        self._refuse_unknown(np.flatnonzero(of_problem < 0))
        numbers = np.array(samples, np.int64)
        self._order = np.lexsort((numbers, of_problem))
        self._starts = np.searchsorted(of_problem[self._order], np.arange(len(problems) + 1))
        self._refuse_repeated(of_problem[self._order], numbers[self._order])

    def _refuse_unknown(self, positions: np.ndarray) -> None:
        for i in positions.tolist():
            raise InputError(
                f"{self.rows.path}:{i + 1}: rationale for unknown problem {self.rows[i]['problem_id']}; "
                "the file belongs to another dataset or split"
            )

    def _refuse_repeated(self, of_problem: np.ndarray, samples: np.ndarray) -> None:
        same = (of_problem[1:] == of_problem[:-1]) & (samples[1:] == samples[:-1])
        for i in np.sort(self._order[1:][same]).tolist():
            name, sample = self.rows[i]["problem_id"], self.rows[i].get("sample", 0)
            raise InputError(
                f"{self.rows.path}:{i + 1}: sample {sample} of problem {name} stands here twice; number them"
            )

    def groups(self, problems: Iterable[Problem]) -> Iterator[Group]:
        """Candidates of each problem, as the file has them.

        Args:
            problems: the first ones of the split, or all.
        """
        for position, problem in enumerate(problems):
            found = []
            for i in np.sort(self._order[self._starts[position] : self._starts[position + 1]]).tolist():
                row = self.rows[i]
                if row["problem_id"] != problem.id:  # another name with the same hash
                    self._refuse_unknown(np.array([i]))
                found.append(
                    Rationale(
                        problem=problem,
                        text=row["rationale"],
                        sample=int(row.get("sample", 0)),
                        teacher=str(row.get("teacher", self.name)),
                        licence=row.get("licence"),
                    )
                )
            yield problem, found


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
            raise InputError(
                f"data.dataset={config.data.dataset} has no rationales by people: "
                "set rationales.source=recorded and rationales.teacher=NAME"
            )
        return Source(None, partial(written_along, teacher=rationales.source))
    teacher = rationales.teacher or ""
    path = Path(teacher)
    if not teacher.endswith((".jsonl", ".jsonl.gz")):  # a name, which may have dots: gpt-3.5-turbo
        path = Path(config.data.dir or ".") / config.data.dataset / "rationales" / f"{teacher}.jsonl"
    rows = JsonLines(path, digest=True)
    return Source(rows.sha256, lambda problems: RecordedRationales(rows, train).groups(problems))

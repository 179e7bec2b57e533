"""Problem: question, answer, split; one reader per benchmark."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from rich.progress import track

from kpod_lightning.errors import InputError
from kpod_lightning.json_lines import JsonLines
from kpod_lightning.keys import repeated
from kpod_lightning.ranks import is_first

SPLITS = ("train", "validation", "test")
MANIFESTS = Path(__file__).parent.parent / "data" / "splits"


@dataclass(frozen=True, kw_only=True)
class Choice:
    label: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One question with its gold answer; ``kind`` is number, choice or yes_no."""

    id: str
    question: str
    answer: str
    kind: str
    split: str
    choices: tuple[Choice, ...] = ()
    rationale: str | None = None

    @property
    def text(self) -> str:
        """What the student is shown: the question and, where there are some, its choices."""
        if not self.choices:
            return self.question
        return f"{self.question} Answer Choices: " + " ".join(f"({c.label}) {c.text}" for c in self.choices)


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Where a benchmark lies on the hub, and the sizes of its published split (appendix A, table 4 of the paper)."""

    kind: str
    hub_id: str
    hub_config: str | None
    sizes: tuple[int, int, int]


BENCHMARKS = {
    "gsm8k": Benchmark(kind="number", hub_id="openai/gsm8k", hub_config="main", sizes=(7473, 660, 659)),
    "asdiv": Benchmark(kind="number", hub_id="EleutherAI/asdiv", hub_config=None, sizes=(1462, 313, 314)),
    "svamp": Benchmark(kind="number", hub_id="ChilleD/SVAMP", hub_config=None, sizes=(700, 150, 150)),
    "commonsenseqa": Benchmark(kind="choice", hub_id="tau/commonsense_qa", hub_config=None, sizes=(8520, 1221, 1221)),
}


def question_hash(problem: Problem) -> str:
    """16 hex digits that name a question: whitespace normalised, lower case, with the texts of its choices."""
    text = " ".join([problem.question, *(choice.text for choice in problem.choices)])
    return hashlib.sha256(" ".join(text.lower().split()).encode()).hexdigest()[:16]


def _problem(row: Mapping[str, Any], where: Callable[[], str], kind: str, split: str) -> Problem:
    for name in ("id", "question", "answer"):
        value = row.get(name)
        if value is None or not str(value).strip():
            raise InputError(f"{where()}: problem {row.get('id', '?')} has no {name}; complete it or take the line out")
    try:
        choices = tuple(Choice(label=c["label"], text=c["text"]) for c in row.get("choices") or ())
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{where()}: problem {row['id']}: choices are a list of objects with label and text"
        ) from error
    return Problem(
        id=str(row["id"]),
        question=str(row["question"]),
        answer=str(row["answer"]).strip(),
        kind=kind,
        split=split,
        choices=choices,
        rationale=row.get("rationale") or None,
    )


class ProblemTable(Sequence[Problem]):
    """Problems of a file, made from its rows when they are asked for: a train set may be larger than the memory.

    Args:
        rows: of the file.
        fields: our field name -> the file's, where they differ.
        positions: which of the rows; all of them by default.
    """

    def __init__(
        self, rows: JsonLines, fields: Mapping[str, str], kind: str, split: str, positions: range | None = None
    ) -> None:
        self.rows, self.fields, self.kind, self.split = rows, fields, kind, split
        self.positions = range(len(rows)) if positions is None else positions

    def __len__(self) -> int:
        return len(self.positions)

    def where(self, position: int) -> str:
        return f"{self.rows.path}:{self.positions[position] + 1}"

    @overload
    def __getitem__(self, position: int) -> Problem: ...
    @overload
    def __getitem__(self, position: slice) -> "ProblemTable": ...
    def __getitem__(self, position: int | slice) -> "Problem | ProblemTable":
        """
        Raises:
            InputError: a field is missing, or has no value.
        """
        if isinstance(position, slice):
            return ProblemTable(self.rows, self.fields, self.kind, self.split, self.positions[position])
        row = self.rows[self.positions[position]]
        missing = [theirs for theirs in self.fields.values() if theirs not in row]
        if missing:
            raise InputError(
                f"{self.where(position)}: no field {missing[0]}, which data.fields names; there are {', '.join(row)}"
            )
        ours = {**row, **{name: row[theirs] for name, theirs in self.fields.items()}} if self.fields else row
        return _problem(ours, lambda: self.where(position), self.kind, self.split)

    def __iter__(self) -> Iterator[Problem]:
        return (self[i] for i in range(len(self)))


def contents_of(problems: Sequence[Problem]) -> Any:
    """What tells these problems from others, for a fingerprint: the file's hash, or the problems themselves."""
    if isinstance(problems, ProblemTable):
        return problems.rows.sha256, [problems.positions.start, problems.positions.stop]
    return [asdict(problem) for problem in problems]


def check(tables: Sequence[ProblemTable]) -> None:
    """Look at every problem once.

    Raises:
        InputError: a problem cannot be used, or has the id of an earlier one.
    """
    ends = np.cumsum([0, *(len(table) for table in tables)])
    quiet = ends[-1] < 200_000 or not is_first()
    every = (problem for table in tables for problem in table)
    seen = track(every, "reading problems", total=float(ends[-1]), transient=True, disable=bool(quiet))
    hashes = np.fromiter((hash(problem.id) for problem in seen), np.int64, count=int(ends[-1]))

    def place(position: int) -> tuple[ProblemTable, int]:
        which = int(np.searchsorted(ends, position, "right")) - 1
        return tables[which], position - int(ends[which])

    for earlier, later in repeated(hashes):
        (table, i), (first, j) = place(later), place(earlier)
        if table[i].id == first[j].id:
            raise InputError(f"{table.where(i)}: id {table[i].id} stands at {first.where(j)} already; ids are unique")


def read_folder(data_dir: Path, dataset: str) -> dict[str, ProblemTable]:
    """A benchmark from ``data_dir/dataset/{train,validation,test}.jsonl[.gz]`` (see data/README.md).

    Raises:
        InputError: a missing or broken file, an id twice, a problem without question or answer.
    """
    folder = data_dir / dataset
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; data.dir holds one folder a data set")
    kind = BENCHMARKS[dataset].kind
    found = {
        split: ProblemTable(JsonLines(folder / f"{split}.jsonl", digest=True), {}, kind, split) for split in SPLITS
    }
    check(list(found.values()))
    return found


def read_own(path: Path, fields: Mapping[str, str], kind: str, split: str) -> ProblemTable:
    """Problems from any JSONL file; ``fields`` says which of its fields is our id, question, answer, rationale.

    Raises:
        InputError: as ``read_folder``; and a field of the map that the file does not have.
    """
    found = ProblemTable(JsonLines(path, digest=True), fields, kind, split)
    check([found])
    return found


def _from_hub(dataset: str, row: Mapping[str, Any], part: str, number: int) -> dict[str, Any]:
    """Row ``number`` of the hub's ``part`` as our fields; ids are the folder's, which recorded rationales name."""
    if dataset == "gsm8k":
        rationale, _, answer = row["answer"].partition("####")
        rationale = re.sub(r"<<[^>]*>>", "", rationale).strip()
        return {
            "id": f"gsm8k-{part}-{number:05d}",
            "question": row["question"],
            "answer": answer.strip().replace(",", ""),
            "rationale": rationale,
        }
    if dataset == "svamp":
        question = f"{row['Body'].strip()} {row['Question'].strip()}"
        answer = float(row["Answer"])
        return {
            "id": f"svamp-{row['ID']}",
            "question": question,
            "answer": str(int(answer)) if answer.is_integer() else str(answer),
        }
    if dataset == "asdiv":
        numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?", row["answer"])
        return {
            "id": f"asdiv-nluds-{number + 1:04d}",
            "question": f"{row['body'].strip()} {row['question'].strip()}",
            "answer": numbers[0].replace(",", "") if numbers else "none",
        }
    choices = zip(row["choices"]["label"], row["choices"]["text"], strict=True)
    return {
        "id": f"csqa-{row['id']}",
        "question": row["question"],
        "answer": row["answerKey"] or "none",  # the hub's own test split hides its answers
        "choices": [{"label": label, "text": text} for label, text in choices],
    }


def read_hub(dataset: str, source: str | None = None) -> dict[str, list[Problem]]:
    """A benchmark from the Hugging Face hub, cut into the published split by the manifest in data/splits.

    Args:
        dataset: gsm8k, asdiv, svamp or commonsenseqa.
        source: a hub id or a local folder in the hub's format instead of the benchmark's own.

    Raises:
        InputError: the hub cannot be reached, or a problem of the manifest is not there.
    """
    import datasets  # slow import

    benchmark = BENCHMARKS[dataset]
    try:
        loaded = datasets.load_dataset(source or benchmark.hub_id, None if source else benchmark.hub_config)
    except (OSError, ValueError, datasets.exceptions.DatasetNotFoundError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"data.dataset={dataset}: {source or benchmark.hub_id} cannot be had ({reason}); "
            "give DATA_DIR=FOLDER (data.dir), or take DATASET=arithmetic, which needs no download"
        ) from error
    by_hash: dict[str, list[Problem]] = {}
    for part, number, row in ((name, n, row) for name, rows in loaded.items() for n, row in enumerate(rows)):
        where = f"{source or benchmark.hub_id} {part} row {number}"
        try:
            fields = _from_hub(dataset, row, part, number)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{where}: not {dataset} as {benchmark.hub_id} has it ({error!r}); give DATA_DIR"
            ) from error
        problem = _problem(fields, where.__str__, benchmark.kind, "")
        by_hash.setdefault(question_hash(problem), []).append(problem)
    manifest = json.loads((MANIFESTS / f"{dataset}.json").read_text(encoding="utf-8"))
    return {split: take(by_hash, manifest[split], split, dataset) for split in SPLITS}


def take(by_hash: Mapping[str, list[Problem]], hashes: list[str], split: str, dataset: str) -> list[Problem]:
    """The problems of a split in the manifest's order; a hash that occurs twice takes two problems."""
    taken: list[Problem] = []
    seen: Counter[str] = Counter()
    missing = 0
    for name in hashes:
        candidates = by_hash.get(name, [])
        if seen[name] < len(candidates):
            problem = candidates[seen[name]]
            taken.append(Problem(**{**problem.__dict__, "split": split}))
            seen[name] += 1
        else:
            missing += 1
    if missing:
        raise InputError(
            f"data.dataset={dataset}: {missing} of {len(hashes)} {split} problems of the published split are not in "
            "the source; it is another version of the data: give DATA_DIR=FOLDER"
        )
    return taken

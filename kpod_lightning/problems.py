"""Problem: question, answer, split; one reader per benchmark."""

import gzip
import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kpod_lightning.errors import InputError

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


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON Lines file, or of the same name with ``.gz`` where only that is there.

    Raises:
        InputError: missing, truncated, not UTF-8, or not one object a line; names file and line.
    """
    packed = path.with_name(path.name + ".gz")
    source = path if path.is_file() or not packed.is_file() else packed
    if not source.is_file():
        raise InputError(f"{path}: no such file (nor {packed.name}); check data.dir and rationales.teacher")
    rows: list[dict[str, Any]] = []
    number = 0
    try:
        with (
            gzip.open(source, "rt", encoding="utf-8")
            if source.suffix == ".gz"
            else source.open(encoding="utf-8") as file
        ):
            for number, line in enumerate(file, start=1):
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise InputError(f"{source}:{number}: a line holds one JSON object, not {type(row).__name__}")
                rows.append(row)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{source}:{number}: broken JSON ({error.msg}); mend the line or fetch the file anew"
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{source}:{number + 1}: truncated or damaged ({error}); fetch the file anew") from error
    return rows


def _problem(row: Mapping[str, Any], where: str, kind: str, split: str) -> Problem:
    for name in ("id", "question", "answer"):
        value = row.get(name)
        if value is None or not str(value).strip():
            raise InputError(f"{where}: problem {row.get('id', '?')} has no {name}; complete it or take the line out")
    try:
        choices = tuple(Choice(label=c["label"], text=c["text"]) for c in row.get("choices") or ())
    except (KeyError, TypeError) as error:
        raise InputError(f"{where}: problem {row['id']}: choices are a list of objects with label and text") from error
    return Problem(
        id=str(row["id"]),
        question=str(row["question"]),
        answer=str(row["answer"]).strip(),
        kind=kind,
        split=split,
        choices=choices,
        rationale=row.get("rationale") or None,
    )


def _without_repeats(problems: Iterable[tuple[str, Problem]]) -> list[Problem]:
    places: dict[str, str] = {}
    kept = []
    for where, problem in problems:
        if problem.id in places:
            raise InputError(f"{where}: id {problem.id} stands at {places[problem.id]} already; ids are unique")
        places[problem.id] = where
        kept.append(problem)
    return kept


def read_folder(data_dir: Path, dataset: str) -> dict[str, list[Problem]]:
    """A benchmark from ``data_dir/dataset/{train,validation,test}.jsonl[.gz]`` (see data/README.md).

    Raises:
        InputError: a missing or broken file, an id twice, a problem without question or answer.
    """
    kind = BENCHMARKS[dataset].kind
    folder = data_dir / dataset
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; data.dir holds one folder a data set")
    found: list[tuple[str, Problem]] = []
    for split in SPLITS:
        path = folder / f"{split}.jsonl"
        found += [
            (f"{path}:{n}", _problem(row, f"{path}:{n}", kind, split)) for n, row in enumerate(read_jsonl(path), 1)
        ]
    problems = _without_repeats(found)
    return {split: [p for p in problems if p.split == split] for split in SPLITS}


def read_own(path: Path, field_map: Mapping[str, str], kind: str, split: str) -> list[Problem]:
    """Problems from any JSONL file; ``field_map`` says which of its fields is our id, question, answer, rationale.

    Raises:
        InputError: as ``read_folder``; and a field of the map that the file does not have.
    """
    found = []
    for number, row in enumerate(read_jsonl(path), start=1):
        where = f"{path}:{number}"
        missing = [theirs for theirs in field_map.values() if theirs not in row]
        if missing:
            raise InputError(f"{where}: no field {missing[0]}, which data.fields names; there are {', '.join(row)}")
        ours = {**row, **{name: row[theirs] for name, theirs in field_map.items()}}
        found.append((where, _problem(ours, where, kind, split)))
    return _without_repeats(found)


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
        problem = _problem(fields, where, benchmark.kind, "")
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

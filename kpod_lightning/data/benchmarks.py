"""Reads the problems of a data set: a folder, own files, the Hugging Face hub, the generator, another package."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kpod_lightning.config import DataConfig, RunConfig
from kpod_lightning.data import arithmetic
from kpod_lightning.data.problems import SPLITS, GoldError, Problem, ProblemTable, check, problem_of, question_hash
from kpod_lightning.store import plugins
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import ASSETS
from kpod_lightning.store.json_lines import JsonLines

MANIFESTS = ASSETS / "splits"


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


GENERATED = (2000, 200, 300)
"""Train, validation and test problems of the generator where the settings name no number."""


def num_train_of(data: DataConfig) -> int | None:
    """Train problems that the settings come to, before the data are read; None where only the data say."""
    if data.dataset in BENCHMARKS:
        return min(BENCHMARKS[data.dataset].sizes[0], data.num_train or BENCHMARKS[data.dataset].sizes[0])
    return data.num_train or (GENERATED[0] if data.dataset == "arithmetic" else None)


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
    check(list(found.values()), strict=True)
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
        try:
            problem = problem_of(fields, where, benchmark.kind, "")
        except GoldError:
            continue  # the hub hides answers of its own test split; the published split has none of these
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


def read_arithmetic(data: DataConfig) -> dict[str, Sequence[Problem]]:
    """Problems of the generator, as many as are asked for; ``ood`` has other numbers and names than the train set."""
    train, validation, test = GENERATED
    sizes = {"train": data.num_train or train, "validation": data.num_validation or validation}
    sizes["test"] = sizes["ood"] = data.num_test or test
    return {
        split: [made.problem for made in arithmetic.problems_of(data, split, size)] for split, size in sizes.items()
    }


def read_benchmark(data: DataConfig) -> Mapping[str, Sequence[Problem]]:
    """One of ``BENCHMARKS``, from ``data.dir`` where it is set, else from the hub."""
    return read_folder(Path(data.dir), data.dataset) if data.dir else read_hub(data.dataset)


GROUP = "kpod_lightning.datasets"
"""Entry points of data sets that other packages add: ``read(data: DataConfig) -> Mapping[str, Sequence[Problem]]``, by
the value of ``data.dataset``. There are the splits train, validation and test; the student is tested on others too."""

READERS = {
    "arithmetic": f"{__name__}:read_arithmetic",
    **dict.fromkeys(BENCHMARKS, f"{__name__}:read_benchmark"),
    "own": "kpod_lightning.data.own:read_own",
}
"""Shipped readers by the value of ``data.dataset``."""


def load_problems(config: RunConfig) -> dict[str, Sequence[Problem]]:
    """Problems of every split that the settings ask for, cut to the asked sizes."""
    return cut(read_problems(config), config)


def cut(splits: Mapping[str, Sequence[Problem]], config: RunConfig) -> dict[str, Sequence[Problem]]:
    """The first so many problems of each split, as ``data.num_*`` asks."""
    data = config.data
    sizes = {"train": data.num_train, "validation": data.num_validation, "test": data.num_test}
    return {name: found[: sizes.get(name)] for name, found in splits.items()}


def read_problems(config: RunConfig) -> dict[str, Sequence[Problem]]:
    """Problems of every split, whole.

    Raises:
        InputError: unknown data set; a split that is missing or empty; an id twice in what another package reads.
    """
    dataset = config.data.dataset
    splits = dict(plugins.load(GROUP, dataset, READERS, setting="data.dataset")(config.data))
    for name in dict.fromkeys((*SPLITS, *splits)):
        if not splits.get(name):
            raise InputError(f"data.dataset={dataset}: the {name} split is empty")
    if dataset not in READERS:  # the shipped readers have compared ids, with the lines that they stand in
        check_ids(dataset, splits)
    return splits


def check_ids(dataset: str, splits: Mapping[str, Sequence[Problem]]) -> None:
    """Compare the ids of all problems.

    Raises:
        InputError: two problems have the same.
    """
    seen: set[str] = set()
    for name, problems in splits.items():
        for problem in problems:
            if problem.id in seen:
                raise InputError(f"data.dataset={dataset}: the id {problem.id} of a {name} problem is not unique")
            seen.add(problem.id)

"""Own data: where its splits lie, which fields are ours, what is split off the train set, and what was understood."""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kpod_lightning.config import DataConfig
from kpod_lightning.data.answers import gold_answer
from kpod_lightning.data.fields import find_fields, names_of, value_of
from kpod_lightning.data.own_records import OwnRecords, choices_of, position_of
from kpod_lightning.data.problems import SPLITS, Problem, ProblemTable, check, question_hash
from kpod_lightning.data.tables import ENDINGS, Table, ending, read_file, read_hub_id, read_saved, split_of
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.reading import read_text, shown

SHARE = 0.1
"""Share of the train set that becomes validation, or test, where there is none and ``data.num_*`` says nothing."""

_HUB_ID = re.compile(r"[\w-][\w.-]{0,95}/[\w.-]{1,96}(@[\w./-]{1,96})?")


def read_own(data: DataConfig) -> dict[str, ProblemTable]:
    """Problems of any file, folder or data set of the hub, by ``data.dir``, ``data.fields`` and ``data.kind``.

    Raises:
        InputError: ``data.dir`` is not set, or something cannot be read. Names file and row.
    """
    tables = tables_of(data)
    parts = {split: records_of(tables[split][1], tables[split][0], data) for split in SPLITS if split in tables}
    for records in parts.values():
        check_kind(records, data.kind)
    if data.kind == "choice":
        first = first_position(parts.values())
        for records in parts.values():
            records.first = first
    whole = {split: ProblemTable(records, {}, data.kind, split) for split, records in parts.items()}
    check(list(whole.values()))
    missing = [split for split in ("test", "validation") if split not in whole]
    if missing:
        usable = parts["train"].chosen(np.asarray(whole["train"].positions))
        taken = split_off(usable, missing, data)
        whole |= {split: ProblemTable(usable.chosen(at), {}, data.kind, split) for split, at in taken.items()}
    return {split: whole[split] for split in SPLITS}


def tables_of(data: DataConfig) -> dict[str, tuple[str, Table]]:
    """Name and table of each split that there is; a table without a split is the train set.

    Raises:
        InputError: nothing is there, or it is not clear what is which split.
    """
    if data.dir is None:
        raise InputError(
            "data.dataset=own needs data.dir (DATA_DIR): a file of problems, a folder with train, validation and test, "
            "or the id of a data set on the hub"
        )
    path = Path(data.dir).expanduser()
    # A path with one slash looks like an id of the hub; a folder that is there, or an ending, tells that it is none.
    # os.path, as pathlib raises for a name that is too long.
    if _HUB_ID.fullmatch(data.dir) and not (os.path.exists(path) or ending(path) or os.path.isdir(path.parent)):
        return by_split(read_hub_id(data.dir, data.subset), data.dir, data.dir.rpartition("/")[2].partition("@")[0])
    if not os.path.isdir(path):
        return by_split(read_file(path), shown(path))
    if data.subset is not None:
        return by_split(read_hub_id(str(path), data.subset), shown(path))
    if os.path.isfile(path / "dataset_dict.json") or os.path.isfile(path / "state.json"):
        return by_split(read_saved(path), shown(path), path.name)
    return files_of(path, listed(path))


def listed(folder: Path) -> list[Path]:
    """What lies in a folder, by name.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{shown(folder)}: cannot be read ({error.strerror or error})") from error


def files_of(folder: Path, there: Sequence[Path]) -> dict[str, tuple[str, Table]]:
    """The files of a folder that are named like splits; else its only file of records; else it is in the hub's format.

    Raises:
        InputError: there is none, a split twice, or several files with other names.
    """
    files = [path for path in there if ending(path) and path.name[0] not in "._"]
    by_name: dict[str, list[Path]] = {}
    for path in files:
        by_name.setdefault(split_of(path.name[: -len(ending(path))]) or "", []).append(path)
    named = {split: paths for split, paths in by_name.items() if split}
    for split, paths in named.items():
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths)
            raise InputError(f"{shown(folder)}: {names} are both the {split} split; take one away")
    if named:
        tables: dict[str, Table] = {}
        for paths in named.values():
            tables |= read_file(paths[0])
        return by_split(tables, shown(folder))
    if len(files) == 1:
        return by_split(read_file(files[0]), shown(files[0]))
    sharded = any(re.search(r"-\d{5}-of-\d{5}\.", path.name) for path in files)
    card = folder / "README.md"  # of the data set; it may say which files make which configuration
    declared = os.path.isfile(card) and "\nconfigs:" in read_text(card)
    if sharded or declared or (os.path.isdir(folder / "data") and not files):
        return by_split(read_hub_id(str(folder), None), str(folder))
    names = ", ".join(path.name for path in there[:8]) or "nothing"
    raise InputError(
        f"{shown(folder)}: no train, validation and test with an ending {', '.join(ENDINGS)}, nor one such file alone; "
        f"there is {names}"
    )


def by_split(tables: Mapping[str, Table], where: str, name: str = "") -> dict[str, tuple[str, Table]]:
    """Tables by our names of the splits.

    Args:
        name: in ids, of a table that has none.

    Raises:
        InputError: several tables, and none is the train set; a split twice.
    """
    if len(tables) == 1:
        ((only, table),) = tables.items()
        if split_of(only) in (None, "train"):
            return {"train": (only or name or "train", table)}
    found: dict[str, tuple[str, Table]] = {}
    for part, table in tables.items():
        split = split_of(part)
        if split in found:
            raise InputError(f"{where}: {found[split][0]} and {part} are both the {split} split; take one away")
        if split is not None and len(table):
            found[split] = (part, table)
    if "train" not in found:
        raise InputError(f"{where}: no train split, e.g. train.jsonl; there are {', '.join(tables)}")
    return found


def records_of(table: Table, name: str, data: DataConfig) -> OwnRecords:
    """The records of a table in our fields.

    Raises:
        InputError: it is not clear which fields are ours.
    """
    if not len(table):
        raise InputError(f"{shown(table.path)}: there is no record in it")
    records = (table[i] for i in range(len(table)))
    fields = find_fields(names_of(records), data.fields, shown(table.path))
    made = OwnRecords(table, fields, name=name, kind=data.kind, thinking=data.thinking)
    return made


def first_position(parts: Iterable[OwnRecords]) -> int | None:
    """Whether answers that are positions of choices count from 0 or 1: a 0, or the number of the choices, tells.

    None where no answer is a position, or nothing tells.
    """
    from_zero = from_one = too_large = False
    for records in parts:
        table, answer = records.table, records.fields.answer
        if answer is None or not records.fields.choices:
            continue
        for i in range(len(table)):
            record = table[i]
            choices = choices_of(record, records.fields, table.place(i))
            number = position_of(value_of(record, answer), choices)
            if number is not None:
                from_zero |= number == 0
                from_one |= number == len(choices)
                too_large |= number > len(choices)
    if too_large or from_zero == from_one:
        return None
    return 1 if from_one else 0


def fits(kind: str, row: Mapping[str, Any]) -> bool:
    """Whether an answer can be meant by this kind; a number may be the position of a choice."""
    choices = row.get("choices") or []
    if kind == "choice" and position_of(row["answer"], choices) is not None:
        return True
    try:
        gold_answer(row["answer"], kind, {choice["label"]: choice["text"] for choice in choices} or None)
    except ValueError:
        return False
    return True


def check_kind(records: OwnRecords, kind: str) -> None:
    """Compare the answers of the first 1,000 records with ``data.kind``.

    Raises:
        InputError: they are obviously of another kind; names it, and how many fit.
    """
    plain = OwnRecords(records.table, records.fields, name=records.name, kind="", thinking=records.thinking)
    rows = [plain[i] for i in range(min(len(plain), 1000))]
    fitting = {name: sum(fits(name, row) for row in rows) for name in ("number", "choice", "yes_no")}
    best = max(fitting, key=lambda name: fitting[name])
    if fitting[best] > 2 * fitting[kind] and fitting[best] >= 0.8 * len(rows):
        raise InputError(
            f"{shown(records.path)}: data.kind={kind} fits {fitting[kind]} of {len(rows)} answers, data.kind={best} "
            f"{fitting[best]}: set data.kind={best}, or data.fields.answer=NAME"
        )


def split_off(records: OwnRecords, missing: Sequence[str], data: DataConfig) -> dict[str, np.ndarray]:
    """Positions of the train set that become a split of their own, and those that stay, by ``data.seed``.

    The order of questions is that of a hash of seed and question, so that problems added later move few others.
    Problems with the same question stay together.

    Raises:
        InputError: no train set would be left.
    """

    def key(i: int) -> int:
        return int(hashlib.sha256(f"{data.seed}/{records.question_hash(i)}".encode()).hexdigest()[:15], 16)

    keys = np.fromiter(map(key, range(len(records))), np.int64, count=len(records))
    _, group = np.unique(keys, return_inverse=True)
    ends = np.cumsum(np.bincount(group))  # of the groups, in the order of their keys
    asked = {"validation": data.num_validation, "test": data.num_test}
    taken: dict[str, np.ndarray] = {}
    start = num = 0
    for split in missing:
        num += asked[split] or max(1, round(SHARE * len(records)))
        end = int(np.searchsorted(ends, num)) + 1
        if end >= len(ends):
            raise InputError(
                f"{shown(records.path)}: {len(records)} problems with {len(ends)} different questions are too "
                f"few to split {' and '.join(missing)} off; add problems, or set data.num_validation and data.num_test"
            )
        taken[split] = np.flatnonzero((group >= start) & (group < end))
        start, num = end, int(ends[end - 1])
    return taken | {"train": np.flatnonzero(group >= start)}


def understood(splits: Mapping[str, Sequence[Problem]], data: DataConfig) -> list[str]:
    """Three lines for a person to check that own data was understood; nothing for other data sets.

    Sizes and kind; which of the fields became ours; one problem, cut short.
    """
    tables = {name: table for name, table in splits.items() if isinstance(table, ProblemTable)}
    rows: dict[str, OwnRecords] = {n: table.rows for n, table in tables.items() if isinstance(table.rows, OwnRecords)}
    if data.dataset != "own" or "train" not in rows:
        return []
    train = rows["train"]
    with_rationale = sum(problem.rationale is not None for problem in tables["train"])
    off = [name for name in ("validation", "test") if rows[name].table is train.table]
    sizes = ", ".join(f"{len(table)} {name}" for name, table in tables.items())
    hashes = {name: question_hashes(table) for name, table in tables.items()}
    both = {name: int(np.isin(hashes[name], hashes["train"]).sum()) for name in ("validation", "test")}
    counted = (
        f"{data.dir}: {sizes}, kind {data.kind}"
        + (f"; {' and '.join(off)} split off the train set by data.seed={data.seed}" if off else "")
        + "".join(f"; {number} questions of {name} stand in train too" for name, number in both.items() if number)
    )
    fields = train.fields.sentence(with_rationale > 0)
    found = f"fields: {fields}; rationales with {with_rationale} of {len(tables['train'])} train problems"
    first = tables["train"][0]
    rationale = "none" if first.rationale is None else f'"{_short(first.rationale)}"'
    shown_one = f'{first.id}: question "{_short(first.text)}", answer {_short(first.answer)}, rationale {rationale}'
    return ["".join(letter for letter in line if letter.isprintable()) for line in (counted, found, shown_one)]


def question_hashes(problems: Sequence[Problem]) -> np.ndarray:
    """[num_problems] 60 bits that name each question."""
    return np.fromiter((int(question_hash(p)[:15], 16) for p in problems), np.int64, count=len(problems))


def _short(text: str, longest: int = 70) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[:longest].rstrip()}..."

"""Tables: records of files that others wrote (JSON Lines, JSON, CSV, TSV, Parquet) and of Hugging Face data sets."""

import array
import bisect
import csv
import gzip
import hashlib
import io
import json
import math
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from kpod_lightning.store.digests import digest
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import fingerprint
from kpod_lightning.store.json_lines import JsonLines
from kpod_lightning.store.reading import LARGEST, decoded, kind_of, opened, parsed, shown, without_surrogates

PACKED = (".jsonl.gz", ".ndjson.gz", ".json.gz", ".csv.gz", ".tsv.gz")

ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", *PACKED)
"""How the name of a file that can be read ends."""

Record = Mapping[str, Any]


class Table(Protocol):
    """Records by row number; ``place`` says where one stands, for messages."""

    @property
    def path(self) -> Path: ...
    @property
    def sha256(self) -> str | None: ...
    def __len__(self) -> int: ...
    def __getitem__(self, position: int, /) -> Record: ...
    def place(self, position: int) -> str: ...


def ending(path: Path) -> str:
    """The known ending of a file's name in small letters, or "" where there is none."""
    name = path.name.lower()
    return next((end for end in sorted(ENDINGS, key=len, reverse=True) if name.endswith(end)), "")


def read_file(path: Path) -> dict[str, Table]:
    """The tables of one file by name: most often one, named like the file; a JSON object may hold one for each split.

    Raises:
        InputError: it cannot be read, is of no known format, or has no records.
    """
    with opened(path):
        pass
    end = ending(path)
    name = path.name[: -len(end)] if end else path.name
    if not end:
        raise InputError(f"{shown(path)}: no known format; the name of a file of problems ends in {', '.join(ENDINGS)}")
    if end.startswith((".jsonl", ".ndjson")):
        tables: dict[str, Table] = {name: JsonLines(path, digest=True)}
    elif end == ".parquet":
        tables = {name: Parquet(path)}
    else:
        content = unpacked(path)
        text, sha256 = decoded(content, shown(path)), hashlib.sha256(content).hexdigest()
        if "\0" in text:
            raise InputError(f"{shown(path)}: no text: NUL characters stand in it; if it is UTF-16, save it as UTF-8")
        if end.startswith(".json"):
            tables = {part or name: Held(path, *held, sha256) for part, held in json_records(text, path).items()}
        else:
            tables = {name: Held(path, *separated_records(text, path, end), sha256)}
    if not any(len(table) for table in tables.values()):
        raise InputError(f"{shown(path)}: there is no record in it")
    return tables


def unpacked(path: Path) -> bytes:
    """The bytes of a file, or what it unpacks to where its name ends in .gz.

    Raises:
        InputError: it cannot be read, is damaged or too large to be read whole.
    """
    with opened(path) as file:
        try:
            is_packed = path.name.lower().endswith(".gz")
            with gzip.open(file, "rb") if is_packed else nullcontext(file) as source:
                content = source.read(LARGEST + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{shown(path)}: truncated or damaged ({error}); fetch the file anew") from error
    if len(content) > LARGEST:
        raise InputError(f"{shown(path)}: larger than {LARGEST >> 30} GiB; write it as JSON Lines or Parquet")
    return content


class Held(Sequence[Record]):
    """Records in memory.

    Args:
        places: of each record, its line; or None where records are counted from 1.
    """

    def __init__(self, path: Path, records: Sequence[Record], places: Sequence[int] | None, sha256: str) -> None:
        self.path, self.records, self.places, self.sha256 = path, records, places, sha256

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, position: Any) -> Any:
        return self.records[position]

    def place(self, position: int) -> str:
        if self.places is None:
            return f"{shown(self.path)}, record {position + 1}"
        return f"{shown(self.path)}:{self.places[position]}"


def json_records(text: str, path: Path) -> dict[str, tuple[list[Record], Sequence[int] | None]]:
    """The records of a JSON text and their lines, where they have lines, by the name of the split, else by "".

    It is an array; an object with an array for each split; an object whose one array holds the records; or JSON Lines
    under the ending of JSON.

    Raises:
        InputError: it is broken, or none of these.
    """
    where = shown(path)
    if _is_json_lines(text):
        lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        rows = [_record(parsed(line, f"{where}:{number}"), f"{where}:{number}") for number, line in lines]
        return {"": (rows, array.array("q", (number for number, _ in lines)))}
    value = parsed(text, where)
    if isinstance(value, list):
        return {"": (_records(value, where), None)}
    arrays = {name: item for name, item in value.items() if _is_array(item)} if isinstance(value, dict) else {}
    if not arrays:
        raise InputError(
            f"{where}: one {kind_of(value)}, where an array of records is expected: [{{...}}, {{...}}] or JSON Lines"
        )
    if len(arrays) == 1 and split_of(next(iter(arrays))) is None:
        (records,) = arrays.values()
        return {"": (_records(records, where), None)}
    return {name: (_records(records, f"{where}, {name}"), None) for name, records in arrays.items()}


def _is_json_lines(text: str) -> bool:
    """Whether the first line is an object by itself and others follow."""
    first, _, rest = text.lstrip().partition("\n")
    if not first.startswith("{") or not rest.strip():
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def _is_array(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _records(values: list[Any], where: str) -> list[Record]:
    return [_record(value, f"{where}, record {number}") for number, value in enumerate(values, start=1)]


def _record(value: Any, place: str) -> Record:
    if not isinstance(value, dict):
        raise InputError(f"{place}: a record is an object, not a {kind_of(value)}")
    return value


def separated_records(text: str, path: Path, end: str) -> tuple[list[Record], Sequence[int]]:
    """Records of comma- or tab-separated values with a line of names on top, and the line that each begins in.

    A column without a name is left out, as spreadsheets and data frames add such.

    A file of the name .csv whose names are separated by semicolons or tabs is read so. An empty cell is None.

    Raises:
        InputError: no line of names, a name twice, a row with more or fewer columns, a quote that does not end.
    """
    where = shown(path)
    header = text.lstrip().partition("\n")[0]
    counts = {mark: header.count(mark) for mark in (",", ";", "\t")}
    mark = "\t" if end.startswith(".tsv") else max(counts, key=lambda mark: counts[mark])
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the module's limit of 128 KiB is below some rationales
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    names: list[str] | None = None
    rows: list[Record] = []
    lines = array.array("q")
    line = 1
    try:
        for cells in reader:
            if names is None and any(map(str.strip, cells)):
                names = _names(cells, f"{where}:{line}")
            elif names is not None and (len(cells) > 1 or any(map(str.strip, cells))):
                if len(cells) != len(names):
                    raise InputError(
                        f"{where}:{line}: {len(cells)} columns, where {len(names)} have a name; a text with "
                        f"{mark!r}, a quote or a line break in it stands between quotes"
                    )
                rows.append({name: cell or None for name, cell in zip(names, cells, strict=True) if name})
                lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{where}:{line}: broken quotes ({error}); double each quote inside a quoted text") from error
    if names is None:
        raise InputError(f"{where}: empty; the first line names the columns")
    return rows, lines


def _names(cells: list[str], place: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = [name for i, name in enumerate(names) if name and name in names[:i]]
    if twice:
        raise InputError(f"{place}: two columns are named {twice[0]}; each has a name of its own")
    return names


@contextmanager
def _readable(where: Callable[[], str], kind: str) -> Iterator[None]:
    import pyarrow  # slow import

    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(f"{where()}: damaged, or no {kind} ({reason}); make or fetch it anew") from error


class Parquet(Sequence[Record]):
    """Records of a Parquet file; memory holds one group of its rows.

    Raises:
        InputError: it is damaged; on access to a row, the row's group is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _readable(lambda: shown(path), "Parquet file"):
            import pyarrow.parquet

            self._file = pyarrow.parquet.ParquetFile(path, memory_map=True)
            sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self._group: tuple[int, Any] = (-1, None)
        self._num_rows = sum(sizes)

    @cached_property
    def sha256(self) -> str | None:
        return digest(self.path)

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, position: Any) -> Any:
        position = range(len(self))[position]
        group = bisect.bisect_right(self._starts, position) - 1
        with _readable(lambda: self.place(position), "Parquet file"):
            if self._group[0] != group:
                self._group = (group, self._file.read_row_group(group))
            (row,) = self._group[1].slice(position - self._starts[group], 1).to_pylist()
        return {name: plain(value) for name, value in row.items()}

    def place(self, position: int) -> str:
        return f"{shown(self.path)}, row {position + 1}"


class HubSplit(Sequence[Record]):
    """Records of one split of a Hugging Face data set, which ``datasets`` maps into memory.

    A class label is read as its name.

    Args:
        source: its folder or hub id, and the split, for messages.
    """

    def __init__(self, path: Path, source: str, split: Any) -> None:
        self.path, self.source = path, source
        # Pictures and sounds are decoded on access, by packages that nothing else here needs.
        decoded = [n for n, feature in split.features.items() if type(feature).__name__ in ("Image", "Audio", "Video")]
        self.split = split.remove_columns(decoded)
        self._labels = {
            name: feature.names for name, feature in split.features.items() if type(feature).__name__ == "ClassLabel"
        }

    @cached_property
    def sha256(self) -> str | None:
        files = [Path(file["filename"]) for file in self.split.cache_files]
        if files and self.split._indices is None:
            return fingerprint(*map(digest, files))
        made = hashlib.sha256()
        for row in self.split:
            made.update(repr(row).encode("utf-8", "surrogatepass"))
        return made.hexdigest()

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, position: Any) -> Any:
        position = range(len(self))[position]
        with _readable(lambda: self.place(position), "data set"):
            row = {name: plain(value) for name, value in self.split[position].items()}
        for name, labels in self._labels.items():
            if isinstance(row[name], int):
                row[name] = labels[row[name]] if 0 <= row[name] < len(labels) else None  # -1: without a label
        return row

    def place(self, position: int) -> str:
        return f"{self.source}, row {position + 1}"


def plain(value: Any) -> Any:
    """A cell of an Arrow table as JSON would hold it; not a number, which stands for nothing in tables, is None."""
    if isinstance(value, float):
        return None if math.isnan(value) else int(value) if value.is_integer() else value
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return without_surrogates(value)


def read_saved(folder: Path) -> dict[str, Table]:
    """The splits of a folder that ``datasets`` wrote with ``save_to_disk``; a data set without splits is named "".

    Raises:
        InputError: it is damaged.
    """
    import datasets  # slow imports
    import pyarrow

    try:
        loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(f"{shown(folder)}: damaged, or not by save_to_disk ({reason}); save it anew") from error
    splits = loaded if isinstance(loaded, datasets.DatasetDict) else {"": loaded}
    return {name: HubSplit(folder, f"{shown(folder)} {name}".strip(), rows) for name, rows in splits.items()}


def read_hub_id(name: str, subset: str | None) -> dict[str, Table]:
    """The splits of a data set of the Hugging Face hub, or of a folder in the hub's format.

    Args:
        name: OWNER/NAME, OWNER/NAME@REVISION or a folder.
        subset: the configuration, where it has several.

    Raises:
        InputError: it cannot be had.
    """
    import datasets  # slow imports
    import pyarrow
    from datasets.exceptions import DatasetsError

    source, _, revision = (name, "", "") if os.path.exists(name) else name.partition("@")
    try:
        loaded = datasets.load_dataset(source, subset, revision=revision or None)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, DatasetsError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        is_here = os.path.exists(name)
        what = "cannot be read as a data set in the hub's format" if is_here else "neither here nor on the hub"
        raise InputError(
            f"data.dir={shown(Path(name))}: {what} ({reason}); data.subset names one of several configurations"
        ) from error
    return {split: HubSplit(Path(source), f"{name} {split}", rows) for split, rows in loaded.items()}


SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval"),
    "test": ("test", "testing"),
}


def split_of(name: str) -> str | None:
    """Our name of the split that a file or a part of a data set is named by, or None."""
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), None)

"""JSON Lines files: written, read in one pass, or read by row number from files larger than the memory.

A process that is killed while it appends leaves a torn last line. ``read_rows`` and ``JsonLines(may_be_torn=True)``
leave that line out, and ``cut_torn_line`` removes it from the file.
"""

import array
import gzip
import hashlib
import json
import mmap
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, overload

import orjson

from kpod_lightning.store.errors import InputError


def save_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def load_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _parsed(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}:{number}: truncated or damaged ({error}); fetch the file anew") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{number}: broken JSON ({error.msg}); mend the line or fetch the file anew") from error
    if not isinstance(row, dict):
        raise InputError(f"{path}:{number}: a line holds one JSON object, not {type(row).__name__}")
    return row


def _is_torn(line: bytes) -> bool:
    """Whether a line lacks its newline and is not JSON without it. A prefix of a JSON object never is JSON."""
    if line.endswith(b"\n"):
        return False
    try:
        json.loads(line.decode("utf-8"))
    except ValueError:  # UnicodeDecodeError or JSONDecodeError
        return True
    return False


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a file that this project wrote, in one pass and without a torn last line. No row is held.

    Raises:
        InputError: a line is not UTF-8, or not one JSON object. Names file and line.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if _is_torn(line):
                return
            try:
                # Three times as fast; not for the files of others, as it rounds whole numbers beyond 64 bits.
                row = orjson.loads(line)
            except orjson.JSONDecodeError:
                row = None
            yield row if isinstance(row, dict) else _parsed(line, path, number)


def cut_torn_line(path: Path) -> None:
    """Remove a last line without a newline, so that rows can be appended; the rest stays byte for byte.

    A row that lacks only its newline is removed too: its writer was killed before it knew that the row was on disk. A
    file that does not exist stays so.
    """
    if not path.is_file():
        return
    with path.open("r+b") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)
            os.fsync(file.fileno())


class JsonLines(Sequence[dict[str, Any]]):
    """Rows of a file by row number, parsed on access; memory holds the offset of each line's end, 8 bytes a row.

    Args:
        path: the file; if it does not exist and ``path`` + ``.gz`` does, that is unpacked into a temporary file.
        digest: compute ``sha256`` of the unpacked bytes.
        may_be_torn: leave out a last line that a killed process left torn.

    Raises:
        InputError: the file is missing or truncated; on access to a row: it is not UTF-8, or not one JSON object.
            Names file and line.
    """

    def __init__(self, path: Path, *, digest: bool = False, may_be_torn: bool = False) -> None:
        packed = path.with_name(path.name + ".gz")
        self.path = path if path.is_file() or not packed.is_file() else packed
        if not self.path.is_file():
            raise InputError(f"{path}: no such file (nor {packed.name}); check data.dir and rationales.teacher")
        self._ends = array.array("q")
        sha256 = hashlib.sha256()
        is_packed = self.path.suffix == ".gz"
        with tempfile.TemporaryFile() if is_packed else self.path.open("rb") as file:
            if is_packed:
                self._unpack(file)
            place = 0
            for line in file:
                if may_be_torn and _is_torn(line):
                    break
                place += len(line)
                self._ends.append(place)
                if digest:
                    sha256.update(line)
            # An empty file cannot be mapped.
            self._bytes: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if place else b""
        self.sha256 = sha256.hexdigest() if digest else None

    def _unpack(self, file: IO[bytes]) -> None:
        number = 1
        try:
            with gzip.open(self.path, "rb") as packed:
                for line in packed:
                    file.write(line)
                    number += 1
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{self.path}:{number}: truncated or damaged ({error}); fetch the file anew") from error
        file.seek(0)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, position: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, position: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, position: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        i = range(len(self))[position]
        return _parsed(self._bytes[self._ends[i - 1] if i else 0 : self._ends[i]], self.path, i + 1)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

"""JSON Lines files: written, read in one pass, or read by row number from files larger than the memory.

A process that is killed while it appends leaves a torn last line. ``read_rows`` and ``JsonLines(may_be_torn=True)``
leave that line out, and ``cut_torn_line`` removes it from the file.
"""

import array
import bisect
import gzip
import hashlib
import json
import mmap
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, overload

import orjson

from kpod_lightning.store.errors import InputError
from kpod_lightning.store.reading import DEEPEST, kind_of, opened, parsed, shown, without_surrogates


def save_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


BOM = b"\xef\xbb\xbf"

LARGEST_WHOLE = 2.0**63


def _is_rounded(values: Iterable[Any]) -> bool:
    """Whether one of the values may be a whole number that orjson has rounded: it reads those beyond 64 bits so."""
    for value in values:
        kind = type(value)
        if kind is float:
            if not -LARGEST_WHOLE < value < LARGEST_WHOLE:
                return True
        elif (kind is list or kind is dict) and _is_rounded(value.values() if kind is dict else value):
            return True
    return False


def _is_blank(line: bytes) -> bool:
    return line.isspace() or line.strip() == BOM


def row_of(line: bytes, place: Callable[[], str], *, finite: bool = True) -> dict[str, Any]:
    """The JSON object of one line.

    Args:
        line: with or without its newline.
        place: file and line, for messages.
        finite: false reads NaN and Infinity, which Python writes and JSON does not know.

    Raises:
        InputError: as ``reading.parsed``; or it is JSON of another kind.
    """
    row = None
    # orjson is three times as fast and as strict, but for nesting and for whole numbers beyond 64 bits.
    if line.count(b"[") + line.count(b"{") <= DEEPEST:
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            row = None  # the readers below mend the line or find the words for it
    if row is None or (isinstance(row, dict) and _is_rounded(row.values())):
        line = line.strip()
        row = parsed(line, place()) if finite else _with_infinities(line, place)
    if not isinstance(row, dict):
        raise InputError(f"{place()}: a line holds one JSON object, not a {kind_of(row)}")
    return row


def _with_infinities(line: bytes, place: Callable[[], str]) -> Any:
    try:
        return without_surrogates(json.loads(line.decode("utf-8")))
    except (ValueError, RecursionError):
        return parsed(line, place())


def load_jsonl(path: Path) -> list[dict[str, Any]]:
    """Rows of an artefact of a run, which is written whole or not at all.

    Raises:
        InputError: it is missing or damaged; says how to make it again.
    """
    try:
        with opened(path) as file:
            return [
                row_of(line, f"{shown(path)}:{number}".__str__, finite=False)
                for number, line in enumerate(file, start=1)
                if not _is_blank(line)
            ]
    except InputError as error:
        raise InputError(
            f"{error}; if a run wrote it, remove it and repeat the command, which makes it again"
        ) from error


def _is_torn(line: bytes) -> bool:
    """Whether a line lacks its newline and is not JSON without it. A prefix of a JSON object never is JSON."""
    if line.endswith(b"\n"):
        return False
    try:
        json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):  # ValueError: UnicodeDecodeError or JSONDecodeError
        return True
    return False


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a file that this project wrote, in one pass and without a torn last line. No row is held.

    Blank lines hold no row.

    Raises:
        InputError: a line is not UTF-8, or not one JSON object. Names file and line.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if _is_blank(line):
                continue
            if _is_torn(line):
                return
            yield row_of(line, f"{shown(path)}:{number}".__str__, finite=False)


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
    """Rows of a file by row number, parsed on access; memory holds the offset of each row's end, 8 bytes a row.

    Blank lines hold no row, and a byte order mark at the start is dropped.

    Args:
        path: the file; if it does not exist and ``path`` + ``.gz`` does, that is unpacked into a temporary file.
        digest: compute ``sha256`` of the unpacked bytes.
        may_be_torn: leave out a last line that a killed process left torn.
        named_by: the settings that name the file, for the message where there is none.

    Raises:
        InputError: the file is missing or truncated; on access to a row: it is not UTF-8, or not one JSON object.
            Names file and line.
    """

    def __init__(
        self,
        path: Path,
        *,
        digest: bool = False,
        may_be_torn: bool = False,
        named_by: str = "data.dir and rationales.teacher",
    ) -> None:
        packed = Path(f"{path}.gz")
        self.path = packed if not os.path.lexists(path) and os.path.lexists(packed) else path
        if not os.path.lexists(self.path):
            raise InputError(f"{shown(path)}: no such file (nor {shown(packed)}); check {named_by}")
        self._shown = shown(self.path)
        self._ends = array.array("q")
        self._blanks = array.array("q")
        """Of each blank line the number of rows before it."""
        sha256 = hashlib.sha256()
        with self._plain() as file:
            end = 0
            for line in file:
                if may_be_torn and _is_torn(line):
                    break
                end += len(line)
                if digest:
                    sha256.update(line)
                if _is_blank(line):
                    self._blanks.append(len(self._ends))
                else:
                    self._ends.append(end)
            # An empty file cannot be mapped.
            self._bytes: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if end else b""
        self.sha256 = sha256.hexdigest() if digest else None

    @contextmanager
    def _plain(self) -> Iterator[IO[bytes]]:
        """The file, or what it unpacks to, open for reading."""
        if self.path.suffix != ".gz":
            with opened(self.path) as file:
                yield file
            return
        with opened(self.path) as file, tempfile.TemporaryFile() as unpacked:
            self._unpack(file, unpacked)
            yield unpacked

    def _unpack(self, file: IO[bytes], unpacked: IO[bytes]) -> None:
        number = 1
        try:
            with gzip.open(file, "rb") as lines:
                for line in lines:
                    unpacked.write(line)
                    number += 1
            unpacked.seek(0)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(
                f"{shown(self.path)}:{number}: truncated or damaged ({error}); fetch the file anew"
            ) from error
        except OSError as error:
            raise InputError(
                f"{shown(self.path)}: cannot be unpacked to {tempfile.gettempdir()} ({error.strerror or error}); "
                "free space there, or set TMPDIR to another folder"
            ) from error

    def place(self, position: int) -> str:
        """File and line of a row, counted from 1."""
        position = range(len(self))[position]
        return f"{self._shown}:{position + 1 + bisect.bisect_right(self._blanks, position)}"

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
        # Blank lines before a row are read with it, which JSON allows.
        return row_of(self._bytes[self._ends[i - 1] if i else 0 : self._ends[i]], lambda: self.place(i))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

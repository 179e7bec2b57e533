"""Reads the log that W&B writes offline: which rows of a run reached the disk.

W&B has no reader for it. The process that writes the log buffers it for up to 15 s, so a killed run loses rows that
were already handed to W&B: only the log tells what a resumed run must send again.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE_HEADER = 7
"""Bytes before the first block's first chunk: ":W&B", a magic number and a version."""

BLOCK = 32768
"""Bytes of a block of LevelDB's log format. No chunk crosses a block's end, a record may."""

CHUNK = struct.Struct("<IHB")
"""Header of a chunk: checksum, number of bytes that follow, kind."""

PADDING, WHOLE, LAST = 0, 1, 4
"""Kinds of chunk; the others are a record's first and middle chunks."""


def offline_rows(folder: Path, run_id: str) -> Iterator[dict[str, Any]]:
    """History rows in all offline folders of a W&B run, oldest folder first.

    A picture or table is cut down to one of its fields; its key is there.

    Args:
        folder: the run folder, with ``wandb/`` in it.
        run_id: id of the W&B run.
    """
    for path in sorted(folder.glob(f"wandb/offline-run-*/run-{run_id}.wandb")):
        yield from rows(path.read_bytes())


def rows(log: bytes) -> Iterator[dict[str, Any]]:
    """History rows of one log, up to the first record that cannot be read: a repeated row is better than a gap."""
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    for record in records(log):
        try:
            history = Record.FromString(record).history
        except DecodeError:
            return
        if history.item:
            yield {item.key or item.nested_key[0]: json.loads(item.value_json) for item in history.item}


def records(log: bytes) -> Iterator[bytes]:
    """Serialised records of one log, up to a torn end."""
    position, record = FILE_HEADER, b""
    while position + CHUNK.size <= len(log):
        left = BLOCK - position % BLOCK
        if left < CHUNK.size:
            position += left  # the rest of a block is padding if it cannot hold a header
            continue
        _, size, kind = CHUNK.unpack_from(log, position)
        position += CHUNK.size
        if kind == PADDING or position + size > len(log):
            return
        record += log[position : position + size]
        position += size
        if kind in (WHOLE, LAST):
            yield record
            record = b""

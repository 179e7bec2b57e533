"""Reads what W&B wrote offline: every record of the log ``run-ID.wandb``, with its checksum, and of a run the whole.

The log has LevelDB's format: blocks of 32 KiB, in each chunks with a CRC-32 (the plain one), a length
and a kind; a record is one whole chunk or a first, middle ones and a last.
"""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32768
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def chunks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and content of every chunk, until the log ends or is torn."""
    assert data[:4] == b":W&B", "no W&B log"
    for start in range(0, len(data), BLOCK):
        position, end = start + (7 if start == 0 else 0), min(start + BLOCK, len(data))
        while end - position >= 7:
            checksum = int.from_bytes(data[position : position + 4], "little")
            size, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
            if kind == 0:
                break  # padding
            position += 7 + size
            if position > end:
                return  # torn
            content = data[position - size : position]
            assert checksum == zlib.crc32(bytes([kind]) + content), "checksum"
            yield kind, content


def records(path: Path) -> Iterator[Any]:
    parts: list[bytes] = []
    for kind, content in chunks(path.read_bytes()):
        if kind in (WHOLE, FIRST):
            parts = []
        parts.append(content)
        if kind in (WHOLE, LAST):
            yield Record.FromString(b"".join(parts))


def put(mapping: dict[str, Any], items: Any) -> None:
    for item in items:
        inner = mapping
        *path, name = item.nested_key or [item.key]
        for key in path:
            inner = inner.setdefault(key, {})
        inner[name] = json.loads(item.value_json)


@dataclass
class OfflineRun:
    """What one or more offline folders of a W&B run hold, merged in the order of their start."""

    ids: list[str] = field(default_factory=list)
    name: str = ""
    group: str = ""
    project: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    exit_codes: list[int] = field(default_factory=list)

    def steps(self, name: str) -> list[int]:
        """``trainer/global_step`` of the rows that have a metric."""
        return [row["trainer/global_step"] for row in self.history if name in row]


def read(folder: Path) -> OfflineRun:
    """The W&B run of a run folder, from all of its offline folders."""
    found = OfflineRun()
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run = record.run
                found.ids.append(run.run_id)
                found.name, found.group, found.project = run.display_name, run.run_group, run.project
                found.tags = list(run.tags)
                put(found.config, run.config.update)
            elif kind == "config":
                put(found.config, record.config.update)
            elif kind == "summary":
                put(found.summary, record.summary.update)
            elif kind == "history":
                row: dict[str, Any] = {}
                put(row, record.history.item)
                found.history.append(row)
            elif kind == "metric":
                found.metrics[record.metric.name] = record.metric
            elif kind == "artifact":
                found.artifacts[record.artifact.name] = record.artifact.type
            elif kind == "exit":
                found.exit_codes.append(record.exit.exit_code)
    return found


def table(run_folder: Path, value: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of a table that a history row names."""
    (path,) = run_folder.glob(f"wandb/offline-run-*/files/{value['path']}")
    made = json.loads(path.read_text())
    return [dict(zip(made["columns"], row, strict=True)) for row in made["data"]]

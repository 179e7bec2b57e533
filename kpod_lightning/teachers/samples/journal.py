"""Which batches of a file of samples the provider has: ``FILE.batches.jsonl`` beside ``FILE.jsonl``."""

import json
import os
import time
from pathlib import Path
from typing import Any

from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import JsonLines, cut_torn_line
from kpod_lightning.store.records import text_of, whole_number


class Journal:
    """The batches of a file of samples that are not over, by token: their attempts, and when they were made.

    A line of ``begin`` has ``batch`` (the token), ``made`` (seconds since 1970) and ``attempts`` (the name of each
    sample's attempt, by the sample's key); a line of ``end`` has ``batch`` and ``status``.

    Raises:
        InputError: a damaged line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        cut_torn_line(path)
        self.open: dict[str, dict[str, Any]] = {}
        for number, line in enumerate(JsonLines(path) if path.is_file() else (), start=1):
            token = text_of(line, "batch", f"{path}:{number}")
            if "attempts" not in line:
                self.open.pop(token, None)
                continue
            if not isinstance(line["attempts"], dict):
                raise InputError(f"{path}:{number}: attempts is an object of names by key; restore the file")
            whole_number(line, "made", f"{path}:{number}")
            self.open[token] = line

    def begin(self, token: str, attempts: dict[str, str]) -> None:
        """Write that a batch is about to be made. The line is on disk when this returns."""
        self._append({"batch": token, "made": int(time.time()), "attempts": attempts})

    def end(self, token: str, status: str) -> None:
        """Write that a batch is over, or was never made."""
        self._append({"batch": token, "status": status})

    def _append(self, line: dict[str, Any]) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(f"{self.path}: {error.strerror}; free space or permissions there, then repeat") from error

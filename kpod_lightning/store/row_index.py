"""Index of the rows of a file by problem id, for files whose rows do not fit in memory."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]


def _name(row: Row) -> str:
    name = row["problem_id"]
    return name if isinstance(name, str) else str(name)


class RowIndex:
    """Positions of rows by the hash of their ``problem_id``, 16 bytes a row.

    Hashes collide, so ``group`` and ``repeated`` compare the ids themselves, which they read from the rows.

    Args:
        rows: with a field ``problem_id``, by position.
        names: the ``problem_id`` of each row in order; apart from ``rows``, so that one pass can check the rows too.
    """

    def __init__(self, rows: Sequence[Row], names: Iterable[str]) -> None:
        hashes = np.fromiter(map(hash, names), np.int64)
        self.rows = rows
        self._order = np.argsort(hashes, kind="stable")  # rows of one hash stay in the order of the file
        self._sorted = hashes[self._order]

    def group(self, name: str) -> list[tuple[int, Row]]:
        """Position and row of every row of a problem, in the order of the file."""
        start, end = (np.searchsorted(self._sorted, hash(name), side) for side in ("left", "right"))
        found = ((i, self.rows[i]) for i in self._order[start:end].tolist())
        return [(i, row) for i, row in found if _name(row) == name]

    def unknown(self, names: Iterable[str]) -> int | None:
        """Position of the first of the ``strangers``, or None."""
        positions = self.strangers(names)
        return int(positions[0]) if len(positions) else None

    def strangers(self, names: Iterable[str]) -> np.ndarray:
        """[M] rising positions of the rows whose problem is none of ``names``.

        By hash alone: a row of an unknown problem whose hash a known one has is not told, and is in no known group.
        """
        known = np.fromiter(map(hash, names), np.int64)
        return np.sort(self._order[~np.isin(self._sorted, known)])

    def repeated(self, samples: np.ndarray) -> tuple[int, int] | None:
        """Positions of the first row that has problem and sample of an earlier one: earlier, later; or None.

        Args:
            samples: [N] index of each row's sample.
        """
        by_sample = np.lexsort((samples[self._order], self._sorted))
        hashes, numbers = self._sorted[by_sample], samples[self._order[by_sample]]
        same = (hashes[1:] == hashes[:-1]) & (numbers[1:] == numbers[:-1])
        for later in np.sort(self._order[by_sample[1:][same]]).tolist():
            for earlier, _ in self.group(_name(self.rows[later])):
                if earlier < later and samples[earlier] == samples[later]:
                    return earlier, later
        return None

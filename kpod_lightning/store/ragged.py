"""Rows of unequal length in one flat array, which may lie on disk: e.g. one number a token, for millions of tokens."""

import array
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np


class Ragged(Sequence[np.ndarray]):
    """Row i is ``values[ends[i - 1] : ends[i]]``.

    Args:
        values: [sum of lengths] or [sum of lengths, d]: an array, or an object that gives one when sliced.
        ends: [N] end of each row in ``values``.
    """

    def __init__(self, values: Any, ends: np.ndarray) -> None:
        self.values, self.ends = values, ends

    @classmethod
    def stored(cls, rows: Iterable[np.ndarray], dtype: Any) -> "Ragged":
        """Rows [n] or [n, d] in a temporary file, mapped into memory. The file is deleted with the object."""
        ends, place = array.array("q"), 0
        tail: tuple[int, ...] = ()
        with tempfile.TemporaryFile() as file:
            for row in rows:
                packed = np.ascontiguousarray(row, dtype)
                file.write(packed.tobytes())
                place, tail = place + len(packed), packed.shape[1:]
                ends.append(place)
            file.flush()
            shape = (place, *tail)
            values = np.memmap(file, dtype, mode="r", shape=shape) if place else np.zeros(shape, dtype)
        return cls(values, np.array(ends, np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, position: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, position: slice) -> list[np.ndarray]: ...
    def __getitem__(self, position: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        i = range(len(self))[position]
        return self.values[int(self.ends[i - 1]) if i else 0 : int(self.ends[i])]

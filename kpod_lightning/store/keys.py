"""Keys of rationales (problem id and sample), and the keys of millions of them in a few flat arrays."""

import array
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np

Key = tuple[str, int]
"""Names a rationale: the id of its problem, and the index of the sample."""


def repeated(hashes: np.ndarray) -> np.ndarray:
    """Pairs [M, 2] of positions: each repeated hash with its previous occurrence, sorted by the later position."""
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    pairs = np.stack([order[same], order[same + 1]], axis=1)
    return pairs[np.argsort(pairs[:, 1])]


class Positions:
    """Index from a name's hash to its positions, 16 bytes an entry. Hashes collide: the caller must compare names."""

    def __init__(self, names: Iterable[Any]) -> None:
        hashes = np.fromiter(map(hash, names), np.int64)
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]

    def first(self, hashes: np.ndarray) -> np.ndarray:
        """[M] first position of each of [M] hashes, or -1."""
        if not len(self._sorted):
            return np.full(len(hashes), -1)
        place = np.minimum(np.searchsorted(self._sorted, hashes), len(self._sorted) - 1)
        return np.where(self._sorted[place] == hashes, self._order[place], -1)

    def of(self, name: Any) -> list[int]:
        """Positions of all entries with the name's hash, in ascending order."""
        left, right = (np.searchsorted(self._sorted, hash(name), side) for side in ("left", "right"))
        return [int(i) for i in self._order[left:right]]


class Keys(Sequence[Key]):
    """Keys in flat arrays.

    Args:
        ids: [B] bytes of all problem ids, one after the other, UTF-8.
        ends: [N] end of each key's id in ``ids``.
        samples: [N] index of each key's sample.

    Raises:
        ValueError: the arrays do not fit together.
    """

    def __init__(self, ids: np.ndarray, ends: np.ndarray, samples: np.ndarray) -> None:
        self.ids, self.ends, self.samples = ids, ends, samples
        if ids.dtype != np.uint8 or len(ends) != len(samples) or (len(ends) and ends[-1] != len(ids)):
            raise ValueError(f"{len(ids)} bytes of ids, {len(ends)} ends, {len(samples)} samples do not fit together")

    @classmethod
    def of(cls, keys: Iterable[Key]) -> "Keys":
        ids, ends, samples = bytearray(), array.array("q"), array.array("q")
        for name, sample in keys:
            ids += name.encode("utf-8")
            ends.append(len(ids))
            samples.append(sample)
        return cls(np.frombuffer(bytes(ids), np.uint8), np.array(ends, np.int64), np.array(samples, np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, position: int) -> Key: ...
    @overload
    def __getitem__(self, position: slice) -> list[Key]: ...
    def __getitem__(self, position: int | slice) -> Key | list[Key]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        i = range(len(self))[position]
        name = self.ids[self.ends[i - 1] if i else 0 : self.ends[i]]
        return name.tobytes().decode("utf-8"), int(self.samples[i])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Keys):
            return isinstance(other, Sequence) and list(self) == list(other)
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in ("ids", "ends", "samples"))

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def _positions(self) -> Positions:
        return Positions(self)

    def find(self, key: Key, near: int = 0) -> int | None:
        """Position of a key, or None; position ``near`` is tried first."""
        for i in [near] if near < len(self) else []:
            if self[i] == key:
                return i
        return next((i for i in self._positions.of(key) if self[i] == key), None)

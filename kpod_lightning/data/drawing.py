"""Draws among the rationales of each question, which follow from seed, epoch and question alone.

The generator of such a draw is a hash of the three, for all questions at once. So neither other questions, nor ranks,
nor a resume change what is drawn, and a million questions take no second.
"""

import hashlib
from collections.abc import Iterable

import numpy as np

from kpod_lightning.store.keys import Key


def mixed(values: np.ndarray) -> np.ndarray:
    """[N] of uint64: the finaliser of SplitMix64 (Steele et al., 2014), in which every bit depends on every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class Questions:
    """The questions of a train set, each with the positions of its examples, which stand together.

    ``starts``: [Q + 1] first position of each question. ``sizes``: [Q] examples of each. ``names``: [Q] their ids.

    Args:
        keys: of the examples.
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        self.names: list[str] = []
        starts = []
        position = -1
        for position, (name, _) in enumerate(keys):
            if not self.names or self.names[-1] != name:
                self.names.append(name)
                starts.append(position)
        self.starts = np.array([*starts, position + 1])
        digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in self.names)
        self._codes = np.frombuffer(b"".join(digests), np.uint64)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def sizes(self) -> np.ndarray:
        return np.diff(self.starts)

    def fractions(self, *place: int) -> np.ndarray:
        """[Q] a number in [0, 1) for each question.

        Args:
            place: what it depends on beside the question, e.g. seed and epoch.
        """
        state = self._codes
        for number in place:
            state = mixed(state + np.uint64((number + 1) * 0x9E3779B97F4A7C15 % 2**64))
        return (state >> np.uint64(11)) * 2.0**-53

    def one(self, seed: int, epoch: int) -> np.ndarray:
        """[Q] position of an example of each question, each of them equally likely."""
        return self.starts[:-1] + (self.fractions(seed, epoch, 0) * self.sizes).astype(np.int64)

    def two(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """[Q], [Q] positions of two different examples of each question, each ordered pair equally likely.

        Of a question with one example it is that one twice.
        """
        others = np.maximum(self.sizes - 1, 1)
        first = (self.fractions(seed, epoch, 0) * self.sizes).astype(np.int64)
        second = (self.fractions(seed, epoch, 1) * others).astype(np.int64)
        second += (second >= first) & (self.sizes > 1)
        return self.starts[:-1] + first, self.starts[:-1] + second


def texts_of_rationales(sources: np.ndarray) -> list[tuple[int, ...]]:
    """Positions of the texts that are made of each rationale, which stand together.

    Args:
        sources: [N] the rationale of each text, ascending.
    """
    ends = np.flatnonzero(np.diff(sources, append=-1)) + 1
    return [tuple(range(start, end)) for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)]

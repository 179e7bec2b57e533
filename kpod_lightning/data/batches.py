"""Which examples meet in a batch: the global order from (seed, epoch), and the slice of each rank and micro-batch.

The order of a whole epoch follows from (seed, epoch) alone; ranks and micro-batches slice it. So neither the number
of ranks nor of loader workers, nor a resume in the middle of an epoch, changes a batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

import lightning as L
import numpy as np
import torch

from kpod_lightning.store.errors import InputError


class WholeBatch(NamedTuple):
    """What every micro-batch knows of the global batch that it is part of.

    Args:
        divisor: what the summed loss is divided by.
        num_asked: its targets.
        num_examples: its examples.
        mass_of_kind: sum of the weights of the targets of each kind; {} where the train set has one kind alone.
    """

    divisor: float
    num_asked: int
    num_examples: int
    mass_of_kind: Mapping[int, float]


class MicroBatch(NamedTuple):
    """Which examples one forward pass takes.

    Args:
        positions: of the examples.
        whole: the global batch.
        stage: of the curriculum.
    """

    positions: tuple[int, ...]
    whole: WholeBatch
    stage: int = 0
    epoch: int = 0


GROUP_SIZE = 16
"""Batches that are sorted by length together: enough to save most of the padding, few enough to stay mixed."""


def global_batches(
    num_examples: int,
    batch_size: int,
    seed: int,
    epoch: int,
    lengths: np.ndarray | None = None,
    kinds: np.ndarray | None = None,
) -> list[np.ndarray]:
    """The epoch's global batches, every example once, sizes as even as they get.

    An even cut leaves no small last batch, whose few examples would weigh more than the others.

    Args:
        num_examples: size of the train set.
        batch_size: largest global batch.
        seed: with ``epoch``, all that the order depends on.
        epoch: counted from 0.
        lengths: [num_examples] tokens; if given, examples are sorted by length within groups of ``GROUP_SIZE``
            batches, and the batches then come in random order.
        kinds: [num_examples]; if given, only examples of one kind meet, and the batches come in random order; a
            single kind changes nothing.
    """
    rng = np.random.default_rng([seed, epoch])
    if kinds is not None and len(np.unique(kinds)) > 1:
        apart = []
        for kind in np.unique(kinds):
            of_kind = np.flatnonzero(kinds == kind)
            few = None if lengths is None else lengths[of_kind]
            cut = global_batches(len(of_kind), batch_size, seed, epoch, few)
            apart += [of_kind[batch] for batch in cut]
        return [apart[i] for i in rng.permutation(len(apart))]
    order = rng.permutation(num_examples)
    num_batches = -(-num_examples // batch_size)
    if lengths is None:
        return np.array_split(order, num_batches)
    groups = np.array_split(order, -(-num_batches // GROUP_SIZE))
    by_length = np.concatenate([group[np.argsort(lengths[group], kind="stable")] for group in groups])
    batches = np.array_split(by_length, num_batches)
    return [batches[i] for i in rng.permutation(num_batches)]


def num_global_batches(num_examples: int, batch_size: int, kinds: np.ndarray | None = None) -> int:
    """How many ``global_batches`` makes of an epoch."""
    sizes = [num_examples] if kinds is None else np.unique(kinds, return_counts=True)[1].tolist()
    return sum(-(-size // batch_size) for size in sizes)


def batches_by_length(
    lengths: Sequence[int] | np.ndarray, batch_size: int, *, longest_first: bool = False
) -> list[np.ndarray]:
    """Positions sorted by length and cut into batches: the least padding, for passes whose order is free.

    Args:
        lengths: [N] tokens.
        batch_size: largest batch.
        longest_first: for generation, whose memory grows with the prompt: it runs out in the first batch or in none.
            Then all batches but the last are full; else their sizes are as even as they get.
    """
    lengths = np.asarray(lengths)
    if longest_first:
        order = np.argsort(-lengths, kind="stable")
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    order = np.argsort(lengths, kind="stable")
    return np.array_split(order, -(-len(order) // batch_size))


def batches_done(trainer: L.Trainer, num_batches: int) -> int:
    """Micro-batches of the current epoch that this rank has done: more than 0 only after a resume inside an epoch.

    Call it while the loader is built: Lightning has restored its count by then. At the start of an epoch the count is
    still that of the finished one, ``num_batches``, which means 0.
    """
    done = int(trainer.fit_loop.epoch_loop.batch_progress.current.ready)
    return done if done < num_batches else 0


def seed_batch(*place: int) -> None:
    """Make dropout and sampling depend on the place in a training alone, so that a resumed run draws the same."""
    torch.manual_seed(hash(place) % 2**63)  # the hash of a tuple of integers is the same in every process


def parts_of(lengths: np.ndarray, num_micro_batches: int, num_ranks: int, *, packed: bool) -> list[np.ndarray]:
    """Cut a global batch into micro-batches by length, so that ranks are busy equally long and little is padded.

    Padded, examples of like length go into one micro-batch, and neighbours to the ranks at the same time. Packed, no
    padding can be saved, and each part gets as many tokens as the others: the longest are dealt first, to and fro.

    Args:
        lengths: [n] tokens of the examples.

    Returns:
        Positions in ``lengths``: the micro-batches of the first rank, then those of the second, ... Of one part alone
        they keep their order.
    """
    num_parts = num_micro_batches * num_ranks
    if num_parts == 1:
        return [np.arange(len(lengths))]
    if packed:
        longest_first = np.argsort(-lengths, kind="stable")
        to_and_fro = [*range(num_parts), *reversed(range(num_parts))]
        part = np.resize(to_and_fro, len(lengths))
        return [longest_first[part == i] for i in range(num_parts)]
    chunks = np.array_split(np.argsort(lengths, kind="stable"), num_parts)
    return [chunks[i * num_ranks + rank] for rank in range(num_ranks) for i in range(num_micro_batches)]


def positions_of(batch: np.ndarray, groups: Sequence[tuple[int, ...]] | None) -> tuple[int, ...]:
    """Positions of the examples of a batch of groups; None: each example is a group."""
    if groups is None:
        return tuple(batch.tolist())
    return tuple(position for group in batch.tolist() for position in groups[group])


class MicroBatches(Sequence[MicroBatch]):
    """A rank's share of every global batch: ``accumulate`` consecutive micro-batches, made when they are asked for.

    Args:
        batches: the epoch's global ones: positions of groups.
        lengths: tokens of each group.
        whole: of a global batch, from the positions of its examples and its stage.
        stages: of the curriculum, of each global batch; None: 0.
        groups: positions of the examples of each group, which are never cut apart; None: each example by itself.
        packed: whether examples lie end to end.

    Raises:
        InputError: a global batch is smaller than the number of parts that it is to be cut into.
    """

    def __init__(
        self,
        batches: Sequence[np.ndarray],
        lengths: np.ndarray,
        whole: Callable[[Sequence[int], int], WholeBatch],
        *,
        accumulate: int,
        rank: int,
        world_size: int,
        stages: Sequence[int] | None = None,
        epoch: int = 0,
        groups: Sequence[tuple[int, ...]] | None = None,
        packed: bool = False,
    ) -> None:
        self.batches, self.lengths, self.accumulate = batches, lengths, accumulate
        self.whole = whole
        self.stages = [0] * len(batches) if stages is None else stages
        self.epoch, self.groups, self.packed = epoch, groups, packed
        self.rank, self.world_size = rank, world_size
        smallest = min(map(len, batches))
        if smallest < accumulate * world_size:
            raise InputError(
                f"a global batch of {smallest} cannot be cut into {accumulate * world_size} parts: "
                "lower the accumulation or raise optim.batch_size or the number of examples"
            )

    def __len__(self) -> int:
        return len(self.batches) * self.accumulate

    @overload
    def __getitem__(self, position: int) -> MicroBatch: ...
    @overload
    def __getitem__(self, position: slice) -> list[MicroBatch]: ...
    def __getitem__(self, position: int | slice) -> MicroBatch | list[MicroBatch]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        which, part = divmod(range(len(self))[position], self.accumulate)
        batch = self.batches[which]
        parts = parts_of(self.lengths[batch], self.accumulate, self.world_size, packed=self.packed)
        share = positions_of(batch[parts[self.rank * self.accumulate + part]], self.groups)
        stage = self.stages[which]
        return MicroBatch(share, self.whole(positions_of(batch, self.groups), stage), stage, self.epoch)


class FromStart:
    """Samples this rank's batches of one epoch from ``start`` on; ``len`` is the whole epoch's, as Lightning counts."""

    def __init__(self, batches: Sequence[Any], start: int = 0) -> None:
        self.batches = batches
        self.start = start

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return (self.batches[i] for i in range(self.start, len(self.batches)))

"""From the table of a weighting to the weights of the loss, Eq. (15): what ``weights.*`` does to every table alike."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np

from kpod_lightning.config import RunConfig
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.ragged import Ragged

if TYPE_CHECKING:
    from kpod_lightning.data.examples import Example


def loss_weights(
    config: RunConfig, table: Iterable[np.ndarray], examples: "Sequence[Example]", *, with_answers: bool = False
) -> Ragged:
    """Weights of the loss from those of a table: shuffled, raised to the floor, rescaled, answers weighed, as asked.

    Args:
        table: [len(target_ids)] of each example, the rationale's tokens first; it is read once.
        with_answers: the table says what answer phrase and EOS weigh, so that rescaling keeps their ratio to the
            rationale. Otherwise they stay as they are, which is 1.

    Returns:
        [len(target_ids)] of each example.

    Raises:
        InputError: all weights are 0.
    """
    use, floor = config.weights, config.weights.floor
    table = Ragged.stored(table, np.float64)
    sizes = [example.num_rationale_tokens for example in examples]
    rows: Iterable[np.ndarray] = (row[:size] for row, size in zip(table, sizes, strict=True))
    answers: Iterable[np.ndarray] = (row[size:] for row, size in zip(table, sizes, strict=True))
    if use.permuted:
        rows = permuted(rows, config.seed)
    raised = rows = Ragged.stored((floor + (1 - floor) * row for row in rows), np.float64)
    if use.rescale == "mean" and not with_answers:
        rows = rescaled(raised)
    made = Ragged.stored(map(np.append, rows, answers), np.float64)
    if use.rescale == "mean" and with_answers:
        made = Ragged.stored(rescaled(made), np.float64)
    if use.answer_weight != 1:
        made = Ragged.stored(map(with_answer_weight, made, sizes, repeat(use.answer_weight)), np.float64)
    if not made.values.any():
        raise InputError(f"weights.kind={use.kind}: all weights are 0, so there is nothing to learn")
    return made


def with_answer_weight(row: np.ndarray, size: int, answer_weight: float) -> np.ndarray:
    """Weights of an example with those behind its rationale's ``size`` tokens multiplied."""
    return np.append(row[:size], answer_weight * row[size:])


def rescaled(weights: Ragged) -> Iterator[np.ndarray]:
    """Weights with mean 1 over all tokens of the train set.

    Else leaving the weights out would also change how much the answer counts against the rationale, by 1 / ρ, and
    the ablation would compare two things.

    Raises:
        InputError: all weights are 0.
    """
    mean = float(weights.values.mean())
    if not mean > 0:
        raise InputError("all token weights are 0: the loss would be of the answer alone")
    return (row / mean for row in weights)


def permuted(weights: Iterable[np.ndarray], seed: int) -> Iterator[np.ndarray]:
    """Every rationale's weights in random order: the same spread, without their meaning."""
    rng = np.random.default_rng([seed, 1])
    return (rng.permutation(row) for row in weights)


def with_ones(rows: Iterable[np.ndarray], examples: "Sequence[Example]") -> Ragged:
    """Weights [len(target_ids)] from those of the rationales' tokens: answer phrase and EOS weigh 1."""
    return Ragged.stored(
        (np.append(row, np.ones(len(e.target_ids) - len(row))) for row, e in zip(rows, examples, strict=True)),
        np.float64,
    )


def ones(examples: "Sequence[Example]") -> Ragged:
    """Weights of 1 for all target tokens."""
    return Ragged.stored((np.ones(len(example.target_ids)) for example in examples), np.float64)

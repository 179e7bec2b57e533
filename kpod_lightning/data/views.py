"""What one stage shows the student of an example (input) and asks (labels), and the padded batch of such views."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kpod_lightning.data.examples import Example, first_asked
from kpod_lightning.store.keys import Key

IGNORE = -100
"""Label of a position that is no target."""


@dataclass(frozen=True, kw_only=True)
class View:
    """What one stage shows (no label) and asks (labels) of an example; ``weights`` belong to ``labels``."""

    input_ids: list[int]
    labels: list[int]
    weights: list[float]


class Lengths(NamedTuple):
    """Tokens of each example of a packed batch, which lie end to end in one row.

    ``inputs``: of the input ids. ``targets``: of the labels, which a decoder-only student has as many of.
    """

    inputs: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(kw_only=True)  # not frozen: Lightning's precision plugins put converted tensors into a copy
class Batch:
    """Views of examples, padded or packed. Decoder-only: all [B, T]. Encoder-decoder: input [B, S], labels [B, T].

    Padded, an example is a row. Packed, there is one row, B = 1, in which the examples lie end to end, ``lengths`` says
    where each ends, and there is no attention mask: the student's attention is called for each example by itself.

    ``weights`` have the shape of ``labels``. ``asked`` [N] are the places of the targets in the flattened labels.
    ``divisor`` is what the summed loss of the whole global batch is divided by, the same in each of its micro-batches;
    ``num_asked`` and ``num_examples`` are the targets and the examples of that global batch. ``stage`` is the
    curriculum's. ``positions`` are those of the examples in the train set, ``kinds`` theirs (``Text.kind``), and
    ``mass_of_kind`` is the sum of the weights of the global batch's targets of each kind, where there is more than one.
    ``windows`` are the first target token of each example that is asked, and one past the last; () where a method shows
    views of its own.
    """

    input_ids: Tensor
    attention_mask: Tensor | None
    labels: Tensor
    weights: Tensor
    asked: Tensor
    divisor: float
    keys: tuple[Key, ...]
    lengths: Lengths | None = None
    stage: int = 0
    epoch: int = 0
    positions: tuple[int, ...] = ()
    num_asked: int = 0
    num_examples: int = 0
    kinds: tuple[int, ...] = ()
    mass_of_kind: Mapping[int, float] = field(default_factory=dict)
    windows: tuple[tuple[int, int], ...] = ()

    @property
    def num_targets(self) -> int:
        return len(self.asked)

    @property
    def targets(self) -> Tensor:
        """[N] token ids that are asked."""
        return self.labels.flatten()[self.asked]

    @property
    def target_weights(self) -> Tensor:
        """[N] weights of the targets."""
        return self.weights.flatten()[self.asked]

    @property
    def example_of(self) -> Tensor:
        """[N] which example of the batch each target belongs to."""
        if self.lengths is None:
            return self.asked // self.labels.shape[1]
        ends = torch.tensor(self.lengths.targets, device=self.asked.device).cumsum(0)
        return torch.bucketize(self.asked, ends, right=True)

    def means_of_kinds(self, shares: Mapping[int, float]) -> Tensor:
        """[N] factors of the targets' weights that make the loss of a global batch Σ_k share_k · mean of kind k.

        The mean of a kind is weighted by the targets' weights; a kind without a share has none of the loss.
        """
        factors = {
            kind: shares.get(kind, 0.0) * self.divisor / self.mass_of_kind.get(kind, self.num_asked)
            for kind in self.kinds
        }
        of_example = torch.tensor([factors[kind] for kind in self.kinds], device=self.asked.device)
        return of_example[self.example_of]

    def to(self, device: torch.device) -> "Batch":
        moved = {name: getattr(self, name).to(device) for name in ("input_ids", "labels", "weights", "asked")}
        mask = None if self.attention_mask is None else self.attention_mask.to(device)
        return replace(self, attention_mask=mask, **moved)


def view(example: Example, num_input_steps: int, **others: Any) -> View:
    """The example at a stage with ``num_input_steps = c``: the first c steps are input, the rest is asked (Eq. 15).

    Args:
        example: the whole rationale.
        num_input_steps: c, in [0, example.num_steps]; at ``num_steps`` only the answer is asked.
        others: those of ``window_view``.

    Raises:
        ValueError: c or the number of weights is out of range.
    """
    if not 0 <= num_input_steps <= example.num_steps:
        raise ValueError(f"{example.key}: {num_input_steps} input steps of {example.num_steps}")
    return window_view(example, (first_asked(example, num_input_steps), len(example.target_ids)), **others)


def window_view(
    example: Example,
    window: tuple[int, int],
    *,
    encoder_decoder: bool,
    token_weights: Sequence[float] | None = None,
    eos_token_id: int | None = None,
) -> View:
    """The example with the target tokens before a window as input, those of the window asked, and no others.

    Decoder-only: the input tokens stay behind the question, their labels masked. Encoder-decoder: they move into the
    encoder input behind the question, and the decoder starts with the window.

    Args:
        example: the whole rationale.
        window: first target token that is asked, and one past the last.
        encoder_decoder: which of the two families.
        token_weights: [len(target_ids)] weights w_j; none means 1.
        eos_token_id: closes the encoder input of an encoder-decoder.

    Raises:
        ValueError: the window is empty or reaches beyond the target, or the number of weights is another one.
    """
    first, stop = window
    if not 0 <= first < stop <= len(example.target_ids):
        raise ValueError(f"{example.key}: no tokens {first} to {stop} of {len(example.target_ids)}")
    if token_weights is not None and len(token_weights) != len(example.target_ids):
        raise ValueError(f"{example.key}: {len(token_weights)} weights for {len(example.target_ids)} tokens")
    shown, asked = list(example.target_ids[:first]), list(example.target_ids[first:stop])
    weights = [1.0] * len(asked) if token_weights is None else [float(w) for w in token_weights[first:stop]]
    if encoder_decoder:
        closing = [] if eos_token_id is None else [eos_token_id]
        return View(input_ids=[*example.prompt_ids, *shown, *closing], labels=asked, weights=weights)
    num_shown = len(example.prompt_ids) + len(shown)
    return View(
        input_ids=[*example.prompt_ids, *shown, *asked],
        labels=[IGNORE] * num_shown + asked,
        weights=[0.0] * num_shown + weights,
    )


def padded(rows: Sequence[Sequence[float]], value: float, dtype: torch.dtype = torch.long) -> Tensor:
    """[B, T] rows filled up on the right with ``value``."""
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=dtype)


def collate(
    views: Sequence[View],
    keys: Sequence[Key],
    *,
    pad_token_id: int,
    divisor: float,
    packed: bool = False,
    **place: Any,
) -> Batch:
    """Lay views end to end in one row, or pad them on the right.

    The attention mask comes from lengths, so pad may equal EOS; padding is never a target.

    Args:
        place: stage, epoch, positions, num_asked, num_examples, kinds, mass_of_kind of ``Batch``.
    """
    inputs, labels = [v.input_ids for v in views], [v.labels for v in views]
    weights, lengths = [v.weights for v in views], None
    if packed:
        lengths = Lengths(tuple(map(len, inputs)), tuple(map(len, labels)))
        inputs, labels, weights = [[*chain(*inputs)]], [[*chain(*labels)]], [[*chain(*weights)]]
    label_rows = padded(labels, IGNORE)
    return Batch(
        input_ids=padded(inputs, pad_token_id),
        attention_mask=None if packed else padded([[1] * len(row) for row in inputs], 0),
        labels=label_rows,
        weights=padded(weights, 0.0, torch.float32),
        asked=(label_rows.flatten() != IGNORE).nonzero()[:, 0],
        divisor=divisor,
        keys=tuple(keys),
        lengths=lengths,
        **place,
    )

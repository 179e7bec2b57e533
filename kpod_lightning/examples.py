"""Example: token ids, step spans and answer span of one rationale; what a stage shows and what it asks.

Ids, targets, weights and steps are aligned here and nowhere else, from the character offsets of one tokenisation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kpod_lightning.errors import InputError
from kpod_lightning.keys import Key
from kpod_lightning.rationales import Rationale, answer_phrase, prompt_text

IGNORE = -100
"""Label of a position that is no target."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One tokenised rationale with its prompt and its answer.

    ``step_of[j]`` is the step of target token j, and ``num_steps`` for the answer phrase and EOS; it never falls.
    ``spans[j]`` are the characters of the rationale that token j covers, empty for the answer phrase and EOS.
    ``answer_start`` is the first target token that holds a character of the answer y; y ends before EOS.
    """

    key: Key
    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    step_of: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    num_steps: int
    answer_start: int

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.target_ids)

    @property
    def num_rationale_tokens(self) -> int:
        """n: target tokens before the answer phrase."""
        return next(j for j, step in enumerate(self.step_of) if step == self.num_steps)


@dataclass(frozen=True, kw_only=True)
class View:
    """What one stage shows (no label) and asks (labels) of an example; ``weights`` belong to ``labels``."""

    input_ids: list[int]
    labels: list[int]
    weights: list[float]


@dataclass(kw_only=True)  # not frozen: Lightning's precision plugins put converted tensors into a copy
class Batch:
    """Padded views. Decoder-only: all [B, T]. Encoder-decoder: input [B, S], labels and weights [B, T].

    ``divisor`` is what the summed loss of the whole global batch is divided by, the same in each of its micro-batches.
    ``first_target`` is the first position that has a label in some row: no logits are needed for what comes before.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    weights: Tensor
    divisor: float
    first_target: int
    keys: tuple[Key, ...]

    @property
    def num_targets(self) -> int:
        return int((self.labels != IGNORE).sum())

    def to(self, device: torch.device) -> "Batch":
        moved = {name: getattr(self, name).to(device) for name in ("input_ids", "attention_mask", "labels", "weights")}
        return replace(self, **moved)


def leading_specials(tokenizer: Any) -> list[int]:
    """Ids that the tokenizer puts before any text (a beginning-of-sequence token), often none."""
    with_specials = tokenizer("a").input_ids
    bare = tokenizer("a", add_special_tokens=False).input_ids
    for start in range(len(with_specials) - len(bare) + 1):
        if with_specials[start : start + len(bare)] == bare:
            return list(with_specials[:start])
    raise InputError(f"tokenizer {tokenizer.name_or_path}: special tokens change how a text is tokenised")


def make_example(
    rationale: Rationale,
    tokenizer: Any,
    *,
    encoder_decoder: bool,
    method: str = "plain",
    normalise: Callable[[str], str] | None = None,
) -> Example:
    """Tokenise a rationale once and attribute every token by its first character that is no blank.

    Args:
        rationale: text with its steps; the steps tile it.
        tokenizer: a fast tokenizer, for its character offsets.
        encoder_decoder: prompt and target are two sequences (T5), not one.
        method: ``answers_only`` asks the answer without the rationale.
        normalise: length-preserving change of text for tokenizers that cannot give a character back.

    Raises:
        InputError: the tokenizer has no offsets or no end-of-sequence token.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"tokenizer {tokenizer.name_or_path} gives no character offsets; choose a student with a fast tokenizer"
        )
    if tokenizer.eos_token_id is None:
        raise InputError(f"tokenizer {tokenizer.name_or_path} has no end-of-sequence token, so no output would end")
    problem = rationale.problem
    prompt = prompt_text(problem, method)
    text = "" if method == "answers_only" else rationale.text.rstrip()
    body = f" {text} {answer_phrase(problem)}" if text else f" {answer_phrase(problem)}"
    if normalise is not None:
        prompt, body = normalise(prompt), normalise(body)
    start, end = 1, 1 + len(text)  # of the rationale within the body
    # The last step reaches to the end of the text; blanks that were cut from it change nothing.
    step_ends = [start + span[1] for span in rationale.steps] if text else []

    specials = leading_specials(tokenizer)
    if encoder_decoder:
        prompt_ids = [*specials, *tokenizer(prompt, add_special_tokens=False).input_ids]
        encoded = tokenizer(body, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids, offsets, shift = encoded.input_ids, encoded.offset_mapping, 0
    else:
        whole = prompt + body
        encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids, offsets, shift = encoded.input_ids, encoded.offset_mapping, len(prompt)
        num_prompt = 0
        while num_prompt < len(ids) and offsets[num_prompt][0] < len(prompt):
            num_prompt += 1
        prompt_ids = [*specials, *ids[:num_prompt]]
        ids, offsets = ids[num_prompt:], offsets[num_prompt:]

    step_of, spans, step = [], [], 0
    for left, right in offsets:
        left, right = left - shift, right - shift
        first = left
        while first < right - 1 and body[first].isspace():
            first += 1
        while step < len(step_ends) and first >= min(step_ends[step], end):
            step += 1
        step_of.append(step)
        inside = max(left, start), min(right, end)
        spans.append((inside[0] - start, inside[1] - start) if step < len(step_ends) else (0, 0))
    return Example(
        key=rationale.key,
        prompt_ids=tuple(prompt_ids),
        target_ids=(*ids, tokenizer.eos_token_id),
        step_of=(*step_of, len(step_ends)),
        spans=(*spans, (0, 0)),
        num_steps=len(step_ends),
        answer_start=next(j for j, (_, right) in enumerate(offsets) if right - shift > len(body) - len(problem.answer)),
    )


def first_asked(example: Example, num_input_steps: int) -> int:
    """First target token that is asked where the first c steps are input; the answer phrase always is."""
    return next(j for j, step in enumerate(example.step_of) if step >= num_input_steps)


def view(
    example: Example,
    num_input_steps: int,
    *,
    encoder_decoder: bool,
    token_weights: Sequence[float] | None = None,
    eos_token_id: int | None = None,
) -> View:
    """The example at a stage with ``num_input_steps = c``: the first c steps are input, the rest is asked (Eq. 15).

    Decoder-only: the first c steps stay behind the question, their labels masked. Encoder-decoder: they move into
    the encoder input behind the question, and the decoder starts at step c + 1.

    Args:
        example: the whole rationale.
        num_input_steps: c, in [0, example.num_steps]; at ``num_steps`` only the answer is asked.
        encoder_decoder: which of the two families.
        token_weights: [len(target_ids)] weights w_j; none means 1. Answer phrase and EOS always weigh 1.
        eos_token_id: closes the encoder input of an encoder-decoder.

    Raises:
        ValueError: c or the number of weights is out of range.
    """
    if not 0 <= num_input_steps <= example.num_steps:
        raise ValueError(f"{example.key}: {num_input_steps} input steps of {example.num_steps}")
    if token_weights is not None and len(token_weights) != len(example.target_ids):
        raise ValueError(f"{example.key}: {len(token_weights)} weights for {len(example.target_ids)} tokens")
    first = first_asked(example, num_input_steps)
    weights = [
        1.0 if token_weights is None or step == example.num_steps else float(token_weights[j])
        for j, step in enumerate(example.step_of)
    ]
    shown, asked = list(example.target_ids[:first]), list(example.target_ids[first:])
    if encoder_decoder:
        closing = [] if eos_token_id is None else [eos_token_id]
        return View(input_ids=[*example.prompt_ids, *shown, *closing], labels=asked, weights=weights[first:])
    num_shown = len(example.prompt_ids) + len(shown)
    return View(
        input_ids=[*example.prompt_ids, *shown, *asked],
        labels=[IGNORE] * num_shown + asked,
        weights=[0.0] * num_shown + weights[first:],
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
) -> Batch:
    """Pad on the right. The attention mask comes from lengths, so pad may equal EOS; padding is never a target."""

    return Batch(
        input_ids=padded([v.input_ids for v in views], pad_token_id),
        attention_mask=padded([[1] * len(v.input_ids) for v in views], 0),
        labels=padded([v.labels for v in views], IGNORE),
        weights=padded([v.weights for v in views], 0.0, torch.float32),
        divisor=divisor,
        first_target=min(next(j for j, label in enumerate(v.labels) if label != IGNORE) for v in views),
        keys=tuple(keys),
    )

"""Example: token ids, step spans and answer span of one rationale; what a stage shows and what it asks.

Ids, targets, weights and steps are aligned here and nowhere else, from the character offsets of one tokenisation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kpod_lightning.data.rationales import Rationale
from kpod_lightning.data.texts import Text, text_of
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.keys import Key


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
    text: Text | None = None,
    normalise: Callable[[str], str] | None = None,
) -> Example:
    """Tokenise a rationale once and attribute every token by its first character that is no blank.

    Args:
        rationale: text with its steps; the steps tile it.
        tokenizer: a fast tokenizer, for its character offsets.
        encoder_decoder: prompt and target are two sequences (T5), not one.
        text: prompt and target; None takes those of chain-of-thought distillation.
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
    words = text or text_of(rationale)
    prompt = words.prompt
    body = f" {words.rationale} {words.answer_phrase}" if words.rationale else f" {words.answer_phrase}"
    if normalise is not None:
        prompt, body = normalise(prompt), normalise(body)
    start, end = 1, 1 + len(words.rationale)  # of the rationale within the body
    # The last step reaches to the end of the text; blanks that were cut from it change nothing.
    step_ends = [start + span[1] for span in words.steps]

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
        answer_start=next(j for j, (_, right) in enumerate(offsets) if right - shift > len(body) - len(words.answer)),
    )

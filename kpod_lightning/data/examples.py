"""Example: token ids of one rationale with its prompt, the step of every token, and where the answer starts.

Only this file aligns tokens with steps and characters, from the character offsets of one tokenisation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kpod_lightning.data.rationales import Rationale
from kpod_lightning.data.texts import Text, text_of
from kpod_lightning.data.tokens import Span, spanned_ids, text_ids
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


def _check_tokenizer(tokenizer: Any) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"tokenizer {tokenizer.name_or_path} gives no character offsets; choose a student with a fast tokenizer"
        )
    if tokenizer.eos_token_id is None:
        raise InputError(f"tokenizer {tokenizer.name_or_path} has no end-of-sequence token, so no output would end")


def _tokenise(
    tokenizer: Any, prompt: str, target: str, *, encoder_decoder: bool
) -> tuple[list[int], list[int], list[Span]]:
    """Ids of the prompt and of the target, and the characters of the target that each of its tokens covers.

    A decoder-only model reads both as one text, so they are tokenised as one: a token that begins in the prompt belongs
    to the prompt.
    """
    specials = leading_specials(tokenizer)
    if encoder_decoder:
        return [*specials, *text_ids(prompt, tokenizer)], *spanned_ids(target, tokenizer)
    (ids, offsets), shift = spanned_ids(prompt + target, tokenizer), len(prompt)
    num_prompt = next((j for j, (left, _) in enumerate(offsets) if left >= shift), len(ids))
    target_spans = [(left - shift, right - shift) for left, right in offsets[num_prompt:]]
    return [*specials, *ids[:num_prompt]], ids[num_prompt:], target_spans


def _steps_of_tokens(target: str, token_spans: list[Span], step_ends: list[int]) -> list[int]:
    """The step of each token, by its first character that is no blank; ``len(step_ends)`` behind the last step."""
    step_of, step = [], 0
    for left, right in token_spans:
        first = next((i for i in range(left, right - 1) if not target[i].isspace()), max(left, right - 1))
        while step < len(step_ends) and first >= step_ends[step]:
            step += 1
        step_of.append(step)
    return step_of


def make_example(
    rationale: Rationale,
    tokenizer: Any,
    *,
    encoder_decoder: bool,
    text: Text | None = None,
    normalise: Callable[[str], str] | None = None,
) -> Example:
    """Tokenise a rationale once, and attribute each token to a step by its first character that is no blank.

    Args:
        rationale: text with its steps; the steps tile it.
        tokenizer: a fast tokenizer, for its character offsets.
        encoder_decoder: prompt and target are two sequences (T5), not one.
        text: prompt and target; None takes those of chain-of-thought distillation.
        normalise: length-preserving change of text for tokenizers that cannot give a character back.

    Raises:
        InputError: the tokenizer has no offsets or no end-of-sequence token.
    """
    _check_tokenizer(tokenizer)
    words = text or text_of(rationale)
    prompt = words.prompt
    target = f" {words.rationale} {words.answer_phrase}" if words.rationale else f" {words.answer_phrase}"
    if normalise is not None:
        prompt, target = normalise(prompt), normalise(target)
    prompt_ids, target_ids, token_spans = _tokenise(tokenizer, prompt, target, encoder_decoder=encoder_decoder)
    start, end = 1, 1 + len(words.rationale)  # of the rationale in the target, which begins with a blank
    # Blanks are cut from the end of the rationale, and may be all that the last steps reach into.
    step_ends = [min(start + step_end, end) for _, step_end in words.steps]
    step_of = _steps_of_tokens(target, token_spans, step_ends)
    spans = [
        (max(left, start) - start, min(right, end) - start) if step < len(step_ends) else (0, 0)
        for (left, right), step in zip(token_spans, step_of, strict=True)
    ]
    answer_start = len(target) - len(words.answer)
    return Example(
        key=rationale.key,
        prompt_ids=tuple(prompt_ids),
        target_ids=(*target_ids, tokenizer.eos_token_id),
        step_of=(*step_of, len(step_ends)),
        spans=(*spans, (0, 0)),
        num_steps=len(step_ends),
        answer_start=next(j for j, (_, right) in enumerate(token_spans) if right > answer_start),
    )

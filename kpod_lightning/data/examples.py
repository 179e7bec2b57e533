"""Example: token ids of one rationale with its prompt, the step of every token, and where the answer starts.

Only this file aligns tokens with steps and characters, from the character offsets of one tokenisation. Many texts are
tokenised and aligned at once, in flat arrays: a token costs no Python of its own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, overload

import numpy as np

from kpod_lightning.data.rationales import Rationale
from kpod_lightning.data.texts import Text, text_of
from kpod_lightning.data.tokens import encodings
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.keys import Key, Keys


@dataclass(frozen=True, kw_only=True)
class Example:
    """One tokenised rationale with its prompt and its answer.

    ``step_of[j]`` is the step of target token j, and ``num_steps`` for the answer phrase and EOS; it never falls.
    ``spans[j]`` are the characters of the rationale that token j covers, empty for the answer phrase and EOS.
    ``answer_start`` is the first target token that holds a character of the answer y; y ends before EOS. It is that of
    EOS where no answer is asked. ``kind`` is that of the text.
    """

    key: Key
    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    step_of: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    num_steps: int
    answer_start: int
    kind: int = 0

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.target_ids)

    @property
    def num_rationale_tokens(self) -> int:
        """n: target tokens before the answer phrase."""
        return next(j for j, step in enumerate(self.step_of) if step == self.num_steps)


def first_asked(example: Example, num_input_steps: int) -> int:
    """First target token that is asked where the first c steps are input; the answer phrase always is."""
    return next(j for j, step in enumerate(example.step_of) if step >= num_input_steps)


FLAT = {"prompt_ids": np.int32, "target_ids": np.int32, "step_of": np.int32, "spans": np.int32, "ids": np.uint8}
"""Flat arrays of examples. ``ids`` are the bytes of the problems' ids; ``spans`` has two numbers a token."""

ROW = ("prompt_ids", "target_ids", "ids", "sample", "num_steps", "answer_start", "source", "kind")
"""Columns of the rows: the example's ends in the flat arrays, numbers of its own, and the position of its rationale
among all of the run."""


class Examples(Sequence[Example]):
    """Examples whose ids, steps and spans are concatenated in flat arrays: an example is a slice.

    Args:
        flat: an array for each of ``FLAT``.
        rows: [N, len(ROW)] of int64.
    """

    def __init__(self, flat: Mapping[str, np.ndarray], rows: np.ndarray) -> None:
        self.flat, self.rows = flat, rows
        self.column = {name: rows[:, i] for i, name in enumerate(ROW)}
        self.ends = {name: np.concatenate([[0], self.column[name]]) for name in ROW[:3]}
        self.keys = Keys(self.flat["ids"], self.column["ids"], self.column["sample"])

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, position: int) -> Example: ...
    @overload
    def __getitem__(self, position: slice) -> list[Example]: ...
    def __getitem__(self, position: int | slice) -> Example | list[Example]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        i = range(len(self))[position]
        prompt, target = (slice(self.ends[n][i], self.ends[n][i + 1]) for n in ROW[:2])
        pairs = self.flat["spans"][2 * target.start : 2 * target.stop].reshape(-1, 2)
        return Example(
            key=self.keys[i],
            prompt_ids=tuple(self.flat["prompt_ids"][prompt].tolist()),
            target_ids=tuple(self.flat["target_ids"][target].tolist()),
            step_of=tuple(self.flat["step_of"][target].tolist()),
            spans=tuple(map(tuple, pairs.tolist())),
            num_steps=int(self.column["num_steps"][i]),
            answer_start=int(self.column["answer_start"][i]),
            kind=int(self.column["kind"][i]),
        )

    @property
    def sources(self) -> np.ndarray:
        """[N] position of each example's rationale among all of the run, ascending."""
        return self.column["source"]

    @property
    def lengths(self) -> np.ndarray:
        """[N] tokens of prompt and target together."""
        return np.diff(self.ends["prompt_ids"]) + np.diff(self.ends["target_ids"])

    @property
    def num_targets(self) -> np.ndarray:
        """[N] tokens of the target."""
        return np.diff(self.ends["target_ids"])

    @property
    def num_steps(self) -> np.ndarray:
        """[N] steps of the rationale."""
        return self.column["num_steps"]

    def num_asked(self, position: int, num_input_steps: int) -> int:
        """Target tokens of an example that are asked where the first c steps are input."""
        target = slice(self.ends["target_ids"][position], self.ends["target_ids"][position + 1])
        return int(np.count_nonzero(self.flat["step_of"][target] >= num_input_steps))

    def answer_ids(self, position: int) -> np.ndarray:
        """[M] token ids of an example's answer, without the end-of-sequence token."""
        start, end = self.ends["target_ids"][position : position + 2]
        found: np.ndarray = self.flat["target_ids"][start + self.column["answer_start"][position] : end - 1]
        return found

    def where(self, kept: np.ndarray) -> "Examples":
        """Some of the examples, in their order.

        Args:
            kept: [N] whether an example is among them.
        """
        sizes = {name: np.diff(ends) for name, ends in self.ends.items()}
        sizes |= {"step_of": sizes["target_ids"], "spans": 2 * sizes["target_ids"]}
        rows = self.rows[kept]
        for i, name in enumerate(ROW[:3]):
            rows[:, i] = np.cumsum(sizes[name][kept])
        return Examples({name: self.flat[name][np.repeat(kept, sizes[name])] for name in FLAT}, rows)


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


def _sums(numbers: Iterable[int]) -> np.ndarray:
    """[N + 1] 0 and the sums of the first 1, 2, ... of N numbers."""
    return np.cumsum([0, *numbers])


@dataclass(frozen=True)
class _Tokens:
    """Tokens of many texts. ids: [T]. left, right: [T] first character, and one past the last. starts: [B + 1]."""

    ids: np.ndarray
    left: np.ndarray
    right: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: Any) -> "_Tokens":
        found = encodings(texts, tokenizer)
        starts = _sums(map(len, found))
        ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in found), np.int32, starts[-1])
        offsets = chain.from_iterable(chain.from_iterable(encoding.offsets for encoding in found))
        left, right = np.fromiter(offsets, np.int64, 2 * starts[-1]).reshape(-1, 2).T
        return cls(ids, left, right, starts)

    @property
    def text_of(self) -> np.ndarray:
        """[T] the text of each token."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def first(self, found: np.ndarray) -> np.ndarray:
        """[B] the first token of each text with ``found``, or where the text ends.

        Args:
            found: [T] of bool.
        """
        places = np.append(np.flatnonzero(found), self.starts[-1])
        return np.minimum(places[np.searchsorted(places, self.starts[:-1])], self.starts[1:])

    def cut(self, at: np.ndarray, shift: np.ndarray) -> tuple["_Tokens", "_Tokens"]:
        """Of each text the tokens before ``at``, and those from there on, whose characters count from ``shift``.

        Args:
            at, shift: [B].
        """
        text_of = self.text_of
        behind = np.arange(len(self.ids)) >= at[text_of]
        shifts = shift[text_of[behind]]
        before = at - self.starts[:-1]
        return (
            _Tokens(self.ids[~behind], self.left[~behind], self.right[~behind], _sums(before)),
            _Tokens(
                self.ids[behind],
                self.left[behind] - shifts,
                self.right[behind] - shifts,
                _sums(np.diff(self.starts) - before),
            ),
        )


def _tokenise(
    prompts: Sequence[str], targets: Sequence[str], tokenizer: Any, *, encoder_decoder: bool
) -> tuple[_Tokens, _Tokens]:
    """Tokens of the prompts and of the targets.

    A decoder-only model reads both as one text, so they are tokenised as one: a token that begins in the prompt belongs
    to the prompt.
    """
    if encoder_decoder:
        return _Tokens.of(prompts, tokenizer), _Tokens.of(targets, tokenizer)
    both = _Tokens.of([prompt + target for prompt, target in zip(prompts, targets, strict=True)], tokenizer)
    shift = np.array([len(prompt) for prompt in prompts])
    return both.cut(both.first(both.left >= shift[both.text_of]), shift)


def _first_characters(targets: Sequence[str], tokens: _Tokens) -> tuple[np.ndarray, np.ndarray]:
    """[T] each token's first character that is no blank, or else its last one; and [B + 1] the characters before texts.

    Characters count through all the targets, with one more behind each.
    """
    before = _sums(len(target) + 1 for target in targets)
    letters = np.frombuffer("".join(f"{target}\n" for target in targets).encode("utf-32-le", "surrogatepass"), "<U1")
    place = np.where(np.strings.isspace(letters), len(letters), np.arange(len(letters)))
    no_blank = np.minimum.accumulate(place[::-1])[::-1]  # [C] the next character that is no blank
    start = before[tokens.text_of]
    left, last = start + tokens.left, start + np.maximum(tokens.left, tokens.right - 1)
    return np.minimum(no_blank[left], last), before


def _steps(texts: Sequence[Text], targets: Sequence[str], tokens: _Tokens) -> tuple[np.ndarray, np.ndarray]:
    """[T] each token's step by its first character that is no blank, and the characters [T, 2] that it covers.

    The step is the number of steps behind the last one, where no character of the rationale is covered.
    """
    first, before = _first_characters(targets, tokens)
    num_before = _sums(len(text.steps) for text in texts)  # [B + 1] steps of the texts before
    of_text, num_steps = tokens.text_of, np.diff(num_before)
    lengths = np.array([len(text.rationale) for text in texts])
    # The target begins with a blank, and blanks are cut from the end of the rationale: they may be all that the last
    # steps reach into.
    ends = np.fromiter((end for text in texts for _, end in text.steps), np.int64, num_before[-1])
    of_step = np.repeat(np.arange(len(texts)), num_steps)
    ends = before[of_step] + 1 + np.minimum(ends, lengths[of_step])
    # A step never falls: what overlaps the end of a step twice, as the bytes of one character do, stays behind it.
    step_of = np.maximum.accumulate(np.searchsorted(ends, first, side="right")) - num_before[of_text]
    spans = np.stack([np.maximum(tokens.left, 1), np.minimum(tokens.right, 1 + lengths[of_text])], axis=1) - 1
    return step_of, np.where((step_of < num_steps[of_text])[:, None], spans, 0)


def _with_last(values: np.ndarray, starts: np.ndarray, last: Any) -> np.ndarray:
    """The values [T, ...] of each of B texts, and behind them one more of ``last``: [T + B, ...]."""
    return np.insert(values, starts[1:], last, axis=0)


def make_examples(
    keys: Sequence[Key],
    texts: Sequence[Text],
    tokenizer: Any,
    *,
    encoder_decoder: bool,
    sources: Sequence[int] | None = None,
    normalise: Callable[[str], str] | None = None,
) -> Examples:
    """Tokenise texts at once, and attribute each token to a step by its first character that is no blank.

    Args:
        keys: of the rationales that the texts are from.
        texts: prompts and targets; the steps tile the rationale.
        tokenizer: a fast tokenizer, for its character offsets.
        encoder_decoder: prompt and target are two sequences (T5), not one.
        sources: positions of the rationales among all of the run; None counts the texts.
        normalise: length-preserving change of text for tokenizers that cannot give a character back.

    Raises:
        InputError: the tokenizer has no offsets or no end-of-sequence token, or no token for an answer.
    """
    _check_tokenizer(tokenizer)
    prompts = [text.prompt for text in texts]
    targets = ["".join(f" {part}" for part in (text.rationale, text.answer_phrase) if part) for text in texts]
    if normalise is not None:
        prompts, targets = list(map(normalise, prompts)), list(map(normalise, targets))
    shown, asked = _tokenise(prompts, targets, tokenizer, encoder_decoder=encoder_decoder)
    step_of, spans = _steps(texts, targets, asked)
    num_steps = np.array([len(text.steps) for text in texts])
    answers = np.array([len(target) - len(text.answer) for target, text in zip(targets, texts, strict=True)])
    answer_start = asked.first(asked.right > answers[asked.text_of])
    asks = np.array([bool(text.answer) for text in texts])
    if (lost := np.flatnonzero(asks & (answer_start == asked.starts[1:]))).size:
        raise InputError(
            f"problem {keys[lost[0]][0]}: tokenizer {tokenizer.name_or_path} has no token for the answer "
            f"{texts[lost[0]].answer!r}; choose a student with another tokenizer, or leave the problem out"
        )
    specials, eos = np.array(leading_specials(tokenizer), np.int32), tokenizer.eos_token_id
    names = [name.encode("utf-8") for name, _ in keys]
    texts_so_far = np.arange(len(texts) + 1)
    rows = np.stack(
        [
            (shown.starts + len(specials) * texts_so_far)[1:],
            (asked.starts + texts_so_far)[1:],
            _sums(map(len, names))[1:],
            [sample for _, sample in keys],
            num_steps,
            answer_start - asked.starts[:-1],
            texts_so_far[:-1] if sources is None else sources,
            [text.kind for text in texts],
        ],
        axis=1,
        dtype=np.int64,
    )
    flat = {
        "prompt_ids": np.insert(shown.ids, np.repeat(shown.starts[:-1], len(specials)), np.tile(specials, len(texts))),
        "target_ids": _with_last(asked.ids, asked.starts, eos),
        "step_of": _with_last(step_of, asked.starts, num_steps),
        "spans": _with_last(spans, asked.starts, 0).reshape(-1),
        "ids": np.frombuffer(b"".join(names), np.uint8),
    }
    return Examples({name: np.asarray(flat[name], kind) for name, kind in FLAT.items()}, rows)


def make_example(
    rationale: Rationale,
    tokenizer: Any,
    *,
    encoder_decoder: bool,
    text: Text | None = None,
    normalise: Callable[[str], str] | None = None,
) -> Example:
    """Tokenise one rationale as ``make_examples`` does.

    Args:
        text: prompt and target; None takes those of chain-of-thought distillation.
    """
    texts = [text or text_of(rationale)]
    return make_examples([rationale.key], texts, tokenizer, encoder_decoder=encoder_decoder, normalise=normalise)[0]

"""A teacher's recorded next-token distributions on the tokens of a student that has another tokenizer."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kpod_lightning.data.alignment import same_tokens
from kpod_lightning.data.examples import Example, Examples
from kpod_lightning.data.rationales import Rationale
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import JsonLines
from kpod_lightning.store.keys import Key
from kpod_lightning.store.row_index import RowIndex

ALIGNMENT = "dtw-1"
"""Name of the rule by which recorded tokens become a student's; another one makes another file."""

Recorded = Sequence[tuple[str, Sequence[tuple[str, float]]]]
"""Of each token that a teacher wrote: its text, and the likeliest tokens in its place with their probabilities."""


@dataclass(frozen=True)
class Distributions:
    """q_t of every target of some examples; an example without any has no rows.

    Args:
        ids: [T, K] of the student's tokens, 0 where there are fewer.
        probabilities: [T, K] of float32, 0 where there are fewer tokens; a row sums to 1 at most.
        ends: [N] end of each example's rows.
        num_copied: rows that are the teacher's; in the others the target itself has probability 1.
    """

    ids: np.ndarray
    probabilities: np.ndarray
    ends: np.ndarray
    num_copied: int

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "Distributions":
        with np.load(path) as stored:
            return cls(stored["ids"], stored["probabilities"], stored["ends"], int(stored["num_copied"]))

    def of(self, positions: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """ids [n, K] and probabilities [n, K] of the targets of some examples, in their order."""
        rows = np.concatenate([np.arange(self.ends[i - 1] if i else 0, self.ends[i]) for i in positions])
        return self.ids[rows], self.probabilities[rows]


# ---- The recorded file ----


def recorded_by_key(rows: JsonLines) -> Callable[[Key], Recorded | None]:
    """What a file of rationales says of the tokens of a sample; None: nothing.

    A row has ``logprobs``, a list of [token, log-probability], the text in order, and ``top_logprobs``, for each of
    them a list of such pairs: the likeliest tokens in its place.
    """
    index = RowIndex(rows, (str(row["problem_id"]) for row in rows))

    def read(key: Key) -> Recorded | None:
        found = [(i, row) for i, row in index.group(key[0]) if int(row.get("sample", 0)) == key[1]]
        return recorded_tokens(found[0][1], rows.place(found[0][0])) if found else None

    return read


def recorded_tokens(row: dict[str, Any], place: str) -> Recorded | None:
    """The tokens of a row; None: it has none.

    Raises:
        InputError: the fields have another form, or what they say is no probability.
    """
    tokens, tops = row.get("logprobs"), row.get("top_logprobs")
    if tokens is None or tops is None:
        return None
    if not isinstance(tokens, list) or not isinstance(tops, list) or len(tokens) != len(tops):
        raise InputError(f"{place}: logprobs and top_logprobs are lists of one length, of the tokens of the text")
    found = []
    for token, top in zip(tokens, tops, strict=True):
        pairs = [_pair(each, place) for each in (token, *(top if isinstance(top, list) else [None]))]
        if sum(probability for _, probability in pairs[1:]) > 1.001:
            raise InputError(f"{place}: the probabilities of top_logprobs add up to more than 1: they are natural logs")
        found.append((pairs[0][0], pairs[1:]))
    return found


def _pair(said: Any, place: str) -> tuple[str, float]:
    """A token and its probability."""
    good = isinstance(said, list) and len(said) == 2 and isinstance(said[0], str)
    if not good or isinstance(said[1], bool) or not isinstance(said[1], int | float) or not said[1] <= 1e-3:
        raise InputError(f"{place}: {str(said)[:60]} is no pair of a token and the natural log of its probability")
    return said[0], math.exp(min(0.0, said[1]))


# ---- To the student's tokens ----


def token_texts(tokenizer: Any) -> list[str]:
    """[V] the text of each token, with the blank before it; "" of special ones."""
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_ids)
    is_sentencepiece = any(piece is not None and piece.startswith("▁") for piece in pieces)
    return [
        ""
        if i in special or piece is None
        else (piece.replace("▁", " ") if is_sentencepiece else tokenizer.convert_tokens_to_string([piece]))
        for i, piece in enumerate(pieces)
    ]


def _blank(text: str) -> str:
    """The blanks that a token begins with."""
    return text[: len(text) - len(text.lstrip())]


def _within(recorded: Recorded, text: str) -> Recorded:
    """The tokens that spell ``text``, a part of all that the teacher wrote; () where they do not spell it."""
    whole = "".join(token for token, _ in recorded)
    start = whole.find(text)
    if start < 0 or not text:
        return ()
    ends = np.cumsum([len(token) for token, _ in recorded])
    first, last = np.searchsorted(ends, [start, start + len(text) - 1], side="right")
    return recorded[first : last + 1]


def distributions_of(
    example: Example, rationale: Rationale, recorded: Recorded, texts: Sequence[str], ids: dict[str, int]
) -> dict[int, dict[int, float]]:
    """The teacher's distributions on a student's targets: place -> token id -> probability.

    Where a token of the teacher and one of the student are aligned one to one and equal, up to the blanks round them,
    the teacher's likeliest tokens that the student has as well keep their probabilities; they are not normalised.

    Args:
        recorded: what the teacher wrote, in which the rationale's text stands.
        texts: [V] of the student's tokens.
        ids: token of each text.
    """
    written = _within(recorded, rationale.text.rstrip())
    own = [texts[token] for token in example.target_ids[: example.num_rationale_tokens]]
    found: dict[int, dict[int, float]] = {}
    for i, j in same_tokens([token.strip() for token, _ in written], [text.strip() for text in own]):
        token, tops = written[i]
        at_place: dict[int, float] = {}
        for name, probability in tops:
            # The student may have the blank in the token before; what had none there can no longer follow.
            like = _blank(name) == _blank(token)
            other = ids.get(_blank(own[j]) + name.lstrip() if like else name)
            if other is not None and probability > 0 and (like or _blank(own[j]) == _blank(token)):
                at_place[other] = at_place.get(other, 0.0) + probability
        if at_place:
            found[j] = at_place
    return found


def make_distributions(
    examples: Examples,
    rationales: Iterable[Rationale],
    kinds: Collection[int],
    recorded: Callable[[Key], Recorded | None],
    tokenizer: Any,
) -> Distributions:
    """Distributions of all targets of the examples of some kinds; the target itself has probability 1 elsewhere.

    Args:
        rationales: all of the run, in the order of ``examples.sources``.
        recorded: what the teacher wrote of a sample.
    """
    texts = token_texts(tokenizer)
    ids = {text: i for i, text in reversed(list(enumerate(texts))) if text}
    rows: list[dict[int, float]] = []
    ends: list[int] = []
    num_copied, position = 0, 0
    for source, rationale in enumerate(rationales):
        said = recorded(rationale.key)
        while position < len(examples) and examples.sources[position] == source:
            example = examples[position]
            if example.kind in kinds:
                copied = distributions_of(example, rationale, said or (), texts, ids)
                num_copied += len(copied)
                rows += [copied.get(j, {token: 1.0}) for j, token in enumerate(example.target_ids)]
            ends.append(len(rows))
            position += 1
    width = max((len(row) for row in rows), default=1)
    probabilities = np.zeros((len(rows), width), np.float32)
    of_tokens = np.zeros((len(rows), width), np.int32)
    for i, row in enumerate(rows):
        of_tokens[i, : len(row)], probabilities[i, : len(row)] = list(row), list(row.values())
    return Distributions(of_tokens, probabilities, np.array(ends, np.int64), num_copied)

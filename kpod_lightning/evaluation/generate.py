"""Generation of answers: greedy by default, every problem exactly once on any number of ranks."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from kpod_lightning.data.batches import batches_by_length, seed_batch
from kpod_lightning.data.examples import leading_specials
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.template import prompt_text
from kpod_lightning.data.tokens import text_ids
from kpod_lightning.distributed.ranks import gathered, share_of
from kpod_lightning.evaluation.greedy import can_retire, greedily
from kpod_lightning.students.student import Student

DECODING = "plain-1"
"""Name of the way in which outputs are decoded; outputs of another way are made anew."""


def prompt_ids(text: str, student: Student) -> list[int]:
    """Token ids of what the student is shown, as in training; an encoder input is closed by EOS."""
    if student.normalise is not None:
        text = student.normalise(text)
    ids = text_ids(text, student.tokenizer)
    closing = [student.tokenizer.eos_token_id] if student.encoder_decoder else []
    return [*leading_specials(student.tokenizer), *ids, *closing]


def pad_prompts(rows: Sequence[Sequence[int]], pad: int, *, left: bool) -> tuple[Tensor, Tensor]:
    """Ids and attention mask, both [B, longest]; decoder-only prompts are padded on the left."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, place] = torch.tensor(row, dtype=torch.long)
        mask[i, place] = 1
    return ids, mask


@dataclass(frozen=True, kw_only=True)
class Output:
    """One continuation: text without special tokens, new tokens (EOS included), whether the limit cut it."""

    text: str
    num_tokens: int
    at_limit: bool


def decoding(student: Student, max_new_tokens: int, *, own: bool = False, **choice: Any) -> GenerationConfig:
    """How outputs are decoded: by ``choice`` alone, or with what the student's ``generation_config.json`` adds to it.

    Such a file may have a repetition penalty, suppressed tokens or beams, which change even greedy outputs.

    Args:
        own: whether the student's own settings count where ``choice`` says nothing.
        choice: greedy unless it says otherwise.
    """
    defaults = student.model.generation_config
    start = defaults.decoder_start_token_id
    config = copy.deepcopy(defaults) if own else GenerationConfig(num_beams=1)
    config.update(
        **{"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "min_p": None, "typical_p": None},
        **{"max_length": None, "min_length": None, "return_dict_in_generate": False},
    )
    config.update(
        max_new_tokens=max_new_tokens,
        eos_token_id=student.end_token_ids,
        pad_token_id=student.pad_token_id,
        bos_token_id=defaults.bos_token_id,
        decoder_start_token_id=getattr(student.model.config, "decoder_start_token_id", None)
        if start is None
        else start,
        **choice,
    )
    return config


@contextmanager
def decoding_with(model: Any, config: GenerationConfig) -> Iterator[None]:
    """Within the block, the model's generation settings are ``config``: ``generate()`` fills unset ones from there."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # the one within LoRA's wrapper
    own = base.generation_config
    base.generation_config = config
    try:
        yield
    finally:
        base.generation_config = own


Track = Callable[[Iterable[np.ndarray]], Iterable[np.ndarray]]
"""Wraps the batches of a rank, e.g. to show how many are done."""


@torch.no_grad()
def continued(
    rows: Sequence[Sequence[int]],
    student: Student,
    *,
    batch_size: int = 32,
    max_new_tokens: int = 256,
    num_samples: int = 1,
    temperature: float = 0.7,
    seed: int = 0,
    own_decoding: bool = False,
    track: Track = lambda batches: batches,
) -> dict[int, list[list[int]]]:
    """Continue rows of token ids: once and greedily, or ``num_samples`` times by sampling.

    Batches are formed from all rows and then divided among the ranks, so the number of ranks changes no token.

    Args:
        rows: [N] what is continued; of an encoder-decoder, the inputs of its encoder.
        own_decoding: let the student's ``generation_config.json`` count: penalties, suppressed tokens, beams.

    Returns:
        position of a row -> the new ids of its continuations, of all rows on every rank. One that has ended has its end
        as the last id. Samples depend on ``seed`` and on the batches; greedy ones on neither.
    """
    device = next(student.model.parameters()).device
    choice: dict[str, Any] = {"num_return_sequences": num_samples}
    if num_samples > 1:
        choice |= {"do_sample": True, "num_beams": 1, "temperature": temperature, "top_k": 0}
    config, ends = decoding(student, max_new_tokens, own=own_decoding, **choice), set(student.end_token_ids)
    plain = num_samples == 1 and not own_decoding
    loop: dict[str, Any] = {"custom_generate": greedily} if plain and can_retire(student.model) else {}
    found: dict[int, list[list[int]]] = {}
    was_training = student.model.training
    student.model.eval()
    with torch.random.fork_rng(enabled=num_samples > 1), decoding_with(student.model, config):
        for batch in track(share_of(batches_by_length([len(row) for row in rows], batch_size, longest_first=True))):
            if num_samples > 1:
                seed_batch(seed, int(batch[0]))
            ids, mask = pad_prompts([rows[i] for i in batch], student.pad_token_id, left=not student.encoder_decoder)
            output = student.model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), **loop)
            # Decoder-only output repeats the prompt, an encoder-decoder's starts with its start token.
            new = output[:, 1 if student.encoder_decoder else ids.shape[1] :].tolist()
            found |= {i: [] for i in batch.tolist()}
            for i, row in zip((i for i in batch.tolist() for _ in range(num_samples)), new, strict=True):
                end = next((place for place, token in enumerate(row) if token in ends), None)
                found[i].append(row if end is None else row[: end + 1])
    student.model.train(was_training)
    return gathered(found)


def output_of(new: Sequence[int], student: Student, shown: Sequence[int] = ()) -> Output:
    """The output of one continuation.

    Args:
        new: ids of ``continued``.
        shown: ids of a target's beginning that were given to the student; the text begins with them.
    """
    at_limit = new[-1] not in student.end_token_ids
    ids = [*shown, *(new if at_limit else new[:-1])]
    text = student.tokenizer.decode(ids, skip_special_tokens=True)
    return Output(text=text, num_tokens=len(new), at_limit=at_limit)


def generate(
    problems: Sequence[Problem],
    student: Student,
    *,
    prompt: Callable[[Problem], str] = prompt_text,
    **others: Any,
) -> dict[str, list[Output]]:
    """Continue every problem's prompt: once and greedily, or several times by sampling (self-consistency).

    Args:
        others: those of ``continued``.

    Returns:
        problem id -> its outputs, of all problems on every rank.
    """
    found = continued([prompt_ids(prompt(problem), student) for problem in problems], student, **others)
    return {problems[i].id: [output_of(new, student) for new in several] for i, several in found.items()}

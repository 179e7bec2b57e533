"""Generate and grade: greedy by default, one record per problem, raw text kept."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kpod_lightning.answers import answers_equal, extract_answer
from kpod_lightning.datamodule import seed_batch
from kpod_lightning.errors import InputError
from kpod_lightning.examples import leading_specials
from kpod_lightning.problems import Problem
from kpod_lightning.ranks import gathered, share_of
from kpod_lightning.rationales import TEMPLATE, prompt_text
from kpod_lightning.statistics import wilson_interval
from kpod_lightning.students import Student


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Share of problems answered right, in [0, 1], with its 95 % Wilson interval."""

    num_right: int
    num_problems: int
    num_unparsable: int
    num_at_limit: int

    @property
    def value(self) -> float:
        return self.num_right / self.num_problems

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.num_right, self.num_problems)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{100 * self.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}] "
            f"({self.num_right} of {self.num_problems}; {self.num_unparsable} without an answer)"
        )


def prompt_ids(problem: Problem, student: Student, method: str = "plain") -> list[int]:
    """Token ids of what the student is shown, as in training; an encoder input is closed by EOS."""
    text = prompt_text(problem, method)
    if student.normalise is not None:
        text = student.normalise(text)
    ids = student.tokenizer(text, add_special_tokens=False).input_ids
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


def batches_by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Positions in batches of like length, longest first, so that memory runs out at once or not at all."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


@dataclass(frozen=True, kw_only=True)
class Output:
    """One continuation: text without special tokens, new tokens (EOS included), whether the limit cut it."""

    text: str
    num_tokens: int
    at_limit: bool


@torch.no_grad()
def generate(
    problems: Sequence[Problem],
    student: Student,
    *,
    method: str = "plain",
    batch_size: int = 32,
    max_new_tokens: int = 256,
    num_samples: int = 1,
    temperature: float = 0.7,
    seed: int = 0,
    track: Callable[[Iterable[list[int]]], Iterable[list[int]]] = lambda batches: batches,
) -> dict[str, list[Output]]:
    """Continue every problem's prompt: once and greedily, or ``num_samples`` times by sampling (self-consistency).

    Batches are composed of all problems and then dealt to the ranks, so that their number changes no text.

    Returns:
        problem id -> its outputs, of all problems on every rank. Samples depend on ``seed`` and on the batches; greedy
        outputs on neither.
    """
    device = next(student.model.parameters()).device
    rows = [prompt_ids(problem, student, method) for problem in problems]
    eos = student.tokenizer.eos_token_id
    choice: dict[str, Any] = {"do_sample": False, "num_beams": 1}
    if num_samples > 1:
        choice = {"do_sample": True, "num_return_sequences": num_samples, "temperature": temperature, "top_k": 0}
    found: dict[str, list[Output]] = {}
    was_training = student.model.training
    student.model.eval()
    with torch.random.fork_rng(enabled=num_samples > 1):
        for batch in track(share_of(batches_by_length([len(row) for row in rows], batch_size))):
            if num_samples > 1:
                seed_batch(seed, batch[0])
            ids, mask = pad_prompts([rows[i] for i in batch], student.pad_token_id, left=not student.encoder_decoder)
            output = student.model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=max_new_tokens,
                eos_token_id=eos,
                pad_token_id=student.pad_token_id,
                **choice,
            )
            # Decoder-only output repeats the prompt, an encoder-decoder's starts with its start token.
            new = output[:, 1 if student.encoder_decoder else ids.shape[1] :].tolist()
            found |= {problems[i].id: [] for i in batch}
            for i, row in zip((i for i in batch for _ in range(num_samples)), new, strict=True):
                ended = eos in row
                tokens = row[: row.index(eos) + 1] if ended else row
                text = student.tokenizer.decode(tokens, skip_special_tokens=True)
                found[problems[i].id].append(Output(text=text, num_tokens=len(tokens), at_limit=not ended))
    student.model.train(was_training)
    return gathered(found)


def majority(answers: Sequence[str | None]) -> int:
    """Position of the first sample that gives the most frequent answer; samples without one have no vote."""
    votes = Counter(answer for answer in answers if answer is not None)
    return list(answers).index(votes.most_common(1)[0][0]) if votes else 0


def grade(
    problems: Sequence[Problem], outputs: dict[str, list[Output]], *, variant: str = "flexible"
) -> list[dict[str, Any]]:
    """One record a problem, in the order of the problems; of several samples the majority answers (maj@k).

    Raises:
        InputError: a problem occurs twice or has no output: an accuracy over other problems would look right.
    """
    if len({problem.id for problem in problems}) != len(problems) or len(problems) != len(outputs):
        raise InputError(f"{len(problems)} problems but {len(outputs)} distinct outputs: every problem counts once")
    records = []
    for problem in problems:
        samples = outputs[problem.id]
        answers = [extract_answer(sample.text, kind=problem.kind, variant=variant) for sample in samples]
        chosen = majority(answers)
        record: dict[str, Any] = {
            "problem_id": problem.id,
            "question": problem.text,
            "answer": problem.answer,
            "text": samples[chosen].text,
            "predicted": answers[chosen],
            "right": answers_equal(answers[chosen], problem.answer, problem.kind),
            "num_tokens": samples[chosen].num_tokens,
            "at_limit": samples[chosen].at_limit,
            "template": TEMPLATE,
            "extractor": variant,
        }
        if len(samples) > 1:
            record["samples"] = [sample.text for sample in samples]
        records.append(record)
    return records


def accuracy(records: Sequence[dict[str, Any]]) -> Accuracy:
    """Accuracy over records; an unparsable output counts as wrong."""
    return Accuracy(
        num_right=sum(record["right"] for record in records),
        num_problems=len(records),
        num_unparsable=sum(record["predicted"] is None for record in records),
        num_at_limit=sum(record["at_limit"] for record in records),
    )

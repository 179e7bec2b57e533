"""Greedy outputs of test problems against transformers' ``generate()`` at batch 32, in problems a second.

The peer takes batches of 32 in the order of the problems, as a plain loop over the data does, and again in the order
of their lengths, which saves it padding. All write the same texts, and the share of equal ones is measured, too.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch

from benchmarks.measure import Options, Ratio, in_turns
from kpod_lightning.data.arithmetic import generate as make_problems
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.template import prompt_text
from kpod_lightning.evaluation.generate import decoding, decoding_with, generate, pad_prompts, prompt_ids
from kpod_lightning.students.student import Student, load_student

STUDENTS = ("tiny-llama", "tiny-t5")
NUM_PROBLEMS, BATCH_SIZE, MAX_NEW_TOKENS, ROUNDS = 128, 32, 160, 5
GOAL = 1.3


def ours(problems: Sequence[Problem], student: Student) -> list[str]:
    outputs = generate(problems, student, batch_size=BATCH_SIZE, max_new_tokens=MAX_NEW_TOKENS)
    return [outputs[problem.id][0].text for problem in problems]


@torch.no_grad()
def peer(problems: Sequence[Problem], student: Student, *, by_length: bool = False) -> list[str]:
    student.model.eval()
    rows = [prompt_ids(prompt_text(problem), student) for problem in problems]
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i])) if by_length else list(range(len(rows)))
    texts: dict[int, str] = {}
    with decoding_with(student.model, decoding(student, MAX_NEW_TOKENS)):
        for start in range(0, len(order), BATCH_SIZE):
            batch = order[start : start + BATCH_SIZE]
            left = not student.encoder_decoder
            ids, mask = pad_prompts([rows[i] for i in batch], student.pad_token_id, left=left)
            output = student.model.generate(input_ids=ids, attention_mask=mask)
            new = output[:, ids.shape[1] if left else 1 :]
            texts |= dict(zip(batch, student.tokenizer.batch_decode(new, skip_special_tokens=True), strict=True))
    return [texts[i] for i in range(len(rows))]


def measure(options: Options) -> Iterator[Ratio]:
    """Ratios of each student: to both orders of the peer's batches, and the share of texts that are the same."""
    number, rounds = (32, 1) if options.quick else (NUM_PROBLEMS, options.rounds or ROUNDS)
    problems = [made.problem for made in make_problems("test", number, seed=0, max_steps=3)]
    for name in STUDENTS:
        student = load_student(name)
        way = partial(ours, problems, student)
        row = partial(in_turns, f"{name}, {number} problems", rounds=rounds)
        yield row(f"HF generate, batch {BATCH_SIZE}", way, partial(peer, problems, student), goal=GOAL)
        yield row(f"HF generate, batch {BATCH_SIZE}, sorted", way, partial(peer, problems, student, by_length=True))
        same = [mine == theirs for mine, theirs in zip(way(), peer(problems, student), strict=True)]
        yield Ratio(
            name=f"{name}, texts that are the same", peer="HF generate", values=[float(np.mean(same))], goal=1.0
        )

"""Greedy outputs of test problems against transformers' ``generate()`` at batch 32; prints ratios of throughput.

The peer takes batches of 32 in the order of the problems, as a plain loop over the data does, and again in the order
of their lengths, which saves it padding. All write the same texts. CPU time of the process, one thread, in turns.

    python benchmarks/bench_evaluation.py [STUDENT ...]     (tiny-llama and tiny-t5 unless named; folders too)
"""

import statistics
import sys
import time
import warnings

import torch

from kpod_lightning.data.arithmetic import generate as make_problems
from kpod_lightning.data.template import prompt_text
from kpod_lightning.evaluation.generate import decoding, decoding_with, generate, pad_prompts, prompt_ids
from kpod_lightning.students.student import load_student

NUM_PROBLEMS, BATCH_SIZE, MAX_NEW_TOKENS, ROUNDS = 256, 32, 160, 5


def ours(problems, student) -> list[str]:
    outputs = generate(problems, student, batch_size=BATCH_SIZE, max_new_tokens=MAX_NEW_TOKENS)
    return [outputs[problem.id][0].text for problem in problems]


@torch.no_grad()
def peer(problems, student, by_length=False) -> list[str]:
    student.model.eval()
    rows = [prompt_ids(prompt_text(problem), student) for problem in problems]
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i])) if by_length else list(range(len(rows)))
    texts = {}
    with decoding_with(student.model, decoding(student, MAX_NEW_TOKENS)):
        for start in range(0, len(order), BATCH_SIZE):
            batch = order[start : start + BATCH_SIZE]
            left = not student.encoder_decoder
            ids, mask = pad_prompts([rows[i] for i in batch], student.pad_token_id, left=left)
            output = student.model.generate(input_ids=ids, attention_mask=mask)
            new = output[:, ids.shape[1] if left else 1 :]
            texts |= dict(zip(batch, student.tokenizer.batch_decode(new, skip_special_tokens=True), strict=True))
    return [texts[i] for i in range(len(rows))]


def compared(name: str, rounds: int = ROUNDS) -> dict[str, float]:
    """Ratios of one student: median, smallest and largest of the rounds; share of equal texts."""
    student = load_student(name)
    problems = [made.problem for made in make_problems("test", NUM_PROBLEMS, seed=0, max_steps=3)]
    ways = {"ours": ours, "peer": peer, "sorted": lambda *args: peer(*args, by_length=True)}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    texts = {}
    for turn in range(rounds + 1):  # the first one warms up
        for way, run in ways.items():
            began = time.process_time()
            texts[way] = run(problems, student)
            if turn:
                seconds[way].append(time.process_time() - began)
    ratios = [theirs / mine for theirs, mine in zip(seconds["peer"], seconds["ours"], strict=True)]
    by_length = [theirs / mine for theirs, mine in zip(seconds["sorted"], seconds["ours"], strict=True)]
    same = [mine == theirs for mine, theirs in zip(texts["ours"], texts["peer"], strict=True)]
    return {
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "ratio_to_sorted": statistics.median(by_length),
        "ours_seconds": statistics.median(seconds["ours"]),
        "same_texts": statistics.mean(same),
        "mean_characters": statistics.mean(map(len, texts["ours"])),
    }


def measure(names: tuple[str, ...] = ("tiny-llama", "tiny-t5"), rounds: int = ROUNDS) -> dict[str, float]:
    """Plain numbers by student, as ``tiny-llama/ratio``."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    return {f"{name}/{key}": value for name in names for key, value in compared(name, rounds).items()}


def main() -> None:
    names = tuple(sys.argv[1:]) or ("tiny-llama", "tiny-t5")
    found = measure(names)
    for name in names:
        ratio, least, most, by_length, seconds, same, size = (
            found[f"{name}/{key}"]
            for key in (
                "ratio",
                "ratio_min",
                "ratio_max",
                "ratio_to_sorted",
                "ours_seconds",
                "same_texts",
                "mean_characters",
            )
        )
        print(
            f"{name}: {ratio:.2f} times as many problems a second as generate() ({least:.2f} to {most:.2f} in {ROUNDS} "
            f"turns), {by_length:.2f} times where it sorts, too; {seconds:.1f} s of {NUM_PROBLEMS} problems, "
            f"{size:.0f} characters a text, {same:.1%} of the texts the same"
        )


if __name__ == "__main__":
    main()

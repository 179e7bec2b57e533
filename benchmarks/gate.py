"""Three ratios that may not fall by more than a fifth, for CI: `python -m benchmarks.gate`, `--write` records new ones.

They need no data and no fetched student, and take CPU time of one thread, so that a busy machine changes them little.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measure import RESULTS, Options, in_turns, rounded

RECORDED = RESULTS / "gate.json"
LARGEST_FALL = 0.2
TRIES, ROUNDS = 3, 3


def training() -> float:
    """Throughput of plain training against a bare loop on padded batches; a random Llama with a vocabulary of 6.6k.

    The examples are spread over all lengths, so that a loss of packing shows.
    """
    from benchmarks.contenders import BATCH_SIZE, Task, train
    from benchmarks.inputs import examples_of, student_of

    by_length = sorted(examples_of("tiny-llama", Options(), 40 * BATCH_SIZE), key=len)
    task = Task(examples=by_length[:: len(by_length) // (4 * BATCH_SIZE)], epochs=1)

    def epoch(contender: str) -> Callable[[], None]:
        student = student_of("llama-6.6k")
        return lambda: train(contender, task, student, lambda: None)

    with redirect_stdout(StringIO()):  # Lightning says how an epoch went
        return in_turns("training", "bare loop", epoch("plain"), epoch("bare"), rounds=ROUNDS).median


def tokenising() -> float:
    """Rationales to a train set's table, against the tokenizer alone on the same texts, one by one."""
    from benchmarks.inputs import rationales, write_table
    from kpod_lightning.data.template import answer_phrase, prompt_text
    from kpod_lightning.students.student import load_student

    student, made = load_student("tiny-llama"), rationales(Options(), 1000)
    texts = [f"{prompt_text(r.problem)} {r.text} {answer_phrase(r.problem)}" for r in made]

    def ours() -> None:
        with TemporaryDirectory() as folder:
            write_table(made, student, Path(folder) / "table")

    def alone() -> None:
        for text in texts:
            student.tokenizer(text, return_offsets_mapping=True)

    return in_turns("tokenising", "the tokenizer alone", ours, alone, rounds=ROUNDS).median


def evaluation() -> float:
    """Outputs a second against Hugging Face's ``generate`` on the same problems as they come, 32 at a time."""
    from benchmarks.inputs import rationales
    from kpod_lightning.data.template import prompt_text
    from kpod_lightning.evaluation.generate import generate
    from kpod_lightning.students.student import load_student

    student, limit = load_student("tiny-llama"), 64
    problems = [r.problem for r in rationales(Options(), 64)]
    student.tokenizer.padding_side = "left"
    student.model.eval()

    def theirs() -> None:
        for start in range(0, len(problems), 32):
            texts = [prompt_text(problem) for problem in problems[start : start + 32]]
            batch = student.tokenizer(texts, return_tensors="pt", padding=True)
            output = student.model.generate(**batch, do_sample=False, max_new_tokens=limit)
            student.tokenizer.batch_decode(output, skip_special_tokens=True)

    def ours() -> None:
        generate(problems, student, batch_size=32, max_new_tokens=limit)

    return in_turns("evaluation", "HF generate", ours, theirs, rounds=ROUNDS).median


RATIOS: dict[str, Callable[[], float]] = {"training": training, "tokenising": tokenising, "evaluation": evaluation}


def fallen(
    recorded: Mapping[str, float], measure: Callable[[str], float], tries: int = TRIES
) -> dict[str, tuple[float, list[float]]]:
    """Ratios that are below what is allowed in every try: name -> least that is allowed, what was measured.

    A ratio is measured again only where it fell: other work on the machine may have met one try.
    """
    found = {}
    for name, before in recorded.items():
        least, seen = (1 - LARGEST_FALL) * before, []
        while len(seen) < tries and (not seen or seen[-1] < least):
            seen.append(measure(name))
        if seen[-1] < least:
            found[name] = (least, seen)
    return found


def message(name: str, recorded: float, least: float, seen: list[float]) -> str:
    measured = ", ".join(f"{value:.2f}" for value in seen)
    return (
        f"speed gate: {name} is {max(seen):.2f} times its peer ({measured}), recorded {recorded:.2f}, at least "
        f"{least:.2f}: find what made it slower, or record it with `python -m benchmarks.gate --write`"
    )


def main(recorded_file: Path = RECORDED) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__)
    parser.add_argument("--write", action="store_true", help="record what is measured now")
    asked = parser.parse_args()
    from benchmarks.__main__ import quiet

    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread, as torch
    quiet(1)

    def measured(name: str) -> float:
        value = RATIOS[name]()
        print(f"speed gate: {name} {value:.2f}", flush=True)
        return value

    if asked.write:
        found = {name: measured(name) for name in RATIOS}
        recorded_file.write_text(json.dumps(rounded(found), indent=1) + "\n", encoding="utf-8")
        return 0
    recorded = json.loads(recorded_file.read_text(encoding="utf-8"))
    below = fallen(recorded, measured)
    for name, (least, seen) in below.items():
        print(message(name, recorded[name], least, seen), file=sys.stderr)
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())

"""Time to tokenise and align rationales, against the tokenizer alone on the same texts; prints the ratio.

``python benchmarks/bench_tokenising.py DATA_DIR`` takes GSM8K's train set; without a folder, 7,473 generated problems.
"""

import sys
import time
from pathlib import Path

from kpod_lightning.data.arithmetic import generate
from kpod_lightning.data.benchmarks import read_folder
from kpod_lightning.data.examples import make_example
from kpod_lightning.data.rationales import Rationale
from kpod_lightning.data.steps import split_steps
from kpod_lightning.data.template import answer_phrase, prompt_text
from kpod_lightning.students.student import load_student


def main() -> None:
    if len(sys.argv) > 1:
        problems = read_folder(Path(sys.argv[1]), "gsm8k")["train"]
    else:
        problems = [made.problem for made in generate("train", 7473, seed=0)]
    student = load_student("tiny-llama")
    texts = [f"{prompt_text(p)} {p.rationale} {answer_phrase(p)}" for p in problems]

    began = time.perf_counter()
    for text in texts:
        student.tokenizer(text, return_offsets_mapping=True)
    alone = time.perf_counter() - began

    began = time.perf_counter()
    for p in problems:
        rationale = Rationale(problem=p, text=p.rationale or "", steps=tuple(split_steps(p.rationale or "")))
        make_example(rationale, student.tokenizer, encoder_decoder=False)
    aligned = time.perf_counter() - began
    print(
        f"{len(problems)} rationales: {aligned:.1f} s, {aligned / alone:.2f} times the tokenizer alone ({alone:.1f} s)"
    )


if __name__ == "__main__":
    main()

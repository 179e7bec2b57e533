"""Students and examples that the benchmarks share: shipped and random ones, GSM8K's rationales or generated."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Options
from kpod_lightning.data.arithmetic import generate
from kpod_lightning.data.benchmarks import read_folder
from kpod_lightning.data.examples import Example, make_example
from kpod_lightning.data.rationales import Rationale
from kpod_lightning.data.steps import split_steps
from kpod_lightning.methods.base import method_of, run_settings
from kpod_lightning.methods.context import tokenise
from kpod_lightning.students.smollm2 import student_folder
from kpod_lightning.students.student import Student, load_student, load_tokenizer

VOCABULARIES = {"llama-6.6k": 6_600, "llama-49k": 49_152, "llama-151k": 151_936}
"""Random Llamas: 8 layers of 256, which differ in the head alone."""

SMOLLM = "smollm2-135m-q4"


def tokenizer_name(student: str) -> str:
    """Whose tokenizer gives a student's token lengths: its own, for a random Llama SmolLM2's, where it was fetched."""
    if student not in VOCABULARIES:
        return student
    return SMOLLM if student_folder().is_dir() else "tiny-llama"


def student_of(name: str) -> Student:
    """A student by its name, or a random Llama, the same in every process."""
    if name not in VOCABULARIES:
        return load_student(name)
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = load_tokenizer(tokenizer_name(name))
    config = LlamaConfig(
        vocab_size=VOCABULARIES[name],
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=8,
        num_attention_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    return Student(name=name, model=LlamaForCausalLM(config), tokenizer=tokenizer, encoder_decoder=False)


def rationales(options: Options, number: int | None = None) -> list[Rationale]:
    """GSM8K's own rationales where there is a folder of data, else generated ones; ``number`` of them, None: all."""
    if options.data_dir is None:
        problems: Any = (made.problem for made in generate("train", number or 7473, seed=0))
    else:
        problems = read_folder(options.data_dir, "gsm8k")["train"]
    texts = ((p, p.rationale or "") for p in islice(problems, number))
    return [Rationale(problem=p, text=text, steps=tuple(split_steps(text))) for p, text in texts]


def data_name(options: Options) -> str:
    return "generated arithmetic" if options.data_dir is None else "GSM8K, its own rationales"


def examples_of(student: str, options: Options, number: int) -> list[Example]:
    """Tokenised rationales. Of a random Llama the ids are random: only their number makes a difference."""
    tokenizer = load_tokenizer(tokenizer_name(student))
    found = [make_example(r, tokenizer, encoder_decoder=False) for r in rationales(options, number)]
    if student not in VOCABULARIES:
        return found
    rng, size = np.random.default_rng(0), VOCABULARIES[student]

    def ids(row: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(rng.integers(3, size, len(row)).tolist())

    return [Example(**(vars(e) | {"prompt_ids": ids(e.prompt_ids), "target_ids": ids(e.target_ids)})) for e in found]


def generated_examples(student: Student, number: int = 800) -> list[Example]:
    """Generated rationales, tokenised for a decoder-only student."""
    return [make_example(r, student.tokenizer, encoder_decoder=False) for r in rationales(Options(), number)]


def write_table(train: list[Rationale], student: Student, folder: Path) -> None:
    """Tokenise rationales into a table on disk, as a run of plain distillation does."""
    method = method_of(run_settings("plain")(seed=0, method="plain"))
    tokenise(train, student, method, 2**20, folder)

"""Fixtures: the shipped students, and a few problems with rationales that the generator makes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_cluster
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kpod_lightning.data.arithmetic import generate
from kpod_lightning.data.rationales import Rationale
from kpod_lightning.data.steps import split_steps
from kpod_lightning.distributed.harmless import HARMLESS_WARNINGS
from kpod_lightning.students.student import Student, load_student

torch.set_num_threads(1)  # models are tiny and two test processes share two cores


def pytest_configure(config: pytest.Config) -> None:
    """Ignore the warnings that a run ignores; pyproject.toml makes all others errors."""
    for message in HARMLESS_WARNINGS:
        config.addinivalue_line("filterwarnings", f"ignore:{message}")


@pytest.fixture(scope="session", params=["tiny-llama", "tiny-t5"])
def student(request) -> Student:
    return load_student(request.param)


@pytest.fixture(scope="session")
def rationales() -> list[Rationale]:
    made = generate("train", 12, seed=7)
    return [
        Rationale(problem=m.problem, text=m.problem.rationale, steps=tuple(split_steps(m.problem.rationale)))
        for m in made
    ]


@pytest.fixture(scope="session")
def reads_whole_numbers(tmp_path_factory, rationales) -> Path:
    """A small answer model whose tokens are words, blanks and whole numbers, unlike those of the shipped students."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["[PAD]", "[END]"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        [*(f" Therefore, the answer is {number}" for number in range(100)), *(r.text for r in rationales)], trainer
    )
    folder = tmp_path_factory.mktemp("students") / "whole-numbers"
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", eos_token="[END]")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(fast), pad_token_id=0, eos_token_id=1, bos_token_id=None, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def slurm(tmp_path_factory) -> Iterator[slurm_cluster.Cluster]:
    """A Slurm cluster of this machine alone."""
    if slurm_cluster.MISSING:
        missing = ", ".join(slurm_cluster.MISSING)
        pytest.skip(f"no {missing}: {slurm_cluster.HOW_TO_INSTALL} (Debian)")
    with slurm_cluster.running(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster

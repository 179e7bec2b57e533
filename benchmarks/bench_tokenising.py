"""Rationales to a train set's table: against `datasets.map` in batches, and against the tokenizer alone.

The peer tokenises prompt and target with the same tokenizer, character offsets included, and writes them as Arrow. It
finds no steps and no answer, and takes control tokens in a text for what they spell. Both run on one thread.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.inputs import rationales, write_table
from benchmarks.measure import Options, Ratio, in_turns
from kpod_lightning.data.rationales import Rationale
from kpod_lightning.data.texts import text_of
from kpod_lightning.students.student import load_student


def prompts_and_targets(train: Sequence[Rationale]) -> dict[str, list[str]]:
    texts = [text_of(rationale) for rationale in train]
    return {
        "prompt": [text.prompt for text in texts],
        "target": [f" {text.rationale} {text.answer_phrase}" for text in texts],
    }


def mapped(data: Any, tokenizer: Any, path: Path) -> None:
    """The peer: ids and offsets of every text of a ``datasets.Dataset`` in an Arrow file."""

    def tokens(rows: dict[str, list[str]]) -> Any:
        texts = [prompt + target for prompt, target in zip(rows["prompt"], rows["target"], strict=True)]
        return tokenizer(texts, return_offsets_mapping=True)

    data.map(
        tokens,
        batched=True,
        remove_columns=["prompt", "target"],
        cache_file_name=f"{path}.arrow",
        load_from_cache_file=False,
        new_fingerprint=os.urandom(8).hex(),
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """The tokenizer on one thread; it reads this variable at each call."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def in_a_folder(work: Callable[[Path], None]) -> Callable[[], None]:
    """The work, done in a new folder each time."""

    def done() -> None:
        with tempfile.TemporaryDirectory() as folder:
            work(Path(folder) / "made")

    return done


def against_the_tokenizer(options: Options, number: int | None, rounds: int) -> Ratio:
    """The table against calls of the tokenizer, a text each, that keep nothing."""
    train, student = rationales(options, number), load_student("tiny-llama")
    texts = [prompt + target for prompt, target in zip(*prompts_and_targets(train).values(), strict=True)]

    def alone() -> None:
        for text in texts:
            student.tokenizer(text, return_offsets_mapping=True)

    with one_thread():
        return in_turns(
            f"table of {len(train):,} rationales",
            "the tokenizer alone, text by text",
            in_a_folder(lambda folder: write_table(train, student, folder)),
            alone,
            rounds=rounds,
        )


def against_datasets(options: Options, number: int | None, rounds: int) -> Ratio:
    """The table against ``datasets.map``."""
    import datasets

    datasets.disable_progress_bars()
    train, student = rationales(options, number), load_student("tiny-llama")
    data = datasets.Dataset.from_dict(prompts_and_targets(train))
    with one_thread():
        return in_turns(
            f"table of {len(train):,} rationales",
            "datasets.map, batched",
            in_a_folder(lambda folder: write_table(train, student, folder)),
            in_a_folder(lambda path: mapped(data, student.tokenizer, path)),
            rounds=rounds,
            goal=1.0,
        )


def measure(options: Options) -> list[Ratio]:
    number, rounds = (500, 1) if options.quick else (None, options.rounds or 5)
    return [against(options, number, rounds) for against in (against_datasets, against_the_tokenizer)]

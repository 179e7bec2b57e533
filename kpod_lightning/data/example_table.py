"""A tokenised train set on disk, memory-mapped: made once, read by every rank and every later start of a run.

Ids, steps and spans of all examples are concatenated in flat arrays: an example is a slice, and the processes of a
machine share the pages that they read.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from torch.utils.data import Subset

from kpod_lightning.data.examples import Example
from kpod_lightning.data.views import first_asked
from kpod_lightning.store.keys import Keys

FLAT = {"prompt_ids": np.int32, "target_ids": np.int32, "step_of": np.int32, "spans": np.int32, "ids": np.uint8}
"""Flat arrays, a file each. ``ids`` are the bytes of the problems' ids; ``spans`` has two numbers a token."""

ROW = ("prompt_ids", "target_ids", "ids", "sample", "num_steps", "answer_start", "source")
"""Columns of ``rows.bin``: the example's ends in the flat arrays, numbers of its own, and the position of its rationale
among all of the run."""


class ExampleTable(Sequence[Example]):
    """Examples in a folder that ``save_examples`` wrote."""

    def __init__(self, folder: Path) -> None:
        self.flat = {name: np.memmap(folder / f"{name}.bin", kind, mode="r") for name, kind in FLAT.items()}
        rows = np.fromfile(folder / "rows.bin", np.int64).reshape(-1, len(ROW))
        self.column = {name: rows[:, i] for i, name in enumerate(ROW)}
        self.ends = {name: np.concatenate([[0], self.column[name]]) for name in ROW[:3]}
        self.keys = Keys(self.flat["ids"], self.column["ids"], self.column["sample"])

    def __len__(self) -> int:
        return len(self.column["sample"])

    @overload
    def __getitem__(self, position: int) -> Example: ...
    @overload
    def __getitem__(self, position: slice) -> list[Example]: ...
    def __getitem__(self, position: int | slice) -> Example | list[Example]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        i = range(len(self))[position]
        prompt, target = (slice(self.ends[n][i], self.ends[n][i + 1]) for n in ROW[:2])
        pairs = self.flat["spans"][2 * target.start : 2 * target.stop].reshape(-1, 2)
        return Example(
            key=self.keys[i],
            prompt_ids=tuple(self.flat["prompt_ids"][prompt].tolist()),
            target_ids=tuple(self.flat["target_ids"][target].tolist()),
            step_of=tuple(self.flat["step_of"][target].tolist()),
            spans=tuple(map(tuple, pairs.tolist())),
            num_steps=int(self.column["num_steps"][i]),
            answer_start=int(self.column["answer_start"][i]),
        )

    @property
    def sources(self) -> np.ndarray:
        """[N] position of each example's rationale among all of the run, ascending."""
        return self.column["source"]

    @property
    def lengths(self) -> np.ndarray:
        """[N] tokens of prompt and target together."""
        return np.diff(self.ends["prompt_ids"]) + np.diff(self.ends["target_ids"])

    @property
    def num_targets(self) -> np.ndarray:
        """[N] tokens of the target."""
        return np.diff(self.ends["target_ids"])

    def num_asked(self, position: int, num_input_steps: int) -> int:
        """Target tokens of an example that are asked where the first c steps are input."""
        target = slice(self.ends["target_ids"][position], self.ends["target_ids"][position + 1])
        return int(np.count_nonzero(self.flat["step_of"][target] >= num_input_steps))


def save_examples(examples: Iterable[Sequence[Example]], folder: Path) -> int:
    """Write a table into an empty folder, a few examples at a time. Returns how many.

    Args:
        examples: those of each rationale; none where the rationale is left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ends = np.zeros(3, np.int64)
    count = 0
    files = {name: (folder / f"{name}.bin").open("wb") for name in (*FLAT, "rows")}
    try:
        for source, example in ((source, example) for source, made in enumerate(examples) for example in made):
            name = example.key[0].encode("utf-8")
            flat = {
                "prompt_ids": example.prompt_ids,
                "target_ids": example.target_ids,
                "step_of": example.step_of,
                "spans": example.spans,
                "ids": list(name),
            }
            for column, values in flat.items():
                files[column].write(np.asarray(values, FLAT[column]).tobytes())
            ends += (len(example.prompt_ids), len(example.target_ids), len(name))
            row = [*ends, example.key[1], example.num_steps, example.answer_start, source]
            files["rows"].write(np.asarray(row, np.int64).tobytes())
            count += 1
    finally:
        for file in files.values():
            file.close()
    return count


def lengths_of(examples: Sequence[Example]) -> np.ndarray:
    """[N] tokens of prompt and target."""
    if isinstance(examples, Subset):
        return lengths_of(examples.dataset)[np.asarray(examples.indices)]  # type: ignore[arg-type]
    return examples.lengths if isinstance(examples, ExampleTable) else np.array([len(e) for e in examples])


def num_asked(examples: Sequence[Example], position: int, num_input_steps: int) -> int:
    """Target tokens of an example that are asked where the first c steps are input."""
    if isinstance(examples, ExampleTable):
        return examples.num_asked(position, num_input_steps)
    example = examples[position]
    return len(example.target_ids) - first_asked(example, num_input_steps)

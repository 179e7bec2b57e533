"""A tokenised train set on disk, memory-mapped: made once, read by every rank and every later start of a run.

Ids, steps and spans of all examples are concatenated in flat arrays: an example is a slice, and the processes of a
machine share the pages that they read.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from torch.utils.data import Subset

from kpod_lightning.data.examples import FLAT, ROW, Example, Examples, first_asked


class ExampleTable(Examples):
    """Examples in a folder that ``save_examples`` wrote."""

    def __init__(self, folder: Path) -> None:
        flat = {name: np.memmap(folder / f"{name}.bin", kind, mode="r") for name, kind in FLAT.items()}
        super().__init__(flat, np.fromfile(folder / "rows.bin", np.int64).reshape(-1, len(ROW)))


def save_examples(blocks: Iterable[Examples], folder: Path) -> int:
    """Write a table into an empty folder, a block of examples at a time. Returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    ends = np.zeros(3, np.int64)
    count = 0
    with ExitStack() as stack:
        files = {name: stack.enter_context((folder / f"{name}.bin").open("wb")) for name in (*FLAT, "rows")}
        for block in blocks:
            if not len(block):
                continue
            for name, kind in FLAT.items():
                files[name].write(np.asarray(block.flat[name], kind).tobytes())
            rows = block.rows.copy()
            rows[:, : len(ends)] += ends
            files["rows"].write(rows.tobytes())
            ends = rows[-1, : len(ends)]
            count += len(block)
    return count


def lengths_of(examples: Sequence[Example]) -> np.ndarray:
    """[N] tokens of prompt and target."""
    if isinstance(examples, Subset):
        return lengths_of(examples.dataset)[np.asarray(examples.indices)]  # type: ignore[arg-type]
    return examples.lengths if isinstance(examples, Examples) else np.array([len(e) for e in examples])


def kinds_of(examples: Sequence[Example]) -> np.ndarray:
    """[N] which of the texts of its rationale each example is, ``Text.kind``."""
    if isinstance(examples, Subset):
        return kinds_of(examples.dataset)[np.asarray(examples.indices)]  # type: ignore[arg-type]
    return examples.column["kind"] if isinstance(examples, Examples) else np.array([e.kind for e in examples])


def num_targets(examples: Sequence[Example]) -> np.ndarray:
    """[N] tokens of the target."""
    if isinstance(examples, Subset):
        return num_targets(examples.dataset)[np.asarray(examples.indices)]  # type: ignore[arg-type]
    return examples.num_targets if isinstance(examples, Examples) else np.array([len(e.target_ids) for e in examples])


def num_asked(examples: Sequence[Example], position: int, num_input_steps: int) -> int:
    """Target tokens of an example that are asked where the first c steps are input."""
    if isinstance(examples, Examples):
        return examples.num_asked(position, num_input_steps)
    example = examples[position]
    return len(example.target_ids) - first_asked(example, num_input_steps)

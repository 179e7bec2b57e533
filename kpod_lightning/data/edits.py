"""Which elements of two sequences a minimum edit distance does not match: those inserted, deleted or replaced."""

from collections.abc import Sequence

import numpy as np


def unmatched(first: Sequence[int], second: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Elements of each sequence that the Levenshtein alignment leaves without an equal partner.

    Of several minimal alignments that one is taken which, read from the end, matches where it can, else replaces, else
    leaves out an element of the first.

    Returns:
        [len(first)] and [len(second)] of bool.
    """
    distance = _distances(np.asarray(first), np.asarray(second))
    left, right = np.ones(len(first), bool), np.ones(len(second), bool)
    i, j = len(first), len(second)
    while i and j:
        if first[i - 1] == second[j - 1]:  # to match what is equal is never dearer
            left[i - 1] = right[j - 1] = False
            i, j = i - 1, j - 1
        elif distance[i, j] == distance[i - 1, j - 1] + 1:
            i, j = i - 1, j - 1
        elif distance[i, j] == distance[i - 1, j] + 1:
            i -= 1
        else:
            j -= 1
    return left, right


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[n + 1, m + 1] edit distances between the first i elements of one and the first j of the other."""
    columns = np.arange(len(second) + 1)
    rows = [columns]
    for i, element in enumerate(first, start=1):
        before = rows[-1]
        row = np.minimum(before[1:] + 1, before[:-1] + (second != element))
        # An insertion adds 1 to the left neighbour: a running minimum, once each column's own number is taken off.
        rows.append(np.minimum.accumulate(np.concatenate([[i], row]) - columns) + columns)
    return np.stack(rows)

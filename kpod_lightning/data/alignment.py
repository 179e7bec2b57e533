"""Alignment of two tokenisations of one text, by dynamic time warping; plain functions of strings and numbers."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=2**18)
def edit_distance(one: str, other: str) -> int:
    """Fewest insertions, deletions and replacements of a character that make one text the other (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(other, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


TIE = 1e-6
"""Of alignments with equal edit distances it takes the one whose unequal pairs share more: "12" goes with "1", and not
"=". It is too small to outweigh a distance in texts of less than a million tokens."""


def cost_of(one: str, other: str) -> float:
    """Of aligning two tokens: their edit distance, and ``TIE`` of it as a share of the longer one."""
    distance = edit_distance(one, other)
    return distance + TIE * distance / max(len(one), len(other), 1)


def costs(ones: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """[n, m] costs of all pairs; each pair of different texts is compared once."""
    rows, row_of = np.unique(np.array(ones), return_inverse=True)
    columns, column_of = np.unique(np.array(others), return_inverse=True)
    of_kinds = np.array([[cost_of(a, b) for b in columns.tolist()] for a in rows.tolist()])
    found: np.ndarray = of_kinds[row_of][:, column_of]
    return found


def warped(cost: np.ndarray) -> list[tuple[int, int]]:
    """The path from (0, 0) to (n - 1, m - 1) of least total cost, whose steps go on by one in either or in both.

    Of paths of equal cost it takes, seen from the end, that which goes back in both, else in the first.

    Args:
        cost: [n, m] of pairs; n and m are positive.
    """
    num_rows, num_columns = cost.shape
    total = [[float("inf")] * (num_columns + 1) for _ in range(num_rows + 1)]
    total[0][0] = 0.0
    for i, row in enumerate(cost.tolist(), start=1):
        above, here = total[i - 1], total[i]
        for j, value in enumerate(row, start=1):
            here[j] = value + min(above[j - 1], above[j], here[j - 1])
    i, j = num_rows, num_columns
    path = [(i - 1, j - 1)]
    while (i, j) != (1, 1):
        i, j = min((i - 1, j - 1), (i - 1, j), (i, j - 1), key=lambda place: total[place[0]][place[1]])
        path.append((i - 1, j - 1))
    return path[::-1]


def one_to_one(path: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The pairs of a path in which either stands in no other pair."""
    ones, others = (np.bincount([pair[side] for pair in path]) for side in (0, 1))
    return [(i, j) for i, j in path if ones[i] == others[j] == 1]


def same_tokens(ones: Sequence[str], others: Sequence[str]) -> list[tuple[int, int]]:
    """Places of tokens that are aligned one to one and are equal; tokens of nothing but blanks take no part.

    Args:
        ones: tokens of a text, without the blanks round them.
        others: tokens of the same text by another tokeniser.
    """
    of_ones, of_others = ([i for i, token in enumerate(tokens) if token] for tokens in (ones, others))
    if not of_ones or not of_others:
        return []
    path = warped(costs([ones[i] for i in of_ones], [others[j] for j in of_others]))
    pairs = [(of_ones[i], of_others[j]) for i, j in one_to_one(path)]
    return [(i, j) for i, j in pairs if ones[i] == others[j]]

"""Alignment of two tokenisations of one text, by dynamic time warping; plain functions of strings and numbers."""

from collections.abc import Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

TIE = 1e-6
"""Of alignments with equal edit distances it takes the one whose unequal pairs share more: "12" goes with "1", and not
"=". It is too small to outweigh a distance in texts of less than a million tokens."""


def costs(ones: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """[n, m] costs of aligning each pair of tokens: their edit distance (Levenshtein), and ``TIE`` of it as a share of
    the longer one."""
    distances = cdist(ones, others, scorer=Levenshtein.distance, dtype=np.float64)
    longer = np.maximum.outer([len(token) for token in ones], [len(token) for token in others])
    found: np.ndarray = distances * (1 + TIE / np.maximum(longer, 1))
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

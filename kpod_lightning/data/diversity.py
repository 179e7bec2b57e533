"""How alike texts are, by the Jaccard similarity of their word N-grams, and the most diverse of several."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from kpod_lightning.data.steps import n_grams


def gram_set(text: str, n: int = 3) -> set[tuple[str, ...]]:
    """The N-grams of a text's words; of fewer than N words the text as a whole."""
    return set(n_grams(text, n)) or {tuple(text.lower().split())}


def jaccard(one: set[Any], other: set[Any]) -> float:
    """Jaccard similarity |A and B| / |A or B| of two sets that are not empty, in [0, 1]."""
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def most_diverse(sets: Sequence[set[Any]], num_kept: int) -> list[int]:
    """Greedy max-min choice: the two least alike, then always the one whose highest similarity to the chosen is lowest.

    Args:
        sets: not empty ones; of equally good choices the first is taken.
        num_kept: how many are chosen, at least 2.

    Returns:
        Their positions, rising; all where there are no more than ``num_kept``.
    """
    every = range(len(sets))
    if len(sets) <= num_kept:
        return list(every)
    alike = [[jaccard(one, other) for other in sets] for one in sets]
    first, second = min(combinations(every, 2), key=lambda pair: alike[pair[0]][pair[1]])
    chosen = [first, second]
    while len(chosen) < num_kept:
        rest = [i for i in every if i not in chosen]
        chosen.append(min(rest, key=lambda i: max(alike[i][j] for j in chosen)))
    return sorted(chosen)

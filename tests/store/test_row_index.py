import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kpod_lightning.store.row_index import RowIndex


class Colliding(str):
    """An id with one of two hashes."""

    def __hash__(self) -> int:
        return len(self) % 2


NAMES = st.text("ab", max_size=3)
ROWS = st.lists(st.tuples(NAMES, st.integers(0, 2)), max_size=12)


def index_of(pairs: list[tuple[str, int]]) -> RowIndex:
    rows = [{"problem_id": name, "text": f"row {i}"} for i, (name, _) in enumerate(pairs)]
    return RowIndex(rows, (name for name, _ in pairs))


@given(ROWS, st.booleans())
def test_a_group_is_what_a_loop_over_all_rows_finds(pairs, collide):
    kind = Colliding if collide else str
    pairs = [(kind(name), sample) for name, sample in pairs]
    index = index_of(pairs)
    for name in {kind(text) for text in ("", "a", "b", "ab", "aab", "zzz")}:
        assert index.group(name) == [(i, index.rows[i]) for i, (other, _) in enumerate(pairs) if other == name]


@given(ROWS, st.booleans())
def test_the_first_repeated_sample_is_what_a_loop_over_all_pairs_finds(pairs, collide):
    kind = Colliding if collide else str
    pairs = [(kind(name), sample) for name, sample in pairs]
    expected = next(((pairs.index(pair), i) for i, pair in enumerate(pairs) if pair in pairs[:i]), None)
    assert index_of(pairs).repeated(np.array([sample for _, sample in pairs], np.int64)) == expected


@given(ROWS, st.lists(NAMES, max_size=6))
def test_the_first_row_of_an_unknown_problem_is_what_a_loop_finds(pairs, known):
    expected = next((i for i, (name, _) in enumerate(pairs) if name not in known), None)
    assert index_of(pairs).unknown(known) == expected


def test_an_unknown_problem_with_the_hash_of_a_known_one_is_in_no_known_group():
    index = index_of([(Colliding("a"), 0), (Colliding("b"), 0)])
    assert index.unknown([Colliding("a")]) is None
    assert [i for i, _ in index.group(Colliding("a"))] == [0]

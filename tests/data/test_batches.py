"""How a global batch is cut into the micro-batches of ranks."""

import numpy as np
import pytest

from kpod_lightning.data.batches import global_batches, num_global_batches, parts_of


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("num_micro_batches", "num_ranks"), [(1, 1), (4, 1), (1, 2), (2, 3)])
def test_the_parts_of_a_global_batch_have_each_of_its_examples_once(num_micro_batches, num_ranks, packed):
    lengths = np.random.default_rng(0).integers(10, 500, 23)
    parts = parts_of(lengths, num_micro_batches, num_ranks, packed=packed)
    assert len(parts) == num_micro_batches * num_ranks and min(map(len, parts)) >= 1
    assert sorted(np.concatenate(parts)) == list(range(23))


def test_packed_parts_have_about_the_same_number_of_tokens():
    lengths = np.array([9, 1, 8, 2, 7, 3, 6, 4])
    parts = parts_of(lengths, 2, 2, packed=True)
    assert [sorted(lengths[part].tolist()) for part in parts] == [[1, 9], [2, 8], [3, 7], [4, 6]]


def test_padded_parts_are_of_like_length_and_ranks_work_on_neighbours_at_the_same_time():
    lengths = np.array([9, 1, 8, 2, 7, 3, 6, 4])
    parts = [sorted(lengths[part].tolist()) for part in parts_of(lengths, 2, 2, packed=False)]
    assert parts == [[1, 2], [6, 7], [3, 4], [8, 9]]  # rank 0: 1 2, then 6 7; rank 1: 3 4, then 8 9


def test_a_batch_that_is_not_cut_keeps_its_order():
    assert parts_of(np.array([3, 1, 2]), 1, 1, packed=False)[0].tolist() == [0, 1, 2]


def test_examples_of_different_kinds_do_not_meet_where_they_are_kept_apart():
    kinds = np.array([0, 1, 1, 0, 2, 1, 0, 0, 1, 0])
    batches = global_batches(10, 2, seed=3, epoch=1, kinds=kinds)
    assert sorted(np.concatenate(batches)) == list(range(10))
    assert all(len(set(kinds[batch])) == 1 and len(batch) <= 2 for batch in batches)
    of_first = [kinds[batch[0]] for batch in batches]
    assert num_global_batches(10, 2, kinds) == len(batches) == 3 + 2 + 1
    one_kind = global_batches(10, 2, seed=3, epoch=1, kinds=np.full(10, 3))
    assert [each.tolist() for each in one_kind] == [each.tolist() for each in global_batches(10, 2, seed=3, epoch=1)]
    assert of_first != sorted(of_first)

"""Bookkeeping that costs the same at any size, against the plain arrays that it stands for."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baal_widgets.active.dataset import marks
from baal_widgets.active.dataset.base import SplittedDataset
from baal_widgets.active.dataset.marks import Marks


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 9), st.integers(0, 12))
def test_marks_are_what_plain_arrays_say_whatever_was_changed(seed, items, block, changes):
    rng, kept = np.random.default_rng(seed), marks.BLOCK
    marks.BLOCK = block
    try:
        plain = rng.integers(0, 3, items)
        held = Marks(plain.copy())
        for _ in range(changes):
            chosen, step = rng.permutation(items)[: rng.integers(items + 1)], int(rng.integers(0, 5))
            plain[chosen] = step
            held.mark(chosen.tolist(), step)
        assert held.steps.tolist() == plain.tolist()
        assert (held.n_labelled, held.highest) == ((plain > 0).sum(), plain.max())
        for labelled in (False, True):
            of_kind = np.flatnonzero((plain > 0) == labelled).tolist()
            assert [held.item_of(place, labelled) for place in range(len(of_kind))] == of_kind
        pool = np.flatnonzero(plain == 0).tolist()
        assert [held.place_in_pool(item) for item in pool] == list(range(len(pool)))
    finally:
        marks.BLOCK = kept


def test_a_few_look_ups_after_a_change_make_no_index_and_many_make_one():
    dataset = SplittedDataset(100_000, np.arange(100_000) % 3 == 0)
    pool = np.flatnonzero(np.arange(100_000) % 3)
    assert [dataset.pool_to_dataset(place) for place in (0, 5_000, 66_665)] == pool[[0, 5_000, 66_665]].tolist()
    assert dataset.labelled_to_dataset(33_333) == 99_999
    assert not dataset._cache
    assert dataset.pool_to_dataset(range(100)) == pool[:100].tolist()
    assert "pool" in dataset._cache
    dataset._mark([1], 2)
    assert (dataset.pool_to_dataset(0), dataset.dataset_to_pool(2), dataset.n_labelled) == (2, 0, 33_335)


@pytest.mark.slow
def test_a_label_among_ten_million_items_takes_no_pass_over_them():
    dataset = SplittedDataset(10_000_000)
    began = time.process_time()
    for place in range(200):
        item = dataset.pool_to_dataset(place * 40_000)
        dataset._mark([item], dataset.current_al_step + 1)
        dataset.dataset_to_pool(item + 1)
    taken = time.process_time() - began
    began = time.process_time()
    np.flatnonzero(dataset.labelled_map)
    assert taken / 200 < (time.process_time() - began) / 4

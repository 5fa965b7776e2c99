"""How scores become a ranking: ties, shuffling and chance."""

import random
import warnings

import numpy as np
import pytest
import torch

from baal_widgets.active.heuristics import (
    BALD,
    Certainty,
    Entropy,
    Margin,
    Precomputed,
    Random,
    Variance,
)

KINDS = [BALD, Certainty, Entropy, Margin, Variance]


@pytest.fixture
def logits(rng):
    return rng.normal(size=(12, 4, 6)) * 3


def test_ties_keep_the_order_of_the_items():
    assert BALD()(np.full((1000, 2, 3), 0.5)).tolist() == list(range(1000))
    assert Margin()(np.tile([[0.5, 0.5], [0.9, 0.1]], (500, 1))).tolist() == [
        *range(0, 1000, 2),
        *range(1, 1000, 2),
    ]
    assert Precomputed(reverse=True)(np.array([1, 3, 1, 3])).tolist() == [1, 3, 0, 2]
    assert Precomputed()(np.array([1, 3, 1, 3])).tolist() == [0, 2, 1, 3]


def test_uncertainties_of_batches_are_ordered_as_one():
    ordered = BALD().reorder_indices([np.array([0.1, 0.7]), np.array([0.3])])
    assert ordered.tolist() == BALD().reorder_indices([0.1, 0.7, 0.3]).tolist() == [1, 2, 0]
    assert Margin().reorder_indices(torch.tensor([0.1, 0.7, 0.3])).tolist() == [0, 2, 1]
    assert BALD().reorder_indices(np.array([np.nan, 0.1, 0.2])).tolist() == [2, 1, 0]
    assert BALD().reorder_indices([]).tolist() == []


def test_unsigned_scores_do_not_wrap_around():
    assert Precomputed(reverse=True)(np.array([0, 2, 1], np.uint8)).tolist() == [1, 2, 0]


@pytest.mark.parametrize("kind", [*KINDS, Random])
def test_the_same_seed_shuffles_the_same_way(kind, logits):
    first, again, other = (kind(shuffle_prop=0.5, seed=seed)(logits).tolist() for seed in (7, 7, 8))
    assert first == again
    assert first != other
    assert sorted(first) == list(range(12))


def test_shuffling_draws_places_with_its_probability_and_leaves_the_others():
    scores = np.arange(20_000.0)
    moved = np.mean(BALD(shuffle_prop=0.3, seed=0).reorder_indices(scores) != BALD().reorder_indices(scores))
    assert moved == pytest.approx(0.3, abs=0.02)
    assert np.mean(BALD(1.0, seed=0).reorder_indices(scores) != BALD().reorder_indices(scores)) > 0.99


def test_chance_is_our_own_and_leaves_the_global_states_alone(logits):
    before = np.random.get_state()[1].copy(), torch.get_rng_state(), random.getstate()
    for kind in [*KINDS, Random]:
        kind(shuffle_prop=0.5)(logits)
    after = np.random.get_state()[1], torch.get_rng_state(), random.getstate()
    assert np.array_equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert before[2] == after[2]


def test_random_looks_at_nothing_but_the_number_of_items(logits):
    logits[:] = np.nan
    assert np.array_equal(Random(seed=1)(logits), Random(seed=1)(np.zeros(12)))
    assert Random(seed=1)(logits).tolist() != Random(seed=2)(logits).tolist()


def test_giving_shuffle_prop_is_no_reason_to_warn(logits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BALD(0.1, "none"), BALD(shuffle_prop=0.0), Random(0.5), Variance(0.1, "sum"), Precomputed(0.2, True)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_zero_and_one_is_refused(share):
    with pytest.raises(ValueError, match="shuffle_prop between 0"):
        BALD(shuffle_prop=share)

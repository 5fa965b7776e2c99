from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baal_widgets.active.heuristics import GibbsSampling, Precomputed
from baal_widgets.risk import lure_risk, lure_weights, sequential_proposals


def expectation(losses, shares, asked):
    """The expected estimate over every order in which so many items can be drawn, and the chance of all orders."""
    total, chance = 0.0, 0.0
    for order in permutations(range(len(losses)), asked):
        q = sequential_proposals(shares, order)
        total += q.prod() * lure_risk(losses[list(order)], q, len(losses))
        chance += q.prod()
    return total, chance


@given(st.integers(1, 5), st.integers(0, 1000))
def test_the_estimate_is_unbiased_by_full_enumeration(asked, seed):
    rng = np.random.default_rng(seed)
    losses, shares = rng.normal(size=5), rng.dirichlet(np.ones(5)) + 0.01
    estimate, chance = expectation(losses, shares / shares.sum(), asked)
    assert chance == pytest.approx(1)
    assert estimate == pytest.approx(losses.mean())


def test_uniform_draws_weigh_one():
    n, asked = 50, 20
    assert np.allclose(lure_weights(1 / (n - np.arange(asked)), n), 1)


def test_a_pool_asked_as_a_whole_gives_its_mean_whatever_the_order(rng):
    losses = rng.normal(size=6)
    q = sequential_proposals(rng.dirichlet(np.ones(6)), np.arange(6))
    assert lure_risk(losses, q, 6) == pytest.approx(losses.mean())


def test_what_a_stochastic_heuristic_draws_can_be_corrected(rng):
    n, asked = 200, 40
    losses = rng.exponential(size=n)
    heuristic = GibbsSampling(Precomputed(reverse=True), asked, temperature=0.7, seed=0)
    plain, corrected = [], []
    for _ in range(400):
        ranks, distribution = heuristic.get_ranks(losses)  # asks for what it does badly on
        plain.append(losses[ranks].mean())
        corrected.append(lure_risk(losses[ranks], sequential_proposals(distribution, ranks), n))
    error = np.std(corrected) / np.sqrt(len(corrected))
    assert abs(np.mean(corrected) - losses.mean()) < 4 * error
    assert np.mean(plain) - losses.mean() > 20 * error


def test_proposals_are_shares_of_what_is_left():
    assert sequential_proposals([0.1, 0.2, 0.3, 0.4], [3, 0]).tolist() == pytest.approx([0.4, 0.1 / 0.6])
    with pytest.raises(ValueError, match="once"):
        sequential_proposals([0.5, 0.5], [0, 0])


@pytest.mark.parametrize("proposal", [[0.0, 0.5], [1.5], [[0.5]], [np.nan]])
def test_impossible_proposals_are_refused(proposal):
    with pytest.raises(ValueError, match="Expected a probability"):
        lure_weights(proposal, 10)


def test_numbers_must_fit():
    with pytest.raises(ValueError, match="in the pool, 2, got 3"):
        lure_weights([0.1] * 3, 2)
    with pytest.raises(ValueError, match="each of 2 asked items"):
        lure_risk([1.0], [0.1, 0.1], 5)

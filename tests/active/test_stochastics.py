import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, rankdata

from baal_widgets.active.heuristics import (
    BALD,
    Certainty,
    Entropy,
    GibbsSampling,
    Margin,
    PowerBALD,
    PowerEntropy,
    PowerSampling,
    Precomputed,
    RankBasedSampling,
)

KINDS = [PowerSampling, GibbsSampling, RankBasedSampling]
SCORES = np.array([0.1, 0.4, 0.0, 0.2, 0.3])


def sampler(kind, **options):
    return kind(Precomputed(reverse=True), **options)


def weights(kind, scores, temperature):
    """The paper's table 1, by hand."""
    if kind is PowerSampling:
        return scores ** (1 / temperature)
    if kind is GibbsSampling:
        return np.exp(scores / temperature)
    return rankdata(-scores) ** (-1 / temperature)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_distribution_is_that_of_the_paper(kind, temperature):
    expected = weights(kind, SCORES, temperature)
    told = sampler(kind, temperature=temperature, query_size=2).get_ranks(SCORES)[1]
    assert np.allclose(told, expected / expected.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_drawn_follows_the_distribution(kind):
    heuristic, n = sampler(kind, query_size=1, seed=0), 4000
    counts = np.bincount([heuristic(SCORES)[0] for _ in range(n)], minlength=len(SCORES))
    expected = heuristic.distribution(SCORES) * n
    some = expected > 0
    assert counts[~some].sum() == 0
    assert chisquare(counts[some], expected[some]).pvalue > 1e-3


def test_later_draws_follow_the_weights_of_what_is_left():
    heuristic, n = sampler(PowerSampling, query_size=2, seed=1), 6000
    drawn = np.array([heuristic(SCORES) for _ in range(n)])
    after_one = drawn[drawn[:, 0] == 1, 1]
    left = SCORES.copy()
    left[1] = 0
    expected = left / left.sum() * len(after_one)
    counts = np.bincount(after_one, minlength=len(SCORES))
    some = expected > 0
    assert chisquare(counts[some], expected[some]).pvalue > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", [Margin, Certainty, Entropy, BALD])
def test_what_the_base_heuristic_asks_first_is_likelier_whichever_way_it_counts(kind, base, rng):
    predictions = rng.dirichlet(np.ones(4), size=(30, 6)).transpose(0, 2, 1)
    distribution = kind(base()).distribution(predictions)
    order = base()(predictions)
    assert (np.diff(distribution[order]) <= 1e-12).all()
    assert distribution[order[0]] > distribution[order[-1]]


def test_a_certain_item_is_not_drawn_by_power_while_there_are_others():
    predictions = np.array([[1.0, 0.0], [0.6, 0.4], [0.5, 0.5]])[..., None]
    for base in (Margin(), Certainty(), Entropy()):
        orders = [PowerSampling(base, seed=seed)(predictions) for seed in range(50)]
        assert {order[-1] for order in orders} == {0}


@pytest.mark.parametrize("kind", KINDS)
def test_all_items_are_ranked_once_unless_a_size_is_given(kind):
    assert sorted(sampler(kind)(SCORES)) == list(range(5))
    assert len(sampler(kind, query_size=3)(SCORES)) == 3
    assert len(sampler(kind, query_size=99)(SCORES)) == 5
    assert len(sampler(kind).sized(2)(SCORES)) == 2
    assert len(sampler(kind, query_size=3).sized(2)(SCORES)) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_decides_what_is_drawn(kind, rng):
    scores = rng.random(50)
    one, two, other = (sampler(kind, seed=seed) for seed in (1, 1, 2))
    assert [one(scores).tolist() for _ in range(3)] == [two(scores).tolist() for _ in range(3)]
    assert one(scores).tolist() != other(scores).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_drawing_leaves_numpys_global_state_alone(kind):
    np.random.seed(3)
    before = np.random.get_state()[1].tolist()
    sampler(kind)(SCORES)
    assert np.random.get_state()[1].tolist() == before


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_that_cannot_be_scored_is_never_drawn_before_others(kind):
    scores = np.array([0.2, np.nan, 0.1, np.inf])
    with pytest.warns(UserWarning, match="2 of 4 items"):
        ranks, distribution = sampler(kind, seed=0).get_ranks(scores)
    assert sorted(ranks[:2]) == [0, 2]
    assert distribution[[1, 3]].tolist() == [0, 0]
    assert distribution.sum() == pytest.approx(1)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=20), st.floats(0.1, 10), st.sampled_from(KINDS))
def test_any_scores_give_a_distribution(scores, temperature, kind):
    ranks, distribution = sampler(kind, temperature=temperature, seed=0).get_ranks(np.array(scores))
    assert sorted(ranks) == list(range(len(scores)))
    assert distribution.sum() == pytest.approx(1)
    assert (distribution >= 0).all()


def test_the_aliases_draw_by_their_heuristic(rng):
    predictions = rng.dirichlet(np.ones(4), size=(30, 6)).transpose(0, 2, 1)
    for alias, base in ((PowerBALD, BALD), (PowerEntropy, Entropy)):
        told = alias(query_size=5, temperature=0.5).get_ranks(predictions)[1]
        scores = base().get_uncertainties(predictions) ** 2
        assert np.allclose(told, scores / scores.sum())


def test_the_ranking_tells_the_base_heuristics_scores(rng):
    predictions = rng.dirichlet(np.ones(4), size=(30, 6)).transpose(0, 2, 1)
    ranks, scores = PowerBALD(5, seed=0).ranking(predictions)
    assert sorted(ranks) == list(range(30))
    assert np.array_equal(scores, BALD().scores(predictions))


def test_batches_are_drawn_from_as_the_whole_is(rng):
    predictions = rng.dirichlet(np.ones(4), size=(30, 6)).transpose(0, 2, 1)
    assert np.array_equal(PowerBALD(seed=1)(iter(np.array_split(predictions, 4))), PowerBALD(seed=1)(predictions))


def test_many_scores_an_item_need_a_reduction(rng):
    maps = rng.dirichlet(np.ones(4), size=(6, 3, 5)).transpose(0, 3, 1, 2)
    with pytest.raises(ValueError, match="BALD, a reduction"):
        PowerBALD(2)(maps)
    assert len(PowerBALD(2, reduction="mean")(maps)) == 2


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan")])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature above 0"):
        PowerBALD(2, temperature=temperature)

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from baal_widgets.simulation.verdicts import (
    Evidence,
    above,
    bootstrap_interval,
    changes,
    holm,
    permutation_slope,
    sign_test,
    tost,
    verdict,
    weigh,
)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 20, 21, 50])
def test_t_tests_are_those_of_scipy_and_statsmodels(n, rng):
    for mean in (-0.3, 0.0, 0.01, 0.5):
        d = rng.normal(mean, 0.2, size=n)
        assert above(d, 0.1) == pytest.approx(stats.ttest_1samp(d, 0.1, alternative="greater").pvalue, abs=1e-12)
        assert tost(d, 0.15) == pytest.approx(DescrStatsW(d).ttost_mean(-0.15, 0.15)[0], abs=1e-12)


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=60))
def test_the_sign_test_is_scipys_binomial_test_without_ties(signs):
    wins, n = signs.count(1.0), len(signs) - signs.count(0.0)
    expected = stats.binomtest(wins, n).pvalue if n else 1.0
    assert sign_test(signs) == pytest.approx(expected)


def test_twenty_seeds_need_fifteen_wins():
    assert sign_test([1] * 15 + [-1] * 5) < 0.05 < sign_test([1] * 14 + [-1] * 6)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_that_of_statsmodels(p):
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1].tolist())


def test_the_bootstrap_is_scipys(rng):
    d = rng.exponential(size=20) - 0.5
    theirs = stats.bootstrap((d,), np.mean, n_resamples=20_000, method="percentile", rng=rng).confidence_interval
    assert bootstrap_interval(d) == pytest.approx(tuple(theirs), abs=0.02)
    assert bootstrap_interval(d) == bootstrap_interval(d)


def test_intervals_hold_the_mean_about_as_often_as_they_say(rng):
    held = [low < 0.2 < high for low, high in (bootstrap_interval(rng.normal(0.2, 1, 20), 1000) for _ in range(400))]
    assert 0.88 < np.mean(held) < 0.97


def test_the_permutation_test_approaches_the_full_enumeration(rng):
    levels, d = [0.0, 0.05, 0.1], rng.normal(size=(4, 3)) + [0.0, 0.5, 1.0]
    x = np.array(levels) - np.mean(levels)
    slopes = [sum(d[s] @ x[list(o)] for s, o in enumerate(each)) for each in product(permutations(range(3)), repeat=4)]
    exact = np.mean(np.abs(slopes) >= abs((d @ x).sum()) - 1e-12)
    assert permutation_slope(levels, d) == pytest.approx(exact, abs=0.01)
    assert permutation_slope(levels, np.ones((4, 3))) == 1.0


def test_changes_follow_the_least_squares_line(rng):
    levels, d = [1.0, 3.0, 5.0], rng.normal(size=(6, 3))
    lines = [stats.linregress(levels, row).slope * 4 for row in d]
    assert np.allclose(changes(levels, d), lines)


def judged(kind, d, margin=0.05):
    evidence = weigh(kind, d, margin)
    return verdict(kind, evidence, evidence.p)


def test_words_for_a_claimed_difference(rng):
    noise = rng.normal(0, 0.01, 20)
    assert judged("better", 0.1 + noise) == "reproduced"
    assert judged("better", -0.1 + noise) == "opposite"
    assert judged("better", np.tile([0.01, -0.01], 10)) == "not reproduced"  # shown to be less than the margin
    assert judged("better", np.tile([0.5, -0.5], 10)) == "inconclusive"
    assert judged("better", [0.1] * 5) == "inconclusive"  # five seeds can't tell by their signs


def test_words_for_claims_of_no_difference(rng):
    noise = rng.normal(0, 0.01, 20)
    for kind in ("same", "no_worse"):
        assert judged(kind, noise) == "reproduced"
        assert judged(kind, -0.1 + noise) == "not reproduced"
        assert judged(kind, np.tile([0.5, -0.5], 10)) == "inconclusive"
    assert judged("same", 0.1 + noise) == "not reproduced"
    assert judged("no_worse", 0.1 + noise) == "reproduced"


def test_correction_for_other_claims_can_make_a_claim_inconclusive():
    evidence = weigh("better", [0.2] * 15 + [-0.1] * 5, 0.02)
    assert evidence == Evidence(evidence.mean, evidence.interval, 15, 20, evidence.p, evidence.p_same)
    raised = holm([evidence.p, evidence.p])
    assert verdict("better", evidence, evidence.p) == "reproduced"
    assert verdict("better", evidence, raised[0]) == "inconclusive"


def test_a_trend_is_judged_by_its_permutations(rng):
    levels = [0.0, 0.5, 1.0]
    d = np.array(levels) * 0.3 + rng.normal(0, 0.05, (20, 3))
    for sign, word in ((1, "reproduced"), (-1, "opposite")):
        evidence = weigh("trend", changes(levels, sign * d), 0.02, permutation_slope(levels, sign * d))
        assert verdict("trend", evidence, evidence.p) == word
    with pytest.raises(ValueError, match="p of a trend"):
        weigh("trend", changes(levels, d), 0.02)


def test_what_cannot_be_weighed_is_refused():
    for wrong in ([], [np.nan, 1.0], [[1.0]]):
        with pytest.raises(ValueError, match="finite differences"):
            weigh("better", wrong, 0.1)
    with pytest.raises(ValueError, match="margin above 0"):
        weigh("better", [1.0, 2.0], 0.0)
    with pytest.raises(ValueError, match="two or more seeds"):
        weigh("better", [1.0], 0.1)
    with pytest.raises(ValueError, match="two or more levels"):
        permutation_slope([1.0], np.ones((3, 1)))

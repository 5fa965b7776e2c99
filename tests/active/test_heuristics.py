"""Baal's heuristics at Baal's path, and where they are right when Baal's are not."""

import numpy as np
import pytest

from baal_widgets.active.heuristics import (
    BALD,
    HEURISTICS,
    AbstractHeuristic,
    Certainty,
    Entropy,
    Margin,
    Precomputed,
    Variance,
    get_heuristic,
)
from baal_widgets.active.scores import bald, certainty, margin, predictive_entropy

KINDS = [BALD, Certainty, Entropy, Margin, Variance]
OF_PROBABILITIES = [BALD, Certainty, Entropy, Margin]


@pytest.fixture
def logits(rng):
    return rng.normal(size=(12, 4, 6)) * 3


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("kind", "score", "high"),
    [
        (BALD, bald, True),
        (Entropy, predictive_entropy, True),
        (Margin, margin, False),
        (Certainty, certainty, False),
    ],
)
def test_uncertainties_have_the_sign_of_baal_and_scores_ask_the_highest_first(kind, score, high, logits):
    heuristic, expected = kind(), score(softmax(logits))
    assert heuristic.reversed is high
    assert np.allclose(heuristic.get_uncertainties(logits), expected if high else -expected)
    assert np.allclose(heuristic.scores(logits), expected)
    assert np.array_equal(heuristic(logits), np.argsort(-expected, kind="stable"))


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_come_with_the_uncertainties_they_order(kind, logits):
    ranks, uncertainties = kind().get_ranks(logits)
    ordered = uncertainties[ranks]
    assert sorted(ranks) == list(range(12))
    assert np.array_equal(ordered, np.sort(ordered)[::-1] if kind().reversed else np.sort(ordered))


@pytest.mark.parametrize("kind", OF_PROBABILITIES)
def test_logits_and_their_probabilities_rank_alike(kind, logits):
    p = softmax(logits)
    expected = kind().get_uncertainties(p)
    for predictions, from_logits in ((logits, "auto"), (logits, True), (p, False), (p.astype(np.float32), "auto")):
        assert np.allclose(kind(from_logits=from_logits).get_uncertainties(predictions), expected, atol=1e-6)


def test_half_precision_probabilities_are_not_softmaxed_again(logits):
    p = softmax(logits)
    assert np.allclose(BALD().get_uncertainties(p.astype(np.float16)), BALD().get_uncertainties(p), atol=5e-3)


def test_probabilities_are_averaged_and_not_logits():
    torn = [[20.0, -20.0], [-20.0, 20.0]]  # two certain draws that contradict each other
    tame = [[0.0, 0.1], [0.1, 0.0]]
    sharp = [[3.0, 3.0], [0.0, 0.0]]
    x = np.array([sharp, torn, tame])
    assert Entropy().get_uncertainties(x)[1] == pytest.approx(np.log(2))
    assert Margin().get_uncertainties(x)[1] == pytest.approx(0, abs=1e-6)
    assert Certainty().get_uncertainties(x)[1] == pytest.approx(0.5)


@pytest.mark.parametrize("kind", OF_PROBABILITIES)
def test_a_yes_or_no_model_scores_as_the_two_classes_that_it_means(kind, rng):
    yes = rng.uniform(size=(8, 1, 5))
    both = np.concatenate([1 - yes, yes], axis=1)
    logit = np.log(yes / (1 - yes))
    expected = kind().get_uncertainties(both)
    assert np.allclose(kind().get_uncertainties(yes), expected)
    assert np.allclose(kind(from_logits=True).get_uncertainties(logit), expected)


def test_variance_takes_values_as_they_are_unless_told(rng):
    values = 100 * rng.normal(size=(6, 2, 9))
    assert np.allclose(Variance().get_uncertainties(values), values.var(-1).mean(1))
    assert np.allclose(Variance(from_logits=True).get_uncertainties(values), softmax(values).var(-1).mean(1))
    assert np.allclose(Variance(from_logits="auto").get_uncertainties(values), softmax(values).var(-1).mean(1))


def test_bald_without_draws_says_what_to_do(rng):
    with pytest.raises(ValueError, match=r"\(5, 3\).*predictions\[..., None\]"):
        BALD()(rng.dirichlet(np.ones(3), size=5))


def test_a_single_pass_is_enough_for_entropy_margin_and_certainty(rng):
    p = rng.dirichlet(np.ones(3), size=5)
    for kind in (Entropy, Margin, Certainty):
        assert np.array_equal(kind()(p), kind()(p[..., None]))


@pytest.mark.parametrize("name", ["random", "certainty", "entropy", "margin", "bald", "variance", "precomputed"])
def test_every_heuristic_is_found_by_its_name(name):
    heuristic = get_heuristic(name, 0.1, "mean", seed=0)
    assert type(heuristic) is HEURISTICS[name]
    assert (heuristic.shuffle_prop, heuristic.reduction) == (0.1, "mean")
    assert type(get_heuristic(name.upper())) is type(heuristic)
    assert get_heuristic(heuristic) is heuristic


def test_names_leave_a_heuristic_its_own_reduction():
    assert get_heuristic("variance").reduction == "mean"
    assert get_heuristic("bald").reduction == "none"
    assert get_heuristic("bald", from_logits=True).from_logits is True


def test_unknown_names_and_reductions_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"bald.*variance.*'gut feeling'"):
        get_heuristic("gut feeling")
    with pytest.raises(ValueError, match=r"max.*sum.*'median'"):
        BALD(reduction="median")


def test_precomputed_scores_pass_through_and_are_not_written_to():
    given = np.array([0.3, np.nan, 0.1])
    with pytest.warns(UserWarning, match="1 of 3"):
        assert Precomputed()(given).tolist() == [2, 0, 1]
    assert np.isnan(given[1])


def test_a_heuristic_of_ones_own_is_a_score_or_a_compute_score(logits):
    class Spread(AbstractHeuristic):
        """Written as for Baal."""

        def __init__(self):
            super().__init__(reverse=True, reduction="max")

        def compute_score(self, predictions):
            return predictions.max(-1) - predictions.min(-1)

    class Doubt(AbstractHeuristic):
        score = staticmethod(certainty)

    assert np.array_equal(Spread()(logits), np.argsort(-np.ptp(logits, -1).max(1), kind="stable"))
    assert np.array_equal(Spread()(iter([logits[:5], logits[5:]])), Spread()(logits))
    assert np.array_equal(Doubt()(logits), Certainty()(logits))
    with pytest.raises(NotImplementedError, match="compute_score"):
        AbstractHeuristic()(logits)

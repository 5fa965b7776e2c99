"""Laws of the scores, and references for them."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from baal_widgets.active import scores
from baal_widgets.active.scores import (
    bald,
    certainty,
    entropy,
    expected_entropy,
    margin,
    predictive_entropy,
    to_probabilities,
    variance,
)

EVERY = [getattr(scores, name) for name in scores.__all__ if name not in ("entropy", "to_probabilities")]
OF_PROBABILITIES = [bald, certainty, expected_entropy, margin, predictive_entropy]


@st.composite
def logits(draw):
    """`[item, class, draw]`, from bland to extreme, in either precision."""
    items, classes, draws = draw(st.integers(1, 5)), draw(st.integers(2, 6)), draw(st.integers(1, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.01, 1.0, 30.0, 3000.0]))
    return (scale * rng.normal(size=(items, classes, draws))).astype(draw(st.sampled_from([np.float32, np.float64])))


def near(left, right):
    return np.allclose(left, right, rtol=1e-4, atol=1e-5)


@given(logits())
def test_bald_is_never_negative_and_never_above_log_of_classes_or_draws(x):
    score = bald(to_probabilities(x, True))
    assert (score >= 0).all()
    assert (score <= np.log(min(x.shape[1], x.shape[2])) + 1e-5).all()


def test_rounding_does_not_make_bald_negative_where_all_draws_agree(rng):
    p = np.repeat(rng.dirichlet(np.ones(10), size=500)[..., None], 7, axis=-1).astype(np.float32)
    assert (predictive_entropy(p) < expected_entropy(p)).any()
    assert (bald(p) >= 0).all()
    assert np.allclose(bald(p), 0, atol=1e-6)


@given(logits())
def test_total_uncertainty_is_what_labels_teach_plus_what_they_cannot(x):
    p = to_probabilities(x, True)
    assert near(predictive_entropy(p), bald(p) + expected_entropy(p))


@given(logits())
def test_entropies_lie_between_zero_and_log_of_the_classes(x):
    p = to_probabilities(x, True)
    for score in (predictive_entropy(p), expected_entropy(p)):
        assert (score >= 0).all()
        assert (score <= np.log(x.shape[1]) + 1e-5).all()


@pytest.mark.parametrize("score", EVERY)
@given(x=logits(), seed=st.integers(0, 99))
def test_scores_do_not_mind_the_order_of_draws(score, x, seed):
    p = to_probabilities(x, True)
    assert near(score(p), score(p[..., np.random.default_rng(seed).permutation(p.shape[-1])]))


@pytest.mark.parametrize("score", OF_PROBABILITIES)
@given(x=logits(), seed=st.integers(0, 99))
def test_scores_do_not_mind_the_order_of_classes(score, x, seed):
    p = to_probabilities(x, True)
    assert near(score(p), score(p[:, np.random.default_rng(seed).permutation(p.shape[1])]))


@pytest.mark.parametrize("score", EVERY)
@given(x=logits())
def test_an_item_scores_the_same_alone(score, x):
    p = to_probabilities(x, True)
    assert near(score(p), np.concatenate([score(p[i : i + 1]) for i in range(len(p))]))


@given(logits(), st.floats(-50, 50))
def test_a_constant_added_to_all_logits_of_a_draw_changes_nothing(x, shift):
    x = x.astype(np.float64)
    assert near(bald(to_probabilities(x, True)), bald(to_probabilities(x + shift, True)))


@pytest.mark.parametrize("score", [predictive_entropy, margin, certainty])
def test_nothing_is_less_certain_than_all_classes_alike(score, rng):
    uniform = np.full((1, 5, 3), 0.2)
    others = rng.dirichlet(np.ones(5), size=(100, 3)).transpose(0, 2, 1)
    assert score(uniform)[0] >= score(others).max()


@pytest.mark.parametrize("score", [predictive_entropy, margin, certainty])
def test_higher_means_ask_first(score):
    sure, doubtful = [[0.98], [0.01], [0.01]], [[0.4], [0.35], [0.25]]
    low, high = score(np.array([sure, doubtful]))
    assert low < high


def test_draws_that_disagree_are_asked_before_draws_that_agree_to_be_unsure():
    agree, differ = [[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]]
    p = np.array([agree, differ])
    assert np.allclose(bald(p), [0, np.log(2)])
    assert np.allclose(predictive_entropy(p), np.log(2))
    assert np.allclose(expected_entropy(p), [np.log(2), 0])
    assert np.allclose(variance(p), [[0, 0], [0.25, 0.25]])


def test_a_hand_worked_example_of_two_draws_and_two_classes():
    p = np.array([[[0.9, 0.5], [0.1, 0.5]]])  # the mean is 0.7, 0.3
    total = -0.7 * np.log(0.7) - 0.3 * np.log(0.3)
    noise = (-0.9 * np.log(0.9) - 0.1 * np.log(0.1) + np.log(2)) / 2
    assert bald(p) == pytest.approx(total - noise)
    assert margin(p) == pytest.approx(-0.4)
    assert certainty(p) == pytest.approx(-0.7)


def test_entropies_are_those_of_scipy(rng):
    p = rng.dirichlet(np.ones(6), size=(50, 8)).transpose(0, 2, 1)
    assert np.allclose(predictive_entropy(p), scipy.stats.entropy(p.mean(-1), axis=1))
    assert np.allclose(expected_entropy(p), scipy.stats.entropy(p, axis=1).mean(-1))
    assert np.allclose(entropy(p[..., 0]), scipy.stats.entropy(p[..., 0], axis=1))


@pytest.mark.parametrize("zeros", [slice(0), slice(0, 1), slice(2500, 2501), slice(None)])
def test_bald_of_many_items_is_that_of_double_precision_wherever_zeros_lie(rng, zeros):
    odds = rng.exponential(size=(3000, 6, 20)).astype(np.float32)  # more than one room of them
    odds[zeros, 2] = 0
    p = odds / odds.sum(axis=1, keepdims=True)
    by_hand = scipy.stats.entropy(p.astype(float).mean(axis=-1), axis=1)
    by_hand -= scipy.special.entr(p.astype(float)).sum(axis=1).mean(axis=-1)
    assert np.abs(bald(p) - by_hand).max() < 1e-6


def test_bald_is_the_mean_divergence_of_the_draws_from_their_mean(rng):
    p = rng.dirichlet(np.ones(6), size=(50, 8)).transpose(0, 2, 1)
    divergence = [[scipy.stats.entropy(one, item.mean(-1)) for one in item.T] for item in p]
    assert np.allclose(bald(p), np.mean(divergence, axis=1))


def test_variance_margin_and_certainty_are_what_a_loop_finds(rng):
    p = rng.dirichlet(np.ones(4), size=(20, 7)).transpose(0, 2, 1)
    for item, spread, gap, top in zip(p, variance(p), margin(p), certainty(p), strict=True):
        mean = sorted(item.mean(-1))
        assert np.allclose(spread, [np.mean((draws - draws.mean()) ** 2) for draws in item])
        assert gap == pytest.approx(mean[-2] - mean[-1])
        assert top == pytest.approx(-mean[-1])


@pytest.mark.parametrize("score", EVERY)
def test_pixels_are_scored_as_if_each_were_an_item(score, rng):
    maps = rng.dirichlet(np.ones(4), size=(3, 2, 5, 6)).transpose(0, 4, 1, 2, 3)  # [item, class, high, wide, draw]
    scored = score(maps)
    for high, wide in np.ndindex(2, 5):
        assert np.allclose(scored[..., high, wide], score(maps[:, :, high, wide]))


@pytest.mark.parametrize("score", [predictive_entropy, margin, certainty])
def test_a_single_pass_may_leave_out_the_draw_axis(score, rng):
    p = rng.dirichlet(np.ones(4), size=5)
    assert np.array_equal(score(p), score(p[..., None]))


@pytest.mark.parametrize("score", [bald, expected_entropy, variance])
def test_comparing_draws_needs_a_draw_axis(score, rng):
    with pytest.raises(ValueError, match=r"\(5, 4\).*predictions\[..., None\]"):
        score(rng.dirichlet(np.ones(4), size=5))


def test_a_margin_needs_two_classes():
    with pytest.raises(ValueError, match="at least two classes"):
        margin(np.ones((3, 1, 2)))


@pytest.mark.parametrize("score", EVERY)
def test_a_nan_leaves_the_other_items_bit_for_bit_alone(score, rng):
    p = rng.dirichlet(np.ones(4), size=(9, 6)).transpose(0, 2, 1).astype(np.float32)
    before = score(p)
    p[4, 1, 2] = np.nan
    after = score(p)
    assert np.isnan(after[4]).any()
    assert np.array_equal(np.delete(before, 4, 0), np.delete(after, 4, 0))


@pytest.mark.parametrize("score", EVERY)
def test_arrays_and_tensors_score_alike_and_come_back_as_they_went_in(score, rng):
    p = rng.dirichlet(np.ones(4), size=(9, 6)).transpose(0, 2, 1)
    kept = p.copy()
    tensor = torch.from_numpy(p).requires_grad_()
    assert isinstance(score(p), np.ndarray)
    assert isinstance(score(tensor), torch.Tensor)
    assert np.array_equal(score(p), score(tensor).detach().numpy())
    assert np.array_equal(p, kept)


@pytest.mark.parametrize("score", EVERY)
def test_half_precision_is_computed_in_single(score, rng):
    p = rng.dirichlet(np.ones(4), size=(9, 6)).transpose(0, 2, 1).astype(np.float16)
    assert score(p).dtype == np.float32
    assert np.array_equal(score(p), score(p.astype(np.float32)))
    assert score(p.astype(np.float64)).dtype == np.float64


@pytest.mark.gpu
@pytest.mark.parametrize("score", EVERY)
def test_the_device_does_not_matter(score, rng):
    p = torch.from_numpy(rng.dirichlet(np.ones(4), size=(9, 6)).transpose(0, 2, 1))
    assert score(p.cuda()).device.type == "cuda"
    assert torch.allclose(score(p.cuda()).cpu(), score(p))

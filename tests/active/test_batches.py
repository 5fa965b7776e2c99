"""Batches picked by joint information against full enumeration, batchbald_redux and Baal."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baal_widgets.active import batches
from baal_widgets.active.batches import Picks, batchbald, epig, ical, joint_entropy
from baal_widgets.active.scores import bald

BATCHES = [
    lambda p, n, **options: batchbald(p, n, rng=0, **options),
    lambda p, n, **options: ical(p, n, rng=0, **options),
]


def predictions(rng, items, classes, draws, scale=2.0):
    """Probabilities `[item, class, draw]` whose draws differ."""
    logits = scale * (rng.normal(size=(items, classes, 1)) + rng.normal(size=(items, classes, draws)))
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


@st.composite
def pools(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(1, 8)), draw(st.integers(2, 4)), draw(st.integers(1, 6))
    return predictions(rng, *shape, scale=draw(st.sampled_from([0.1, 2.0, 50.0])))


def enumerated_entropy(p):
    """The entropy of the items' labels together, one configuration after another."""
    total = 0.0
    for labels in itertools.product(range(p.shape[1]), repeat=len(p)):
        probability = np.mean([np.prod([p[i, y, t] for i, y in enumerate(labels)]) for t in range(p.shape[2])])
        total -= probability * math.log(probability) if probability > 0 else 0.0
    return total


def enumerated_information(p):
    """I(labels; weights) of the items together."""
    noise = sum(-x * math.log(x) for x in p.flatten() if x > 0) / p.shape[2]
    return enumerated_entropy(p) - noise


def assert_sorting_gives_the_picks(picks, n):
    first = np.argsort(-picks.scores, kind="stable")[:n]
    assert first.tolist() == picks.items.tolist()
    assert (np.diff(picks.scores[picks.items]) <= 0).all()


def test_joint_entropy_is_that_of_all_configurations(rng):
    p = predictions(rng, 4, 3, 5)
    assert joint_entropy(p) == pytest.approx(enumerated_entropy(p), abs=1e-12)
    assert joint_entropy(torch.tensor(p)) == pytest.approx(joint_entropy(p), abs=1e-12)


def test_joint_entropy_of_too_many_items_is_refused(rng):
    with pytest.raises(ValueError, match="a handful of items, got 20"):
        joint_entropy(predictions(rng, 20, 3, 5))


def test_every_batchbald_pick_is_the_best_addition_and_scores_what_it_adds(rng):
    p = predictions(rng, 7, 3, 4)
    picks = batchbald(p, 4)
    batch, known = [], 0.0
    for item in picks.items:
        information = {i: enumerated_information(p[[*batch, i]]) for i in range(7) if i not in batch}
        assert item == max(information, key=information.get)
        assert picks.scores[item] == pytest.approx(information[item] - known, abs=1e-12)
        batch.append(item)
        known = information[item]
    for item in set(range(7)) - set(batch):
        left = min(enumerated_information(p[[*batch, item]]) - known, picks.scores[batch[-1]])
        assert picks.scores[item] == pytest.approx(left, abs=1e-12)


def test_batchbald_agrees_with_batchbald_redux(rng):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from batchbald_redux.batchbald import get_batchbald_batch

        p = predictions(rng, 40, 3, 8)
        theirs = get_batchbald_batch(torch.tensor(p).log().permute(0, 2, 1), 5, 10_000, dtype=torch.double)
    ours = batchbald(p, 5)
    assert ours.items.tolist() == theirs.indices
    # theirs are the information of the batch so far, ours what each pick added to it
    assert np.allclose(ours.scores[ours.items].cumsum(), theirs.scores, atol=1e-9)


@given(pools())
def test_batchbald_begins_as_bald_does(p):
    picks = batchbald(p, 1)
    assert bald(p)[picks.items[0]] == pytest.approx(bald(p).max(), abs=1e-9)
    assert picks.scores.max() == pytest.approx(bald(p).max(), abs=1e-9)


@given(pools(), st.integers(1, 5))
@settings(max_examples=50)
def test_greedy_information_is_within_its_guarantee_of_the_best_batch(p, n):
    n = min(n, len(p), 3)
    found = batchbald(p, n).items
    best = max(enumerated_information(p[list(batch)]) for batch in itertools.combinations(range(len(p)), n))
    assert enumerated_information(p[found]) >= (1 - 1 / math.e) * best - 1e-9


@pytest.mark.parametrize("choose", BATCHES)
@given(p=pools(), n=st.integers(1, 10))
@settings(max_examples=40)
def test_sorting_by_score_gives_the_picks_in_the_order_picked(choose, p, n):
    picks = choose(p, n)
    assert len(set(picks.items.tolist())) == len(picks.items) == min(n, len(p))
    assert picks.items.dtype == np.int64
    assert (picks.scores >= 0).all()
    assert_sorting_gives_the_picks(picks, n)


@pytest.mark.parametrize("choose", BATCHES)
@given(p=pools(), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_picks_do_not_mind_the_order_of_draws(choose, p, seed):
    shuffled = p[..., np.random.default_rng(seed).permutation(p.shape[2])]
    assert np.allclose(choose(p, 3).scores, choose(shuffled, 3).scores, atol=1e-8)


@pytest.mark.parametrize("choose", BATCHES)
def test_picks_move_with_the_items(choose, rng):
    p = predictions(rng, 30, 4, 6)
    order = rng.permutation(30)
    picks, moved = choose(p, 5), choose(p[order], 5)
    assert order[moved.items].tolist() == picks.items.tolist()
    assert np.allclose(moved.scores, picks.scores[order])


@pytest.mark.parametrize("n", [5, 8])
def test_sampled_information_is_close_to_the_exact(rng, n):
    p = predictions(rng, 30, 3, 10)
    exact, sampled = batchbald(p, n, samples=10**5), batchbald(p, n, samples=500, rng=rng)
    at = [batchbald(p, n, samples=500, rng=seed).scores[sampled.items].sum() for seed in range(3)]
    assert np.allclose(at, exact.scores[exact.items].sum(), rtol=0.03)
    assert np.abs(sampled.scores - exact.scores).max() < 0.03


def test_sampling_is_unbiased(rng):
    p = predictions(rng, 10, 3, 5)
    exact = enumerated_information(p[batchbald(p, 6, samples=10**5).items])
    sums = [np.sort(batchbald(p, 6, samples=40, rng=seed).scores)[-6:].sum() for seed in range(100)]
    # picking the best of noisy estimates flatters a little, hence not only three standard errors
    assert abs(np.mean(sums) - exact) < 3 * np.std(sums) / 10 + 0.02 * exact


def test_the_generator_alone_decides_what_is_sampled(rng):
    p = predictions(rng, 20, 4, 6)
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    one, same, other = (batchbald(p, 6, samples=50, rng=seed).scores for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_a_duplicate_waits_for_what_is_new():
    coin, another, sure = [[1, 1, 0, 0], [0, 0, 1, 1]], [[0.9, 0.1] * 2, [0.1, 0.9] * 2], [[1] * 4, [0] * 4]
    p = np.array([coin, coin, another, sure], float)
    picks = batchbald(p, 2)
    assert np.argsort(-bald(p), kind="stable")[:2].tolist() == [0, 1]
    assert picks.items.tolist() == [0, 2]
    assert picks.scores[1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("choose", BATCHES)
def test_ties_go_to_the_lowest_position(choose, rng):
    p = predictions(rng, 1, 3, 6).repeat(50, axis=0)
    assert choose(p, 3).items.tolist() == [0, 1, 2]


@pytest.mark.parametrize("choose", BATCHES)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_an_item_that_is_not_finite_is_never_picked_and_changes_no_other(choose, wrong, rng):
    p = predictions(rng, 12, 3, 5)
    broken = np.insert(p, [0, 7], 0.5, axis=0)
    broken[0, 1, 2] = broken[8, 0, 0] = wrong
    picks, clean = choose(broken, 100), choose(p, 100)
    others = np.delete(np.arange(14), [0, 8])
    assert others[clean.items].tolist() == picks.items.tolist()
    assert (picks.scores[[0, 8]] == -np.inf).all()
    assert (picks.scores[others] == clean.scores).all()


@pytest.mark.parametrize("choose", BATCHES)
def test_where_nothing_is_finite_nothing_is_picked(choose):
    picks = choose(np.full((3, 2, 4), np.nan), 2)
    assert picks.items.tolist() == []
    assert (picks.scores == -np.inf).all()
    assert choose(np.zeros((0, 2, 4)), 2).items.tolist() == []


@pytest.mark.parametrize("choose", BATCHES)
def test_picks_are_of_the_kind_asked_in_and_leave_it_as_it_was(choose, rng):
    p = predictions(rng, 10, 3, 5)
    kept = p.copy()
    p.flags.writeable = False
    array, tensor = choose(p, 3), choose(torch.tensor(p, requires_grad=True), 3)
    assert isinstance(array, Picks)
    assert isinstance(array.items, np.ndarray)
    assert isinstance(array.scores, np.ndarray)
    assert tensor.items.dtype == torch.int64
    assert tensor.scores.dtype == torch.float64
    assert not tensor.scores.requires_grad
    assert tensor.items.tolist() == array.items.tolist()
    assert (tensor.scores.numpy() == array.scores).all()
    assert (p == kept).all()


@pytest.mark.parametrize("choose", BATCHES)
def test_half_precision_and_extreme_confidence_are_taken(choose, rng):
    p = predictions(rng, 10, 3, 5, scale=1e4)
    assert np.isfinite(choose(p, 10).scores).all()
    assert torch.isfinite(choose(torch.tensor(p).half(), 10).scores).all()


@pytest.mark.parametrize("choose", BATCHES)
@pytest.mark.parametrize("n", [0, -3])
def test_a_batch_of_less_than_one_is_refused(choose, n, rng):
    with pytest.raises(ValueError, match="from 1 on"):
        choose(predictions(rng, 3, 2, 4), n)


@pytest.mark.parametrize("choose", [*BATCHES, lambda p, n: joint_entropy(p), lambda p, n: epig(p, p)])
def test_predictions_without_draws_are_refused(choose, rng):
    with pytest.raises(ValueError, match=r"\[item, class, draw\]"):
        choose(rng.random((3, 2)), 1)


@pytest.mark.parametrize("choose", [*BATCHES, lambda p, n: joint_entropy(p), lambda p, n: epig(p, p)])
def test_logits_are_refused(choose, rng):
    with pytest.raises(ValueError, match="from_logits"):
        choose(rng.normal(size=(3, 2, 4)), 1)


@pytest.mark.parametrize("choose", BATCHES)
def test_a_yes_no_model_is_one_with_two_classes(choose, rng):
    p = rng.random((10, 1, 6))
    assert np.allclose(choose(p, 3).scores, choose(np.concatenate([1 - p, p], axis=1), 3).scores)


def test_epig_is_the_mean_information_between_two_labels(rng):
    p, targets = predictions(rng, 5, 3, 6), predictions(rng, 4, 2, 6)
    expected = np.zeros(5)
    for i, item in enumerate(p):
        for target in targets:
            joint = item @ target.T / 6
            apart = np.outer(joint.sum(axis=1), joint.sum(axis=0))
            expected[i] += (joint * np.log(joint / apart)).sum() / 4
    assert np.allclose(epig(p, targets), expected, atol=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_epig_agrees_with_baal(rng):
    from baal.active.heuristics import EPIG

    p, targets = predictions(rng, 30, 4, 8), predictions(rng, 11, 4, 8)
    theirs = EPIG().get_uncertainties(p, target_predictions=targets)
    assert np.allclose(epig(p, targets), theirs, atol=1e-5)


@given(pools())
def test_epig_is_at_most_bald(p):
    assert (epig(p, p) <= bald(p) + 1e-9).all()
    assert (epig(p, p) >= 0).all()


def test_epig_in_chunks_is_epig_at_once(rng, monkeypatch):
    p, targets = predictions(rng, 20, 3, 5), predictions(rng, 15, 3, 5)
    once = epig(p, targets)
    monkeypatch.setattr(
        "baal_widgets.active.batches.chunks", lambda length, *_: (slice(i, i + 1) for i in range(length))
    )
    assert np.allclose(epig(p, targets), once, atol=1e-12)
    assert len(set(once.tolist())) == 20


def test_epig_leaves_out_what_is_not_finite(rng):
    p, targets = predictions(rng, 6, 3, 5), predictions(rng, 4, 3, 5)
    clean = epig(p[1:], targets[1:])
    p[0, 0, 0] = targets[0, 0, 0] = np.nan
    scores = epig(p, targets)
    assert scores[0] == -np.inf
    assert (scores[1:] == clean).all()
    with pytest.raises(ValueError, match="at least one target"):
        epig(p, targets[:1])


def test_epig_of_different_draws_is_refused(rng):
    with pytest.raises(ValueError, match="got 7 and 6"):
        epig(predictions(rng, 3, 2, 6), predictions(rng, 3, 2, 7))


def test_epig_gives_the_kind_and_precision_asked_in(rng):
    p = predictions(rng, 4, 3, 5).astype(np.float32)
    assert epig(p, p).dtype == np.float32
    assert torch.allclose(epig(torch.tensor(p), p), torch.tensor(epig(p, p)))


def reference_hsic(one, other):
    """tr(K H L H) / draws², of two items' predictions `[class, draw]`."""
    draws = one.shape[1]
    centre = np.eye(draws) - 1 / draws

    def kernel(p):
        far = ((p[:, :, None] - p[:, None]) ** 2).sum(axis=0)
        return np.mean([(1 + far / (2 * scale)) ** -scale for scale in (0.2, 0.5, 1, 2, 5)], axis=0)

    return np.trace(kernel(one) @ centre @ kernel(other) @ centre) / draws**2


def test_every_ical_pick_raises_the_pool_s_dependence_most(rng):
    p = predictions(rng, 9, 3, 6)
    dependence = np.array([[reference_hsic(one, other) for other in p] for one in p])
    picks = ical(p, 4)
    batch, lowest = [], np.inf
    for item in picks.items:
        before = dependence[batch].mean(axis=0) if batch else np.zeros(9)
        gains = [
            np.maximum(dependence[[*batch, i]].mean(axis=0) - before, 0).mean() if i not in batch else -1
            for i in range(9)
        ]
        assert item == np.argmax(gains)
        lowest = min(lowest, gains[item])
        assert picks.scores[item] == pytest.approx(lowest, abs=1e-12)
        batch.append(item)


def test_ical_does_not_pick_a_duplicate_before_another_informative_item():
    coin, another, sure = [[1, 1, 0, 0], [0, 0, 1, 1]], [[0.9, 0.1] * 2, [0.1, 0.9] * 2], [[1] * 4, [0] * 4]
    assert ical(np.array([coin, coin, another, sure], float), 2).items.tolist() == [0, 2]


def test_ical_by_part_of_the_pool_is_close_to_the_whole(rng):
    p = predictions(rng, 300, 3, 6)
    whole = ical(p, 5, against=300).scores
    part = ical(p, 5, against=100, rng=rng).scores
    assert np.corrcoef(whole, part)[0, 1] > 0.9
    assert (whole != part).any()


@pytest.mark.gpu
@pytest.mark.parametrize("choose", BATCHES)
def test_a_gpu_picks_what_a_cpu_picks(choose, rng):
    p = torch.tensor(predictions(rng, 200, 5, 10))
    here, there = choose(p, 6), choose(p.cuda(), 6)
    assert there.items.is_cuda
    assert there.scores.is_cuda
    assert there.items.cpu().tolist() == here.items.tolist()
    assert torch.allclose(there.scores.cpu(), here.scores)
    assert torch.allclose(epig(p.cuda(), p[:9].cuda()).cpu(), epig(p, p[:9]))


@pytest.mark.parametrize("groups", [1, 3, 48])
def test_bounds_that_rule_items_out_leave_every_pick_as_it_is(rng, monkeypatch, groups):
    p = predictions(rng, 60, 4, 12)
    monkeypatch.setattr(batches, "GROUPS", 10**9)  # as many as configurations: the bound is the gain itself
    full = batchbald(p, 12, samples=200, rng=0)
    monkeypatch.setattr(batches, "GROUPS", groups)
    lazy = batchbald(p, 12, samples=200, rng=0)
    assert lazy.items.tolist() == full.items.tolist()
    assert np.allclose(lazy.scores, full.scores, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 3, 20])
def test_a_bound_is_never_below_the_gain(rng, monkeypatch, groups):
    monkeypatch.setattr(batches, "GROUPS", groups)
    p = torch.tensor(predictions(rng, 30, 4, 12))
    labels, everyone = batches._Labels(p, 100, rng), torch.arange(30)
    for item in range(6):
        labels.add(item)
        gains, bounds = labels.gains(everyone), labels.bounds(everyone)
        assert (bounds >= gains - 1e-12).all()
        assert (bounds > gains + 1e-6).any() or len(labels.weight) <= groups


def test_in_a_large_pool_what_is_not_picked_scores_no_less_than_it_would_add(rng, monkeypatch):
    p = predictions(rng, 50, 4, 12)
    exact = batchbald(p, 8, samples=200, rng=0)
    monkeypatch.setattr(batches, "EXACT", 10)
    bounded = batchbald(p, 8, samples=200, rng=0)
    assert bounded.items.tolist() == exact.items.tolist()
    assert (bounded.scores >= exact.scores - 1e-12).all()
    assert_sorting_gives_the_picks(bounded, 8)

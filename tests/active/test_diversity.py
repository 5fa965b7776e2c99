"""Batches that differ, against scikit-activeml, scikit-learn and greedy searches by hand."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist

from baal_widgets.active.diversity import badge, coreset, max_herding, typiclust


def confident(features):
    """Probabilities `[item, class]` that go with the features, the same for the same."""
    logits = np.asarray(features) @ np.cos(np.arange(features.shape[1] * 4)).reshape(-1, 4)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def badged(features, n, labelled=None):
    kind = torch.tensor if isinstance(features, torch.Tensor) else np.asarray
    detached = features.detach().cpu().float().numpy() if isinstance(features, torch.Tensor) else features
    probabilities = confident(detached)
    if isinstance(features, torch.Tensor):
        probabilities = kind(probabilities, device=features.device)
    return badge(probabilities, features, n, rng=0)


def clustered(features, n, labelled=None):
    return typiclust(features, n, labelled, rng=0)


METHODS = [coreset, max_herding, clustered, badged]
COVERING = [coreset, max_herding, clustered]


@pytest.fixture
def features(rng):
    return rng.normal(size=(60, 5))


@pytest.fixture(scope="module")
def pool():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import skactiveml.pool
    return skactiveml.pool


@st.composite
def clouds(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(1, 25)), draw(st.integers(1, 4))
    kind = draw(st.sampled_from(["normal", "whole", "same", "far"]))
    if kind == "whole":  # many ties and duplicates
        return rng.integers(0, 3, shape).astype(float)
    return {"normal": rng.normal(size=shape), "same": np.ones(shape), "far": 1e6 + rng.normal(size=shape)}[kind]


@pytest.mark.parametrize("choose", METHODS)
@given(x=clouds(), n=st.integers(1, 30), known=st.integers(0, 3))
@settings(max_examples=60)
def test_sorting_by_score_gives_the_picks_in_the_order_picked(choose, x, n, known):
    picks = choose(x[known:], n, x[:known])
    items = len(x[known:])
    assert len(set(picks.items.tolist())) == len(picks.items) == min(n, items)
    assert picks.items.dtype == np.int64
    assert np.isfinite(picks.scores).all()
    assert np.argsort(-picks.scores, kind="stable")[:n].tolist() == picks.items.tolist()


@pytest.mark.parametrize("choose", METHODS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_an_item_that_is_not_finite_is_never_picked_and_changes_no_other(choose, wrong, features):
    broken = np.insert(features, [0, 7], 0.0, axis=0)
    broken[0, 1] = broken[8, 0] = wrong
    with np.errstate(invalid="ignore"):
        picks = choose(broken, 20)
    clean = choose(features, 20)
    others = np.delete(np.arange(62), [0, 8])
    assert others[clean.items].tolist() == picks.items.tolist()
    assert (picks.scores[[0, 8]] == -np.inf).all()
    assert (picks.scores[others] == clean.scores).all()


@pytest.mark.parametrize("choose", COVERING)
def test_labelled_features_that_are_not_finite_are_left_out(choose, features):
    broken = np.concatenate([features[:3], np.full((1, 5), np.nan)])
    assert (choose(features, 5, broken).scores == choose(features, 5, features[:3]).scores).all()


@pytest.mark.parametrize("choose", METHODS)
def test_where_nothing_is_finite_nothing_is_picked(choose):
    picks = choose(np.full((3, 2), np.nan), 2)
    assert picks.items.tolist() == []
    assert (picks.scores == -np.inf).all()
    assert choose(np.zeros((0, 2)), 2).items.tolist() == []


@pytest.mark.parametrize("choose", METHODS)
def test_picks_are_of_the_kind_asked_in_and_leave_it_as_it_was(choose, features):
    kept = features.copy()
    features.flags.writeable = False
    array, tensor = choose(features, 5, kept[:2]), choose(torch.tensor(features, requires_grad=True), 5, kept[:2])
    assert isinstance(array.scores, np.ndarray)
    assert tensor.items.dtype == torch.int64
    assert tensor.scores.dtype == torch.float64
    assert not tensor.scores.requires_grad
    assert tensor.items.tolist() == array.items.tolist()
    assert np.allclose(tensor.scores, array.scores)
    assert (features == kept).all()


@pytest.mark.parametrize("choose", METHODS)
def test_no_global_random_state_is_touched(choose, features):
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert (choose(features, 5).scores == choose(features, 5).scores).all()
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


@pytest.mark.parametrize("choose", METHODS)
def test_half_precision_is_taken(choose, features):
    assert torch.isfinite(choose(torch.tensor(features).half(), 5).scores).all()


@pytest.mark.parametrize("choose", [coreset, max_herding])
def test_picks_move_with_the_items(choose, features, rng):
    order = rng.permutation(60)
    picks, moved = choose(features, 8, features[:3]), choose(features[order], 8, features[:3])
    assert order[moved.items].tolist() == picks.items.tolist()
    assert np.allclose(moved.scores, picks.scores[order])


@pytest.mark.parametrize("choose", COVERING)
def test_features_of_another_length_are_refused(choose, features):
    with pytest.raises(ValueError, match="5 an item, got 4"):
        choose(features, 2, features[:, :4])
    with pytest.raises(ValueError, match=r"\[item, feature\]"):
        choose(features[None], 2)


@pytest.mark.parametrize("choose", METHODS)
@pytest.mark.parametrize("n", [0, -3])
def test_a_batch_of_less_than_one_is_refused(choose, n, features):
    with pytest.raises(ValueError, match="from 1 on"):
        choose(features, n)


@pytest.mark.parametrize("choose", METHODS)
def test_chunks_change_nothing(choose, features, monkeypatch):
    once = choose(features, 10, features[:4])
    one_by_one = lambda length, *_: (slice(i, i + 1) for i in range(length))  # noqa: E731
    monkeypatch.setattr("baal_widgets.active.diversity.chunks", one_by_one)
    apart = choose(features, 10, features[:4])
    assert apart.items.tolist() == once.items.tolist()
    assert np.allclose(apart.scores, once.scores, atol=1e-6)


def test_coreset_agrees_with_scikit_activeml(features, pool):
    labels = np.full(60, np.nan)
    labels[[5, 17]] = 0
    theirs = pool.CoreSet(random_state=0).query(features, labels, batch_size=10)
    free = np.delete(np.arange(60), [5, 17])
    picks = coreset(features[free], 10, features[[5, 17]])
    assert free[picks.items].tolist() == theirs.tolist()


def test_every_coreset_pick_is_the_farthest_and_scores_its_distance(features):
    picks = coreset(features, 6, features[:1])
    batch = [0]
    for item in picks.items:
        near = cdist(features, features[batch]).min(axis=1)
        assert item == near.argmax()
        assert picks.scores[item] == pytest.approx(near.max())
        batch.append(item)
    left = cdist(features, features[batch]).min(axis=1)
    others = np.delete(np.arange(60), batch)
    assert np.allclose(picks.scores[others], left[others])
    assert picks.scores[0] == 0


def test_coreset_without_labels_begins_in_the_middle_or_anywhere_with_a_generator(features):
    near = np.linalg.norm(features - features.mean(axis=0), axis=1)
    picks = coreset(features, 3)
    assert picks.items[0] == near.argmin()
    assert picks.scores[picks.items[0]] == pytest.approx(cdist(features, features[picks.items[:1]]).max())
    assert len({int(coreset(features, 1, rng=seed).items[0]) for seed in range(20)}) > 5


@given(clouds(), st.integers(1, 3))
@settings(max_examples=40)
def test_coreset_leaves_no_item_twice_as_far_as_need_be(x, n):
    x = np.round(x[:10], 3)
    radius = cdist(x, x[coreset(x, n).items]).min(axis=1).max()
    batches = itertools.combinations(range(len(x)), min(n, len(x)))
    best = min(cdist(x, x[list(batch)]).min(axis=1).max() for batch in batches)
    assert radius <= 2 * best + 1e-6


def gradients(probabilities, features):
    error = probabilities - np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
    return (error[:, :, None] * features[:, None]).reshape(len(features), -1)


def test_badge_scores_squared_distances_between_gradients(features):
    p = confident(features)
    picks = badge(p, features, 5, rng=0)
    g = gradients(p, features)
    assert picks.items[0] == np.linalg.norm(g, axis=1).argmax()
    others = np.delete(np.arange(60), picks.items)
    left = cdist(g[others], g[picks.items], "sqeuclidean").min(axis=1)
    assert np.allclose(picks.scores[others], left)
    assert (picks.scores[picks.items] >= left.max()).all()
    drawn = [(g[picks.items[0]] ** 2).sum()]
    drawn += [cdist(g[[i]], g[picks.items[:k]], "sqeuclidean").min() for k, i in enumerate(picks.items) if k]
    assert np.allclose(picks.scores[picks.items], np.maximum.accumulate([left.max(), *drawn[::-1]])[:0:-1])


def test_badge_draws_by_squared_distance(features):
    p, g = confident(features[:6]), gradients(confident(features[:6]), features[:6])
    first = badge(p, features[:6], 1).items[0]
    mass = cdist(g, g[[first]], "sqeuclidean")[:, 0]
    rng = np.random.default_rng(0)
    drawn = [badge(p, features[:6], 2, rng=rng).items[1] for _ in range(1000)]
    assert np.allclose(np.bincount(drawn, minlength=6) / 1000, mass / mass.sum(), atol=0.05)


def test_badge_leaves_no_more_distance_than_scikit_activeml(rng, pool):
    from skactiveml.classifier import ParzenWindowClassifier

    x = rng.normal(size=(80, 3))
    labels = np.full(80, np.nan)
    labels[:4] = [0, 1, 2, 0]
    model = ParzenWindowClassifier(classes=[0, 1, 2]).fit(x, labels)
    p = model.predict_proba(x)
    g = gradients(p, x)[4:]

    def left(items):
        return cdist(g, g[items], "sqeuclidean").min(axis=1).sum()

    theirs = [
        left(np.array(pool.Badge(random_state=seed).query(x, labels, model, fit_clf=False, batch_size=8)) - 4)
        for seed in range(20)
    ]
    ours = [left(badge(p[4:], x[4:], 8, rng=seed).items) for seed in range(20)]
    # theirs leaves more, for it draws as if the gradient 0 were picked already
    assert np.mean(ours) <= np.mean(theirs)


def test_badge_averages_draws(features):
    p = confident(features)
    assert np.allclose(badge(np.stack([p, p], axis=2), features, 4, rng=0).scores, badge(p, features, 4, rng=0).scores)


def test_badge_of_different_items_is_refused(features):
    with pytest.raises(ValueError, match="got 60 for 59"):
        badge(confident(features)[1:], features, 2)
    with pytest.raises(ValueError, match=r"\[item, class\]"):
        badge(features[:, 0], features, 2)


def blobs(rng, sizes, spread=0.1):
    centres = 10 * np.eye(len(sizes))
    x = np.concatenate(
        [c + spread * rng.normal(size=(size, len(sizes))) for c, size in zip(centres, sizes, strict=True)]
    )
    return x, np.repeat(np.arange(len(sizes)), sizes)


def test_typiclust_goes_to_the_largest_clusters_without_a_label(rng):
    x, blob = blobs(rng, [30, 10, 40, 20, 25])
    assert blob[typiclust(x, 5, rng=rng).items].tolist() == [2, 0, 4, 3, 1]
    labelled = x[[0, 30]]
    assert blob[typiclust(x, 3, labelled, rng=rng).items].tolist() == [2, 4, 3]


def test_typiclust_picks_the_most_typical_and_scores_the_share(rng):
    x, blob = blobs(rng, [30, 10, 40])
    picks = typiclust(x, 3, k=5, rng=rng)
    for item in picks.items:
        members = np.flatnonzero(blob == blob[item])
        mean = np.sort(cdist(x[members], x[members]), axis=1)[:, 1:6].mean(axis=1)
        assert item == members[mean.argmin()]
        assert picks.scores[item] == pytest.approx((len(members) + 0.5) / 80)


def test_typiclust_agrees_with_scikit_activeml_where_clusters_are_plain(rng, pool):
    x, _ = blobs(rng, [30, 12, 40, 20, 25])
    theirs = pool.TypiClust(random_state=0, k=5).query(x, np.full(len(x), np.nan), batch_size=5)
    assert typiclust(x, 5, k=5, rng=0).items.tolist() == theirs.tolist()


def test_typiclust_goes_round_once_more_where_clusters_are_fewer_than_picks(rng):
    x, blob = blobs(rng, [30, 10, 40])
    assert blob[typiclust(x, 6, most=3, rng=rng).items].tolist() == [2, 0, 1, 2, 0, 1]


def test_k_means_comes_as_close_as_scikit_learns(rng):
    from sklearn.cluster import KMeans

    from baal_widgets.active.diversity import _k_means

    x = rng.normal(size=(300, 4))
    theirs = np.mean([KMeans(12, n_init=1, random_state=seed).fit(x).inertia_ for seed in range(5)])
    ours = []
    for seed in range(5):
        cluster = _k_means(torch.tensor(x), 12, np.random.default_rng(seed)).numpy()
        ours.append(sum(((x[cluster == c] - x[cluster == c].mean(axis=0)) ** 2).sum() for c in range(12)))
    assert np.mean(ours) < 1.05 * theirs


def test_max_herding_agrees_with_scikit_activeml(features, pool):
    labels = np.full(60, np.nan)
    labels[[5, 17]] = 0
    theirs, utilities = pool.MaxHerding(random_state=0, normalize_samples=False, metric_dict={"gamma": 0.3}).query(
        features, labels, batch_size=8, return_utilities=True
    )
    free = np.delete(np.arange(60), [5, 17])
    picks = max_herding(features[free], 8, features[[5, 17]], bandwidth=math.sqrt(1 / 0.6))
    assert free[picks.items].tolist() == theirs.tolist()
    assert np.allclose(picks.scores[picks.items], np.nanmax(utilities, axis=1))


def coverage(x, items, bandwidth):
    return np.exp(-cdist(x, x[list(items)], "sqeuclidean") / (2 * bandwidth**2)).max(axis=1).mean()


@given(clouds(), st.integers(1, 3))
@settings(max_examples=40)
def test_herded_coverage_is_within_its_guarantee_of_the_best_batch(x, n):
    x = x[:10]
    found = coverage(x, max_herding(x, n, bandwidth=0.7).items, 0.7)
    best = max(coverage(x, batch, 0.7) for batch in itertools.combinations(range(len(x)), min(n, len(x))))
    assert found >= (1 - 1 / math.e) * best - 1e-6


def test_what_herding_leaves_unpicked_scores_what_it_would_still_add(features):
    picks = max_herding(features, 4)
    width = np.quantile(pdist(features), 0.5, method="lower")
    now = coverage(features, picks.items, width)
    for item in set(range(60)) - set(picks.items.tolist()):
        added = coverage(features, [*picks.items, item], width) - now
        assert picks.scores[item] == pytest.approx(min(added, picks.scores[picks.items[-1]]), abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("choose", [coreset, max_herding])
def test_a_duplicate_is_picked_last(choose, dtype, features):
    x = torch.tensor(features, dtype=dtype)[:20]
    picks = choose(torch.cat([x, x]), 20)
    assert sorted((picks.items % 20).tolist()) == list(range(20))


@pytest.mark.parametrize("choose", METHODS)
def test_ties_go_to_the_lowest_position(choose):
    assert choose(np.ones((50, 3)), 3).items.tolist() == [0, 1, 2]


def test_a_bandwidth_below_nothing_is_refused(features):
    with pytest.raises(ValueError, match="bandwidth above 0"):
        max_herding(features, 2, bandwidth=-1.0)


@pytest.mark.gpu
@pytest.mark.parametrize("choose", METHODS)
def test_a_gpu_picks_what_a_cpu_picks(choose, features):
    x = torch.tensor(features)
    here, there = choose(x, 8, x[:3]), choose(x.cuda(), 8, x[:3].cuda())
    assert there.items.is_cuda
    assert there.scores.is_cuda
    assert there.items.cpu().tolist() == here.items.tolist()
    assert torch.allclose(there.scores.cpu(), here.scores)

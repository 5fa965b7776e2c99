"""Batches that differ: items picked by where they lie among the features, before or beside what the model is unsure of.

Features are `[item, feature]`, one vector an item (the layer before the last, or of a pretrained network); scale them
as distances between them should count, many a paper by `features / norm`. CoreSet, TypiClust and MaxHerding need no
label and no trained model. `labelled` are the features of what has a label already: nothing near it is asked for. Where
its rows aren't finite they are left out. The results are `batches.Picks`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from baal_widgets.active.picks import (
    Picks,
    Seed,
    as_picks,
    chunks,
    finite_items,
    first_best,
    lazy_greedy,
)
from baal_widgets.arrays import A, Array, as_floats
from baal_widgets.checks import positive

__all__ = ["badge", "coreset", "max_herding", "typiclust"]


def coreset(features: A, n: int, labelled: Array | None = None, *, rng: Seed = None) -> Picks[A]:
    """The batch that leaves no item far from a labelled one: each pick is the one farthest from all before it.

    Greedy k-center of Sener & Savarese, 2018 (arXiv:1708.00489): the farthest item comes out at most twice as far as
    with the best batch. Scores are distances to the nearest labelled or picked item, in the features' units. With
    nothing labelled the literature leaves the first pick open: here it is the item nearest to the mean, or with
    `rng` any, as in the authors' code; it scores as much as the farthest item from it. Outliers are picked early.

    Time grows with (n + labelled) x items x features; holds a few numbers an item.
    """
    n = positive("n", n)
    pool, where = _finite_features(features)
    known = _finite_labelled(labelled, pool)
    items: list[int] = []
    values: list[float] = []
    if len(known) == 0 and len(pool):
        middle = _nearest(pool, pool.mean(dim=0, dtype=torch.float64)[None])
        first = (
            first_best(-middle, _rounding(middle)) if rng is None else np.random.default_rng(rng).integers(len(pool))
        )
        known, items = pool[first][None], [int(first)]
    near = _nearest(pool, known)
    if items:
        values = [float(near.max().sqrt())]
    tie = _rounding(near)
    while len(items) < min(n, len(pool)):
        near[items] = -torch.inf
        items.append(first_best(near, tie))
        values.append(float(near[items[-1]].sqrt()))
        near = torch.minimum(near, _nearest(pool, pool[items[-1:]]))
    return as_picks(features, where, items, values, near.clamp(min=0).sqrt())


def badge(probabilities: A, features: Array, n: int, *, rng: Seed = None) -> Picks[A]:
    """The batch whose labels would move the last layer far, each in its own direction.

    An item stands where the gradient of its loss is, were its likeliest class true: (probabilities - that class) x
    features. Picks are drawn as k-means++ draws its centres, by squared distance to the nearest pick; the first is the
    longest gradient, as in the authors' code. Ash et al., 2020 (arXiv:1906.03671). `probabilities` are
    `[item, class]`, or `[item, class, draw]` to be averaged; `features` what goes into the last layer.

    Scores are squared distances to the nearest pick. Since picks are drawn, they can rise from one to the next: a
    pick is lifted to the highest of what comes after it, so that the order of scores is the order of picks.

    The outer products are never made: time grows with n x items x (classes + features). Holds a copy of the features
    and two of the mean probabilities, float64.
    """
    n = positive("n", n)
    rng = np.random.default_rng(rng)
    predictions = as_floats(probabilities).detach()
    if predictions.ndim not in (2, 3):
        raise ValueError(
            f"Expected probabilities shaped [item, class] or [item, class, draw], got {tuple(predictions.shape)}."
        )
    mean = predictions.double() if predictions.ndim == 2 else predictions.mean(dim=2, dtype=torch.float64)
    hidden = _check(features, "features").to(mean.device)
    if len(hidden) != len(mean):
        raise ValueError(f"Expected features of the same items, got {len(hidden)} for {len(mean)} probabilities.")
    _, where = finite_items(torch.stack([mean.sum(dim=1), hidden.sum(dim=1, dtype=torch.float64)], dim=1))
    mean, hidden = mean[where], hidden[where].double()
    error = mean.clone()
    error[torch.arange(len(mean)), mean.argmax(dim=1)] -= 1
    length = error.square().sum(dim=1) * torch.linalg.vector_norm(hidden, dim=1).square()
    items: list[int] = []
    values: list[float] = []
    near = length.clone()
    noise = _rounding(length)
    while len(items) < min(n, len(mean)):
        mass = torch.where(near > noise, near, 0.0).cumsum(dim=0)
        total = float(mass[-1])
        if not items or total == 0:
            near[items] = -torch.inf
            item = first_best(near, noise)
        else:
            item = int(torch.searchsorted(mass, rng.random() * total, right=True).clamp(max=len(mass) - 1))
        items.append(item)
        values.append(max(float(near[item]), 0.0))
        far = (length + length[item] - 2 * (error @ error[item]) * (hidden @ hidden[item])).clamp(min=0)
        near = torch.minimum(near, far) if len(items) > 1 else far
        near[items] = 0
    rest = near.clone()
    rest[items] = 0
    lifted = np.maximum.accumulate([float(rest.max()), *reversed(values)])[:0:-1] if items else np.zeros(0)
    return as_picks(probabilities, where, items, lifted.tolist(), rest)


def typiclust(
    features: A, n: int, labelled: Array | None = None, *, k: int = 20, most: int = 500, rng: Seed = None
) -> Picks[A]:
    """The most typical item of each of the largest clusters without a label: for the first labels of all.

    Clusters items and labelled together into as many as there are labelled and to be picked, at most `most`. A
    pick comes from the largest cluster with the fewest labels and is its most typical: the inverse mean distance to
    its `k` nearest neighbours in the cluster is highest. Hacohen et al., 2022 (arXiv:2202.02794).

    An item scores the share of all items that is in its cluster, less one for each label or pick in it, plus
    half an item's share times how typical it is of the cluster, the most typical being 1. Clusters come from `rng`.

    Time grows with items x clusters x features for each of up to 50 rounds of k-means, and with the squared cluster
    sizes x features for the neighbours; no more is held than the features and what `chunks` allows.
    """
    n = positive("n", n)
    k = positive("k", k)
    most = positive("most", most)
    rng = np.random.default_rng(rng)
    pool, where = _finite_features(features)
    known = _finite_labelled(labelled, pool)
    n = min(n, len(pool))
    every = torch.cat([pool, known])
    if n == 0:
        return as_picks(features, where, [], [], pool.new_zeros(0))
    clusters = min(len(known) + n, most, len(every))
    cluster = _k_means(every - every.mean(dim=0), clusters, rng)
    typical = torch.zeros(len(every), dtype=torch.float64, device=pool.device)
    for one in range(clusters):
        members = (cluster == one).nonzero()[:, 0]
        typical[members] = _typicality(every[members], k)
    size = cluster.bincount(minlength=clusters)
    value = (size[cluster] + typical / 2) / len(every)
    value -= cluster[len(pool) :].bincount(minlength=clusters)[cluster]
    value, cluster = value[: len(pool)], cluster[: len(pool)]
    items: list[int] = []
    values: list[float] = []
    free = torch.ones_like(value, dtype=torch.bool)
    while len(items) < n:
        items.append(first_best(torch.where(free, value, -torch.inf), 1e-12))
        values.append(float(value[items[-1]]))
        free[items[-1]] = False
        value[cluster == cluster[items[-1]]] -= 1
    return as_picks(features, where, items, values, value)


def max_herding(features: A, n: int, labelled: Array | None = None, *, bandwidth: float | None = None) -> Picks[A]:
    """The batch that has most of the pool near one of its items, each counted by how near; near-duplicates add nothing.

    Coverage is the mean over the items of the highest kernel with a labelled or picked one, exp(-d²/2 bandwidth²) at
    distance d; a pick scores what it adds to it, between 0 and 1. MaxHerding of Bae et al., 2024 (arXiv:2407.12212),
    greedy, so at least 1 - 1/e of the best coverage. `bandwidth` is left at the median distance of items.

    The first step takes items² x features, the others only the few items that can still win; what is left to the items
    not picked is estimated from 4096 evenly spaced ones where the pool is larger. Holds a copy of the features.
    """
    n = positive("n", n)
    pool, where = _finite_features(features)
    known = _finite_labelled(labelled, pool)
    if len(pool) == 0:
        return as_picks(features, where, [], [], pool.new_zeros(0))
    middle = pool.mean(dim=0)
    width = _median_distance(pool) if bandwidth is None else bandwidth
    if not 0 < width < math.inf:
        raise ValueError(f"Expected a bandwidth above 0, got {bandwidth}.")
    # half the squared distance is then the exponent, and rounding stays small where features lie far from 0
    pool, known = (pool - middle) / width, (known - middle) / width
    covered = pool.new_zeros(len(pool))
    if len(known):
        covered.copy_((-_nearest(pool, known) / 2).exp())
    targets = torch.arange(len(pool), device=pool.device)

    def gains(items: Tensor) -> Tensor:
        to, done = pool[targets], covered[targets]
        norm = to.square().sum(dim=1) / 2
        found = norm.new_empty(len(items), dtype=torch.float64)
        for rows in chunks(len(items), len(to), pool):
            some = pool[items[rows]]
            kernel = (some @ to.T - norm - (some.square().sum(dim=1) / 2)[:, None]).clamp_(max=0).exp_()
            found[rows] = kernel.sub_(done).clamp_(min=0).mean(dim=1, dtype=torch.float64)
        return found

    def add(item: int) -> None:
        covered.copy_(torch.maximum(covered, (-_nearest(pool, pool[item][None]) / 2).exp()))

    everyone = torch.arange(len(pool), device=pool.device)
    tie = 1e-10 if pool.dtype == torch.float64 else 1e-7
    items, values = lazy_greedy(gains(everyone), n, gains, add, tie)
    targets = everyone[:: math.ceil(len(pool) / 4096)]
    return as_picks(features, where, items, values, gains(everyone))


def _nearest(features: Tensor, centres: Tensor) -> Tensor:
    """The squared distance of each item to the nearest centre, float64; infinite where there is no centre."""
    near = torch.full((len(features),), torch.inf, dtype=torch.float64, device=features.device)
    centres = centres.double()
    if len(centres) == 1:
        for rows in _rows(features):
            far = torch.cdist(features[rows].double(), centres, compute_mode="donot_use_mm_for_euclid_dist")
            near[rows] = far[:, 0].square()
        return near
    for some in chunks(len(centres), 512, centres):
        norm = centres[some].square().sum(dim=1)
        for rows in chunks(len(features), max(features.shape[1], len(norm)), features):
            part = features[rows].double()
            far = (norm - 2 * part @ centres[some].T).amin(dim=1) + part.square().sum(dim=1)
            near[rows] = torch.minimum(near[rows], far.clamp(min=0))
    return near


def _k_means(features: Tensor, clusters: int, rng: np.random.Generator) -> Tensor:
    """The cluster of each item: Lloyd's rounds from greedily drawn k-means++ centres, until none changes or 50."""
    centres = features[_seeds(features, clusters, rng)]
    cluster = torch.full((len(features),), -1, device=features.device)
    for _ in range(50):
        norm = centres.square().sum(dim=1)
        sums = torch.zeros_like(centres, dtype=torch.float64)
        near = torch.empty(len(features), dtype=features.dtype, device=features.device)
        now = torch.empty_like(cluster)
        for rows in chunks(len(features), max(features.shape[1], clusters), features):
            part = features[rows]
            near[rows], now[rows] = torch.addmm(norm, part, centres.T, alpha=-2).min(dim=1)
            _add_up(sums, now[rows], part)
        if torch.equal(now, cluster):
            break
        cluster = now
        size = cluster.bincount(minlength=clusters)
        centres = (sums / size.clamp(min=1)[:, None]).to(features.dtype)
        empty = (size == 0).nonzero()[:, 0]
        if len(empty):  # they go where items are farthest from theirs
            near += features.square().sum(dim=1)
            centres[empty] = features[near.argsort(descending=True, stable=True)[: len(empty)]]
    return cluster


def _add_up(sums: Tensor, cluster: Tensor, features: Tensor) -> None:
    """Add each item's features to the sum of its cluster; the same numbers from call to call."""
    if features.is_cuda:  # index_add_ adds in any order there
        sums += (torch.nn.functional.one_hot(cluster, len(sums)).T.to(features.dtype) @ features).double()
    else:
        sums.index_add_(0, cluster, features.double())


def _seeds(features: Tensor, clusters: int, rng: np.random.Generator) -> list[int]:
    """Positions of first centres: each the best of a few drawn by squared distance to the nearest before it."""
    norm = features.square().sum(dim=1)
    seeds = [int(rng.integers(len(features)))]
    near = _nearest(features, features[seeds]).to(features.dtype)
    for _ in range(clusters - 1):
        mass = near.cumsum(dim=0, dtype=torch.float64)
        drawn = torch.from_numpy(rng.random(2 + int(math.log(clusters)))).to(mass.device) * mass[-1]
        drawn = torch.searchsorted(mass, drawn, right=True).clamp(max=len(mass) - 1)
        far = (norm[:, None] + norm[drawn] - 2 * features @ features[drawn].T).clamp(min=0)
        far = torch.minimum(near[:, None], far)
        best = int(far.sum(dim=0, dtype=torch.float64).argmin())
        seeds.append(int(drawn[best]))
        near = far[:, best].clone()
        near[seeds[-1]] = 0
    return seeds


def _typicality(members: Tensor, k: int) -> Tensor:
    """How small the mean distance to the nearest `k` others is beside the smallest there is: from 0 to 1, typical."""
    k = min(k, len(members) - 1)
    if k < 1:
        return torch.ones(len(members), dtype=torch.float64, device=members.device)
    members = members.double() - members.mean(dim=0, dtype=torch.float64)
    norm = members.square().sum(dim=1)
    mean = torch.empty_like(norm)
    for rows in chunks(len(members), len(members), members):
        far = norm[rows, None] + norm - 2 * members[rows] @ members.T
        own = torch.arange(len(far), device=far.device)
        far[own, own + rows.start] = torch.inf
        mean[rows] = far.clamp(min=0).topk(k, dim=1, largest=False).values.sqrt().mean(dim=1)
    return torch.where(mean > 0, mean.min() / mean, 1.0)


def _median_distance(pool: Tensor) -> float:
    """The median distance between items, from at most 1000 evenly spaced; 1 where no two differ."""
    far = torch.pdist(pool[:: math.ceil(len(pool) / 1000)].double())
    far = far[far > 0]
    return float(far.median()) if len(far) else 1.0


def _rounding(squares: Tensor) -> float:
    """How far squared distances may be off, all being sums of numbers like the largest."""
    return 1e-12 * float(squares.max()) if len(squares) else 0.0


def _rows(features: Tensor) -> Iterator[slice]:
    return chunks(len(features), features.shape[1], features)


def _finite_features(features: Array) -> tuple[Tensor, Tensor]:
    return finite_items(_check(features, "features"))


def _finite_labelled(labelled: Array | None, pool: Tensor) -> Tensor:
    """The labelled features beside the pool's, none where nothing is labelled."""
    if labelled is None or len(labelled) == 0:
        return pool[:0]
    known = _check(labelled, "labelled")
    if known.shape[1] != pool.shape[1]:
        raise ValueError(
            f"Expected labelled to have the features of the pool, {pool.shape[1]} an item, got {known.shape[1]}."
        )
    return finite_items(known)[0].to(pool)


def _check(features: Array, name: str) -> Tensor:
    values = as_floats(features).detach()
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(
            f"Expected {name} shaped [item, feature], got {tuple(values.shape)}. "
            "Average over positions, or flatten what has more axes: features.flatten(1)."
        )
    return values

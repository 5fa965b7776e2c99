"""Batches that differ beside scikit-activeml's, Baal's, or the plain way in NumPy, and how their cost grows."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from baal_widgets.active.batches import epig
from baal_widgets.active.diversity import badge, coreset, max_herding, typiclust
from benchmarks.harness import Comparison, Growth, Quality, whatever

CLASSES = 10


def cloud(items, features):
    """Features as a backbone gives them: classes that some of the items are between; the first has a label."""
    rng = np.random.default_rng(0)
    centres = 2 * rng.normal(size=(CLASSES, features))
    return (centres[np.arange(items) % CLASSES] + rng.normal(size=(items, features))).astype(np.float32)


def unsure(x):
    """Probabilities `[item, class]` of a linear model."""
    logits = x @ np.random.default_rng(1).normal(size=(x.shape[1], CLASSES)).astype(np.float32) / x.shape[1] ** 0.5
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def beside_scikit(name, choose, **options):
    """Both know that item 0 has a label."""

    def ways(device, items, features, picks):
        import skactiveml.pool

        x = cloud(items, features)
        labels = np.full(items, np.nan)
        labels[0] = 0
        theirs = getattr(skactiveml.pool, name)(random_state=0)
        return {
            "baal_widgets": lambda: choose(x[1:], picks, x[:1], **options).items + 1,
            "scikit-activeml": lambda: theirs.query(x, labels, batch_size=picks),
        }

    return ways


def drawn(device, items, features, picks):
    """BADGE, and k-means++ over the gradients written out, as in the authors' code."""
    x = cloud(items, features)
    p = unsure(x)

    def plain():
        rng = np.random.default_rng(0)
        gradients = gradients_of(p, x)
        chosen = [int(np.square(gradients).sum(axis=1).argmax())]
        near = np.full(items, np.inf)
        while len(chosen) < picks:
            near = np.minimum(near, np.square(gradients - gradients[chosen[-1]]).sum(axis=1, dtype=float))
            near[chosen] = 0
            chosen.append(int(rng.choice(items, p=near / near.sum())))
        return np.array(chosen)

    return {"baal_widgets": lambda: badge(p, x, picks, rng=0).items, "NumPy": plain}


def gradients_of(p, x):
    error = p - np.eye(CLASSES, dtype=np.float32)[p.argmax(axis=1)]
    return (error[:, :, None] * x[:, None]).reshape(len(x), -1)


def spread(chosen, items, features, picks):
    """Minus the mean squared distance of the gradients to the nearest one picked: higher = better."""
    gradients = gradients_of(unsure(cloud(items, features)), cloud(items, features))
    parts = np.array_split(gradients, max(1, items // 1000))
    return -float(
        np.mean(np.concatenate([cdist(part, gradients[chosen], "sqeuclidean").min(axis=1) for part in parts]))
    )


def herded(device, items, features, picks):
    """The kernel of all pairs kept, each pick the item that raises the mean of the best most."""
    x, width = cloud(items, features), features**0.5

    def plain():
        kernel = np.exp(-np.maximum(cdist(x, x, "sqeuclidean"), 0) / (2 * width**2)).astype(np.float32)
        covered, chosen = np.zeros(items, np.float32), []
        for _ in range(picks):
            gains = np.maximum(kernel - covered, 0).sum(axis=1, dtype=float)
            chosen.append(int(gains.argmax()))
            covered = np.maximum(covered, kernel[chosen[-1]])
        return np.array(chosen)

    return {"baal_widgets": lambda: max_herding(x, picks, bandwidth=width).items, "NumPy": plain}


def targeted(device, items, targets, draws):
    from baal.active.heuristics import EPIG

    rng = np.random.default_rng(0)
    odds = np.exp(2 * rng.normal(size=(items + targets, CLASSES, draws)).astype(np.float32))
    p = odds / odds.sum(axis=1, keepdims=True)
    return {
        "baal_widgets": lambda: epig(p[targets:], p[:targets]),
        "Baal 2.1": lambda: EPIG().compute_score(p[targets:], target_predictions=p[:targets]),
    }


def picking(choose):
    def run(device, size):
        x = cloud(size, 64)
        return lambda: choose(x)

    return run


SIZES = {"items": 20_000, "features": 64, "picks": 100}
QUICK = {"items": 60, "features": 4, "picks": 3}
WORK = "{picks} of {items:,}, {features} features"
GROWN = [5_000, 10_000, 20_000]

COMPARISONS = [
    Comparison(
        "coreset",
        f"CoreSet: {WORK}",
        "scikit-activeml",
        1,
        beside_scikit("CoreSet", coreset),
        sizes=SIZES,
        quick=QUICK,
        slow=["scikit-activeml"],
    ),
    Comparison(
        "typiclust",
        f"TypiClust: {WORK}",
        "scikit-activeml",
        1,
        beside_scikit("TypiClust", typiclust, rng=0),
        sizes=SIZES,
        quick=QUICK,
        slow=["scikit-activeml"],
        agree=whatever,
        note="Nearly all of it is k-means, which scikit-learn does in compiled code.",
    ),
    Comparison(
        "badge",
        f"BADGE, {CLASSES} classes: {WORK}",
        "NumPy",
        1,
        drawn,
        sizes=SIZES,
        quick=QUICK,
        slow=["NumPy"],
        agree=whatever,
        quality=Quality(name="minus squared distance left", of=spread, slack=0.1),
    ),
    Comparison(
        "max_herding",
        f"MaxHerding: {WORK}",
        "NumPy",
        1,
        herded,
        sizes={**SIZES, "items": 4_000},
        quick=QUICK,
        slow=["NumPy"],
    ),
    Comparison(
        "epig",
        "EPIG: {items:,} items, {targets} targets, 10 classes, {draws} draws",
        "Baal 2.1",
        1,
        targeted,
        sizes={"items": 5_000, "targets": 100, "draws": 20},
        quick={"items": 20, "targets": 5, "draws": 4},
        repetitions=3,
    ),
    Growth(
        "coreset over items",
        "CoreSet, 100 of so many, 64 features",
        GROWN,
        picking(lambda x: coreset(x, 100)),
        at_most=1.2,
        quick=[100, 200],
        repetitions=3,
    ),
    Growth(
        "max_herding over items",
        "MaxHerding, 100 of so many, 64 features",
        GROWN,
        picking(lambda x: max_herding(x, 100)),
        at_most=2.2,
        quick=[100, 200],
        repetitions=3,
    ),
]

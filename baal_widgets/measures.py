"""What a lesson measures on the test set, as numbers that go into a journal."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from baal_widgets import metrics

N_BINS = 10
MOST_CLASSES = 200  # whose recalls a row holds
RESAMPLED = 5_000_000  # items drawn at most for an interval


def measures(mean: npt.NDArray[Any], truth: npt.NDArray[np.int64], rng: np.random.Generator) -> dict[str, Any]:
    """Measures of probabilities `[item, class]` against class indices `[item]`.

    `ece_interval` is where 95 % of other test sets of this size would put the ECE, `ece_calibrated` what a perfectly
    calibrated model would show on this one by chance; `per_class` the recall of each class, `None` for one without
    test items. With a thousand resamples of 500 items: 50 ms.
    """
    told = {
        "n_test": len(mean),
        "accuracy": float(metrics.accuracy(mean, truth)),
        "nll": float(metrics.nll(mean, truth)),
        "brier": float(metrics.brier(mean, truth)),
        **_calibration(mean, truth, rng),
    }
    if mean.shape[1] <= MOST_CLASSES:
        told["per_class"] = [rounded(share, 3) for share in metrics.recall(mean, truth)]
    return told


def measures_of_sets(
    mean: npt.NDArray[Any], truth: npt.NDArray[np.floating[Any]], rng: np.random.Generator
) -> dict[str, Any]:
    """Measures of each class's probability `[item, class]` against 0 and 1 `[item, class]`, where items may belong to
    several classes.

    `accuracy` is the share of items with all classes right, `macro_accuracy` the mean over the classes; likelihood,
    Brier's score and calibration are those of all (item, class) pairs, each a yes or no. `per_class` is the recall.
    """
    said, true = mean >= 0.5, truth >= 0.5
    right, pairs = said == true, np.stack([1 - mean.ravel(), mean.ravel()], axis=1)
    answers = true.ravel().astype(np.int64)
    with np.errstate(invalid="ignore"):
        recalls = (said & true).sum(axis=0) / true.sum(axis=0)
    told = {
        "n_test": len(mean),
        "accuracy": float(right.all(axis=1).mean()),
        "macro_accuracy": float(right.mean()),
        "nll": float(metrics.nll(pairs, answers)),
        "brier": float(metrics.brier(pairs, answers)),
        **_calibration(pairs, answers, rng),
    }
    if mean.shape[1] <= MOST_CLASSES:
        told["per_class"] = [rounded(share, 3) for share in recalls]
    return told


def rounded(number: Any, digits: int = 5) -> float | None:
    """A number to so many places behind the point; `None` where it is not finite."""
    return round(float(number), digits) if np.isfinite(number) else None


def _calibration(mean: npt.NDArray[Any], truth: npt.NDArray[np.int64], rng: np.random.Generator) -> dict[str, Any]:
    bins = metrics.calibration_bins(mean, truth, n_bins=N_BINS)
    resamples = int(np.clip(RESAMPLED // len(mean), 100, 1000))
    low, high = metrics.ece_interval(mean, truth, N_BINS, resamples=resamples, rng=rng)
    calibrated = metrics.ece_if_calibrated(mean, N_BINS, resamples=resamples, rng=rng).mean
    return {
        "ece": float(metrics.ece(mean, truth, n_bins=N_BINS)),
        "ece_interval": [rounded(low), rounded(high)],
        "ece_calibrated": rounded(calibrated),
        "reliability": {
            "count": [int(n) for n in bins.count],
            "confidence": [rounded(x, 17) for x in bins.confidence],
            "accuracy": [rounded(x, 17) for x in bins.accuracy],
        },
    }

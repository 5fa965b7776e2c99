"""Calibration error beside Baal's, torchmetrics' and the plain formula."""

from __future__ import annotations

import numpy as np

from baal_widgets.metrics import ece
from benchmarks.harness import Comparison, Growth


def predictions(items, classes):
    """Probabilities and true classes, about as sure as right."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(items, classes)).astype(np.float32)
    rows = np.exp(logits - logits.max(axis=1, keepdims=True))
    rows /= rows.sum(axis=1, keepdims=True)
    return rows, (rng.random((items, 1)) > rows.cumsum(axis=1)).sum(axis=1).clip(max=classes - 1)


def ece_ways(device, items, classes):
    import torch
    from baal.utils.metrics import ECE
    from torchmetrics.functional.classification import multiclass_calibration_error

    rows, truth = predictions(items, classes)
    one, other = torch.from_numpy(rows), torch.from_numpy(truth)

    def baals():
        metric = ECE(n_bins=10)
        metric.update(one, other)
        return metric.value

    return {
        "baal_widgets": lambda: ece(rows, truth),
        "Baal 2.1": baals,
        "torchmetrics": lambda: multiclass_calibration_error(one, other, classes, n_bins=10),
    }


def ece_of(device, items):
    rows, truth = predictions(items, 10)
    return lambda: ece(rows, truth)


COMPARISONS = [
    Comparison(
        "ece",
        "ECE of {items:,} predictions, {classes} classes",
        "Baal 2.1",
        50,
        ece_ways,
        sizes={"items": 100_000, "classes": 10},
        quick={"items": 500, "classes": 10},
        also={"torchmetrics": 1},
    ),
    Growth(
        "ece over items", "ECE of so many predictions, 10 classes", [10_000, 100_000, 1_000_000], ece_of, at_most=1.1
    ),
]

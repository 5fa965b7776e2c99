"""How good predictions are once the truth is known: accuracy, likelihood, calibration; each a function of arrays.

Probabilities are `[item, class]` or `[item, class, ...]` (segmentation: each pixel counts), already averaged over
the draws; targets are class indices `[item, ...]` or `[item, 1, ...]`. NumPy and tensors alike. A yes/no model may
give one class, the probability of "yes". Values out of place and empty inputs are refused with a `ValueError`; a
NaN prediction is wrong, and makes the measures that average it NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from baal_widgets.arrays import as_floats, as_numpy, as_tensor, to_probabilities

Floats = npt.NDArray[np.float64]


def accuracy(predictions: Any, targets: Any, k: int = 1) -> float:
    """The share of items whose true class is among the k likeliest. Logits do as well as probabilities.

    Of equally likely classes the first is taken, so an undecided model isn't always right.

    >>> p = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    >>> accuracy(p, [1, 2]), accuracy(p, [1, 2], k=2)
    (0.5, 1.0)
    """
    return float(hits(*as_rows(predictions, targets), k=k).mean())


def nll(probabilities: Any, targets: Any) -> float:
    """The mean surprise at the true class, -log p, in nats (cross-entropy, log loss): 0 is perfect.

    Probability zero counts as the smallest normal number of the dtype (87 nats in float32, 708 in float64): one
    certain mistake costs dearly, but not everything.

    >>> round(nll(np.array([[0.5, 0.5], [1.0, 0.0]]), [0, 0]), 3)
    0.347
    """
    rows, truth = as_rows(to_probabilities(as_floats(probabilities), from_logits=False), targets)
    likelihood = rows.gather(1, truth[:, None]).clamp(min=torch.finfo(rows.dtype).tiny)
    return -float(likelihood.log().mean())


def brier(probabilities: Any, targets: Any) -> float:
    """The mean squared distance to the truth, summed over classes: 0 is perfect, 2 certain and wrong.

    Brier, 1950. For two classes this is twice the one-sided score that some libraries give.

    >>> brier(np.array([[0.5, 0.5], [1.0, 0.0]]), [0, 0])
    0.25
    """
    rows, truth = as_rows(to_probabilities(as_floats(probabilities), from_logits=False), targets)
    return float((rows - F.one_hot(truth, rows.shape[1])).square().sum(dim=1).mean())


def ece(probabilities: Any, targets: Any, n_bins: int = 10) -> float:
    """How far confidence is from accuracy, on average over the items: 0.1 is ten points too sure, or too modest.

    Expected calibration error over bins of equal width: Naeini et al., 2015; Guo et al., 2017 (arXiv:1706.04599).
    Biased upwards when items are few, the more so the more bins.

    >>> round(ece(np.array([[0.9, 0.1], [0.8, 0.2]]), [0, 1]), 2)      # bins of one: gaps 0.1 and 0.8
    0.45
    """
    return calibration_bins(probabilities, targets, n_bins).ece


def calibration_bins(probabilities: Any, targets: Any, n_bins: int = 10) -> CalibrationBins:
    """What a reliability diagram shows: items grouped by confidence, in bins of equal width.

    Confidence is the probability of the likeliest class. A bin holds its lower edge and not its upper one, but for
    the last, which holds confidence 1 as well.

    >>> bins = calibration_bins(np.array([[1.0, 0.0], [0.6, 0.4], [0.6, 0.4]]), [0, 0, 1], n_bins=2)
    >>> bins.count.tolist(), bins.confidence.round(2).tolist(), bins.accuracy.round(2).tolist()
    ([0, 3], [nan, 0.73], [nan, 0.67])
    """
    rows, truth = as_rows(to_probabilities(as_floats(probabilities), from_logits=False), targets)
    return bins_of_rows(rows, truth, n_bins)


@dataclass(frozen=True, eq=False)
class CalibrationBins:
    """Items by confidence. Bins of different items with the same edges can be added.

    `edges` has one entry more than the others: `count` items fell in the bin, with that mean `confidence` and
    `accuracy`, which are NaN where the bin is empty.
    """

    edges: Floats
    count: npt.NDArray[np.int64]
    confidence: Floats
    accuracy: Floats

    @property
    def gap(self) -> Floats:
        """How far apart confidence and accuracy are in each bin; 0 where it is empty."""
        return np.where(self.count > 0, np.abs(self.confidence - self.accuracy), 0.0)

    @property
    def ece(self) -> float:
        """The mean gap over the items; see `ece`. NaN without any."""
        return float(self.gap @ self.count / self.count.sum()) if self.count.any() else float("nan")

    def __add__(self, other: CalibrationBins) -> CalibrationBins:
        if not np.array_equal(self.edges, other.edges):
            raise ValueError(f"Expected bins with the same edges, got {len(self.count)} and {len(other.count)} bins.")
        count = self.count + other.count
        sums = [
            np.where(self.count > 0, mine * self.count, 0.0) + np.where(other.count > 0, theirs * other.count, 0.0)
            for mine, theirs in ((self.confidence, other.confidence), (self.accuracy, other.accuracy))
        ]
        return CalibrationBins(self.edges, count, *(_ratio(total, count) for total in sums))


def empty_bins(n_bins: int = 10) -> CalibrationBins:
    """Bins of equal width with nothing in them yet.

    >>> empty_bins(2).edges.tolist()
    [0.0, 0.5, 1.0]
    """
    if n_bins < 1:
        raise ValueError(f"Expected at least one bin, got n_bins={n_bins}.")
    # a division, not a linspace: 3/10 is the number that 0.3 is, 3 * 0.1 is not
    nothing = np.full(n_bins, np.nan)
    return CalibrationBins(np.arange(n_bins + 1) / n_bins, np.zeros(n_bins, np.int64), nothing, nothing)


def bins_of_rows(rows: Tensor, truth: Tensor, n_bins: int) -> CalibrationBins:
    """`calibration_bins` of what `as_rows` gave."""
    edges = empty_bins(n_bins).edges
    confidence = as_numpy(rows.amax(dim=1))
    # compared in the precision of the predictions, so that float32's 0.7 isn't just below the edge at 0.7
    place = np.searchsorted(edges.astype(confidence.dtype), confidence, side="right") - 1
    place = place.clip(0, n_bins - 1)
    count = np.bincount(place, minlength=n_bins)
    sums = (np.bincount(place, weights, n_bins) for weights in (confidence, hits(rows, truth)))
    return CalibrationBins(edges, count, *(_ratio(total, count) for total in sums))


def hits(rows: Tensor, truth: Tensor, k: int = 1) -> Floats:
    """For what `as_rows` gave: 1 where the true class is among the k likeliest, else 0."""
    if not 1 <= k <= rows.shape[1]:
        raise ValueError(f"Expected k between 1 and the {rows.shape[1]} classes, got {k}.")
    true = truth[:, None]
    own = rows.gather(1, true)
    first = as_tensor(np.arange(rows.shape[1])).to(rows.device) >= true
    behind = (rows < own) | ((rows == own) & first)  # a NaN is behind nothing
    return np.asarray(as_numpy((~behind).sum(dim=1) < k), dtype=np.float64)


def as_rows(predictions: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """`[item, class, ...]` and `[item, ...]` as `[row, class]` and `[row]`, checked; a row is an item or a pixel.

    Targets become whole numbers, on the predictions' device; gradients are cut.
    """
    values = as_floats(predictions).detach()
    truth = as_tensor(targets).detach().to(values.device)
    if values.ndim < 2 or 0 in values.shape:
        raise ValueError(f"Expected predictions [item, class, ...] with at least one item, got {tuple(values.shape)}.")
    if values.shape[1] == 1:
        values = to_probabilities(values, from_logits=False)
    expected = (values.shape[0], *values.shape[2:])
    if truth.shape not in (expected, (expected[0], 1, *expected[1:])):
        raise ValueError(
            f"Expected targets shaped {expected}, one class index for each prediction, got {tuple(truth.shape)}. "
            f"The predictions are {tuple(values.shape)}, with the classes on axis 1."
        )
    rows, truth = values.movedim(1, -1).flatten(0, -2), truth.flatten()
    classes = rows.shape[1]
    whole = truth.long()
    if ((whole != truth) | (whole < 0) | (whole >= classes)).any():
        raise ValueError(
            f"Expected targets to be whole numbers from 0 to {classes - 1}, got values from "
            f"{truth.min().item():g} to {truth.max().item():g}. Leave out items without a label, often marked -1."
        )
    return rows, whole


def _ratio(total: npt.NDArray[Any], count: npt.NDArray[np.int64]) -> Floats:
    ratio = np.full(len(count), np.nan)
    np.divide(total, count, out=ratio, where=count > 0)
    return ratio

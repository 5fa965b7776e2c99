"""How far confidence is from accuracy: reliability diagrams, and the errors that sum them up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from baal_widgets.arrays import as_floats, as_numpy, to_probabilities
from baal_widgets.metrics.rows import Floats, as_rows, right

Binning: TypeAlias = Literal["width", "mass"]


def ece(probabilities: Any, targets: Any, n_bins: int = 10, binning: Binning = "width") -> float:
    """How far confidence is from accuracy, on average over the items: 0.1 is ten points too sure, or too modest.

    Expected calibration error over bins of equal width: Naeini et al., 2015; Guo et al., 2017 (arXiv:1706.04599).
    With `binning="mass"` over bins of equally many items, so that a model that is nearly always sure isn't judged
    by one bin: Nixon et al., 2019 (arXiv:1904.01685). Biased upwards when items are few, the more so the more bins:
    see `ece_if_calibrated`.

    >>> round(ece(np.array([[0.9, 0.1], [0.8, 0.2]]), [0, 1]), 2)      # bins of one: gaps 0.1 and 0.8
    0.45
    """
    return calibration_bins(probabilities, targets, n_bins, binning).ece


@overload
def classwise_ece(
    probabilities: Any, targets: Any, n_bins: int = 10, binning: Binning = "width", average: Literal["macro"] = "macro"
) -> float: ...
@overload
def classwise_ece(
    probabilities: Any, targets: Any, n_bins: int = 10, binning: Binning = "width", *, average: None
) -> Floats: ...
def classwise_ece(
    probabilities: Any,
    targets: Any,
    n_bins: int = 10,
    binning: Binning = "width",
    average: Literal["macro"] | None = "macro",
) -> float | Floats:
    """How far each class's probability is from its frequency: the mean over classes, or with `average=None` `[class]`.

    Every class's probability is binned over all items, also where it isn't the likeliest, so that a class which
    is always promised too much shows: Kull et al., 2019 (arXiv:1910.12656). With many classes most probabilities
    are near 0 and the mean is small; compare it among models of the same classes only.

    >>> p = np.array([[0.9, 0.1], [0.8, 0.2]])
    >>> classwise_ece(p, [0, 1]).__round__(2), classwise_ece(p, [0, 0], average=None).round(2).tolist()
    (0.45, [0.15, 0.15])
    """
    rows, truth = as_rows(to_probabilities(as_floats(probabilities), from_logits=False), targets)
    classes = rows.shape[1]
    columns = rows.T.contiguous()
    place = bin_of(columns, inner_edges(columns, n_bins, binning))
    place += n_bins * torch.arange(classes, device=rows.device)[:, None]
    gaps = as_numpy(F.one_hot(truth, classes).T).astype(float) - as_numpy(columns)
    sums = np.bincount(as_numpy(place).ravel(), gaps.ravel(), n_bins * classes).reshape(classes, n_bins)
    errors = np.asarray(np.abs(sums).sum(axis=1) / len(rows))
    if average is None:
        return errors
    if average != "macro":
        raise ValueError(f"Expected average to be 'macro' or None, got {average!r}.")
    return float(errors.mean())


def calibration_bins(probabilities: Any, targets: Any, n_bins: int = 10, binning: Binning = "width") -> CalibrationBins:
    """What a reliability diagram shows: items grouped by confidence, in bins of equal width or of equal mass.

    Confidence is the probability of the likeliest class. A bin holds its lower edge and not its upper one, but for
    the last, which holds confidence 1 as well. Bins of equal mass differ by an item, or by more where many items
    have the same confidence: those stay together, so that the order of the items does not matter.

    >>> bins = calibration_bins(np.array([[1.0, 0.0], [0.6, 0.4], [0.6, 0.4]]), [0, 0, 1], n_bins=2)
    >>> bins.count.tolist(), bins.confidence.round(2).tolist(), bins.accuracy.round(2).tolist()
    ([0, 3], [nan, 0.73], [nan, 0.67])
    """
    rows, truth = as_rows(to_probabilities(as_floats(probabilities), from_logits=False), targets)
    return bins_of_rows(rows, truth, n_bins, binning)


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
    _check(n_bins, "width")
    # a division, not a linspace: 3/10 is the number that 0.3 is, 3 * 0.1 is not
    nothing = np.full(n_bins, np.nan)
    return CalibrationBins(np.arange(n_bins + 1) / n_bins, np.zeros(n_bins, np.int64), nothing, nothing)


def bins_of_rows(rows: Tensor, truth: Tensor, n_bins: int, binning: Binning = "width") -> CalibrationBins:
    """`calibration_bins` of what `as_rows` gave."""
    confidence, likeliest = rows.max(dim=1)
    inner = inner_edges(confidence, n_bins, binning)
    edges = empty_bins(n_bins).edges
    if binning == "mass":
        edges[1:-1] = as_numpy(inner)
    place = as_numpy(bin_of(confidence, inner))
    count = np.bincount(place, minlength=n_bins)
    weights = as_numpy(confidence), as_numpy(right(confidence, likeliest, truth))
    sums = (np.bincount(place, each, n_bins) for each in weights)
    return CalibrationBins(edges, count, *(_ratio(total, count) for total in sums))


def inner_edges(values: Tensor, n_bins: int, binning: Binning) -> Tensor:
    """Where bins of `values`, `[..., row]`, meet: `[n_bins - 1]`, or `[..., n_bins - 1]` for bins of equal mass."""
    _check(n_bins, binning)
    if binning == "mass":
        starts = torch.arange(1, n_bins, device=values.device) * values.shape[-1] // n_bins
        return values.sort(dim=-1).values[..., starts].contiguous()
    # in the precision of the predictions, so that float32's 0.7 isn't just below the edge at 0.7
    return torch.as_tensor(np.arange(1, n_bins) / n_bins).to(values.dtype).to(values.device)


def bin_of(values: Tensor, inner: Tensor) -> Tensor:
    """The bin that each value falls into, given where they meet. A NaN falls into the last."""
    if inner.ndim > 1 or len(inner) > 32:
        return torch.searchsorted(inner, values.contiguous(), right=True)
    place = torch.zeros_like(values, dtype=torch.int64)
    for edge in inner.unbind():  # a pass for each of a few edges takes a third of a search for each value
        place += ~(values < edge)
    return place


def _check(n_bins: int, binning: str) -> None:
    if n_bins < 1:
        raise ValueError(f"Expected at least one bin, got n_bins={n_bins}.")
    if binning not in ("width", "mass"):
        raise ValueError(f"Expected binning to be 'width' or 'mass', got {binning!r}.")


def _ratio(total: npt.NDArray[Any], count: npt.NDArray[np.int64]) -> Floats:
    ratio = np.full(len(count), np.nan)
    np.divide(total, count, out=ratio, where=count > 0)
    return ratio

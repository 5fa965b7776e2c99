"""Baal's metric objects: fed batch by batch, they tell the value so far. The sums are `baal_widgets.metrics`."""

from __future__ import annotations

import os
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from baal_widgets.arrays import FromLogits, are_logits, as_floats, as_numpy, to_probabilities
from baal_widgets.metrics import CalibrationBins, as_rows, bins_of_rows, empty_bins, hits

Value = float | npt.NDArray[np.float64]


class Metrics:
    """The mean over items of what batches add, and its spread.

    A subclass says in `takes` whether `update` wants the model's "predictions" or the "loss", and calls `_add`
    with a batch's mean and its number of items. `value` weighs batches by their items, so that a small last batch
    counts little; with `average=False` it is all that was added, one row an update. NaN before the first.

    Predictions may be logits or probabilities: "auto" decides at the first batch after a reset, and keeps to it.
    """

    takes: ClassVar[Literal["loss", "predictions"]] = "predictions"

    def __init__(self, average: bool = True, *, from_logits: FromLogits = "auto") -> None:
        self.average = average
        self.from_logits = from_logits
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._means: list[npt.NDArray[np.float64]] = []
        self._items: list[int] = []
        self._are_logits: bool | None = None if self.from_logits == "auto" else self.from_logits

    def update(self, output: Any, target: Any = None) -> None:
        """Take in a batch: predictions `[item, class, ...]`, targets `[item, ...]` or `[item, 1]`; or a loss."""
        raise NotImplementedError(f"{type(self).__name__} needs an `update` that calls `_add`.")

    @property
    def value(self) -> Value:
        """The mean over all items so far, or with `average=False` what each update added."""
        if not self.average:
            return np.stack(self._means) if self._means else np.zeros(0)
        return _plain(self._mean()) if self._means else float("nan")

    @property
    def standard_dev(self) -> Value:
        """How far the batches spread around the mean, weighed by their items."""
        if not self._means:
            return float("nan")
        return _plain(np.sqrt(np.average((self._means - self._mean()) ** 2, axis=0, weights=self._items)))

    def __str__(self) -> str:
        means = self._mean() if self._means else self.value
        pairs = zip(np.atleast_1d(means), np.atleast_1d(self.standard_dev), strict=False)
        return ", ".join(f"{mean:.3f}±{spread:.3f}" for mean, spread in pairs)

    def _mean(self) -> npt.NDArray[np.float64]:
        return np.asarray(np.average(self._means, axis=0, weights=self._items))

    def _add(self, mean: Any, items: int) -> None:
        self._means.append(np.asarray(mean, dtype=np.float64))
        self._items.append(items)

    def _probabilities(self, output: Any) -> Tensor:
        predictions = as_floats(output).detach()
        if self._are_logits is None:
            self._are_logits = are_logits(predictions)
        return to_probabilities(predictions, "auto" if self._are_logits is None else self._are_logits)


class Loss(Metrics):
    """The mean loss. `update` takes one loss for each item, or a batch's mean, which counts as one item unless the
    targets come along: then it weighs as many as they are."""

    takes = "loss"

    def update(self, output: Any, target: Any = None) -> None:
        losses = as_numpy(output)
        if not losses.size:
            raise ValueError("Expected a loss or one for each item, got none. Skip empty batches.")
        items = len(target) if losses.ndim == 0 and isinstance(target, (Tensor, np.ndarray)) else losses.size
        self._add(losses.mean(), items)


class Accuracy(Metrics):
    """The share of items whose true class is among the k likeliest, for each k of `topk`: a number for one, an
    array for several."""

    def __init__(self, average: bool = True, topk: tuple[int, ...] = (1,), *, from_logits: FromLogits = "auto") -> None:
        self.topk = topk
        super().__init__(average, from_logits=from_logits)

    def update(self, output: Any, target: Any = None) -> None:
        # a softmax keeps the order, so only a yes/no model needs to know what its number means
        rows, truth = as_rows(self._probabilities(output) if np.shape(output)[1:2] == (1,) else output, target)
        self._add([hits(rows, truth, k).mean() for k in self.topk], len(rows))


class ECE(Metrics):
    """Expected calibration error over all batches together; see `baal_widgets.metrics.ece`."""

    def __init__(self, n_bins: int = 10, *, from_logits: FromLogits = "auto") -> None:
        self.n_bins = n_bins
        super().__init__(from_logits=from_logits)

    def reset(self) -> None:
        super().reset()
        self.bins = empty_bins(self.n_bins)

    def update(self, output: Any, target: Any = None) -> None:
        self.bins = self.bins + bins_of_rows(*as_rows(self._probabilities(output), target), self.n_bins)

    @property
    def value(self) -> float:
        return self.bins.ece

    @property
    def standard_dev(self) -> float:
        """How far the bins' gaps spread around their mean, the ECE, weighed by their items."""
        return _spread(self.bins)

    @property
    def samples(self) -> npt.NDArray[np.int64]:
        """The number of items in each bin."""
        return self.bins.count

    @property
    def tp(self) -> npt.NDArray[np.int64]:
        """The number of items in each bin whose likeliest class was the true one."""
        return np.where(self.bins.count > 0, self.bins.accuracy * self.bins.count, 0).round().astype(np.int64)

    def plot(self, pth: str | os.PathLike[str] | None = None) -> Any:
        """The reliability diagram, a plotly Figure; written to `pth` as a page of its own, a `.html` file."""
        from baal_widgets.plots import reliability

        if pth is not None and not os.fspath(pth).endswith((".html", ".htm")):
            raise ValueError(f"Expected a path that ends in .html, got {pth}. For pictures: plot().write_image(path).")
        bins = self.bins
        shown = {"count": bins.count, "confidence": bins.confidence, "accuracy": bins.accuracy}
        figure = reliability({name: values.tolist() for name, values in shown.items()})
        if pth is not None:
            figure.write_html(pth)
        return figure


class ECE_PerCLs(Metrics):  # noqa: N801  Baal's name
    """The calibration error of each class's items, grouped by their *true* class: `value` is `[class]`.

    It tells for which kind of image the confidence can't be trusted. The literature's "classwise ECE" is another
    number: it bins every class's probability over all items. NaN for classes without items.
    """

    def __init__(self, n_cls: int, n_bins: int = 10, *, from_logits: FromLogits = "auto") -> None:
        self.n_cls, self.n_bins = n_cls, n_bins
        super().__init__(from_logits=from_logits)

    def reset(self) -> None:
        super().reset()
        self.bins: list[CalibrationBins] = [empty_bins(self.n_bins)] * self.n_cls

    def update(self, output: Any, target: Any = None) -> None:
        rows, truth = as_rows(self._probabilities(output), target)
        if rows.shape[1] != self.n_cls:
            raise ValueError(f"Expected predictions of {self.n_cls} classes, got {rows.shape[1]}. Set n_cls to that.")
        for cls in np.unique(as_numpy(truth)).tolist():
            mine = truth == cls
            self.bins[cls] = self.bins[cls] + bins_of_rows(rows[mine], truth[mine], self.n_bins)

    @property
    def value(self) -> npt.NDArray[np.float64]:
        return np.array([bins.ece for bins in self.bins])

    @property
    def standard_dev(self) -> npt.NDArray[np.float64]:
        """For each class, how far its bins' gaps spread around their mean."""
        return np.array([_spread(bins) for bins in self.bins])


def _spread(bins: CalibrationBins) -> float:
    if not bins.count.any():
        return float("nan")
    return float(np.sqrt(np.average((bins.gap - bins.ece) ** 2, weights=bins.count)))


def _plain(values: npt.NDArray[np.float64]) -> Value:
    """A float where there is but one number."""
    return float(values.item()) if values.size == 1 else values

"""Baal's metric objects: fed batch by batch, they tell the value so far. The sums are `baal_widgets.metrics`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from baal_widgets.arrays import FromLogits, are_logits, as_floats, as_numpy, as_tensor, to_probabilities
from baal_widgets.metrics import (
    CalibrationBins,
    ClassReport,
    as_rows,
    bins_of_rows,
    confusion_matrix,
    empty_bins,
    hits,
)

Value = float | npt.NDArray[np.float64]
SCORES = ("precision", "recall", "f1")


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

    def _ranked(self, output: Any) -> Any:
        # a softmax keeps the order, so only a yes/no model needs to know what its number means
        return self._probabilities(output) if np.shape(output)[1:2] == (1,) else output


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
        rows, truth = as_rows(self._ranked(output), target)
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


class ClassificationReport(Metrics):
    """What of each class was found and mistaken, over all batches: see `baal_widgets.metrics.classification_report`.

    `value` maps "accuracy", "precision", "recall", "f1" and "support" to arrays `[class]`, where a class's accuracy
    is that of telling it from the rest, as in Baal. `matrix` has the true classes in its rows. `str()` is a table.
    Predictions may also be class indices, whole numbers of the targets' shape. They are refused when they hold a NaN.
    """

    def __init__(self, num_classes: int, *, from_logits: FromLogits = "auto") -> None:
        self.num_classes = num_classes
        super().__init__(from_logits=from_logits)

    def reset(self) -> None:
        super().reset()
        self.matrix = np.zeros((self.num_classes, self.num_classes), np.int64)

    def update(self, output: Any, target: Any = None) -> None:
        output = as_tensor(output)
        if not output.is_floating_point() and output.shape == np.shape(target):
            output = _one_hot(output, self.num_classes)
        matrix = confusion_matrix(self._ranked(output), target)
        _check_classes(len(matrix), self.num_classes)
        self.matrix = self.matrix + matrix

    @property
    def report(self) -> ClassReport:
        """The matrix so far with all that follows from it."""
        return ClassReport.of(self.matrix)

    @property
    def class_data(self) -> npt.NDArray[np.int64]:
        """Baal's name for `matrix`."""
        return self.matrix

    @property
    def value(self) -> Any:
        report = self.report
        wrong = self.matrix.sum(axis=0) + report.support - 2 * np.diag(self.matrix)
        accuracy = 1 - wrong / self.matrix.sum() if self.matrix.any() else np.full(self.num_classes, np.nan)
        return {"accuracy": accuracy, **{name: getattr(report, name) for name in (*SCORES, "support")}}

    @property
    def standard_dev(self) -> float:
        """How far the classes' F1 spread around their mean."""
        return float(self.report.f1.std()) if self.matrix.any() else float("nan")

    def __str__(self) -> str:
        return str(self.report)


class _OfClasses(Metrics):
    """A number for each class, that `_by_class` gives: their mean, or with `average=False` the array `[class]`.

    Classes of which nothing is known, NaN, are left out of the mean.
    """

    def __init__(self, num_classes: int, average: bool = True, *, from_logits: FromLogits = "auto") -> None:
        self.num_classes = num_classes
        super().__init__(average, from_logits=from_logits)

    @property
    def value(self) -> Value:
        """The mean over the classes so far, or with `average=False` an array of them. NaN before the first batch."""
        values = self._by_class()
        return _mean(values) if self.average else values

    @property
    def standard_dev(self) -> float:
        """How far the classes spread around their mean."""
        values = self._by_class()
        return float(np.sqrt(_mean((values - _mean(values)) ** 2)))

    def __str__(self) -> str:
        return f"{_mean(self._by_class()):.3f}±{self.standard_dev:.3f}"

    def _by_class(self) -> npt.NDArray[np.float64]:
        raise NotImplementedError


class _OfReport(_OfClasses):
    """One score of a `ClassificationReport`."""

    score: ClassVar[str]

    def reset(self) -> None:
        super().reset()
        self._counts = ClassificationReport(self.num_classes, from_logits=self.from_logits)

    def update(self, output: Any, target: Any = None) -> None:
        self._counts.update(output, target)

    def _by_class(self) -> npt.NDArray[np.float64]:
        if not self._counts.matrix.any():
            return np.full(self.num_classes, np.nan)
        return np.asarray(self._counts.value[self.score])


class Precision(_OfReport):
    """Of what was taken for a class, the share that belongs to it: see `baal_widgets.metrics.precision`.

    Their mean over classes, or with `average=False` the array `[class]`. Baal's metric of this name computes `Recall`.
    """

    score = "precision"


class Recall(_OfReport):
    """Of a class's items, the share that was found: see `baal_widgets.metrics.recall`.

    Their mean over classes, or with `average=False` the array `[class]`.
    """

    score = "recall"


class F1(_OfReport):
    """The harmonic mean of precision and recall, class by class: see `baal_widgets.metrics.f1`.

    Their mean over classes, or with `average=False` the array `[class]`.
    """

    score = "f1"


class PRAuC(_OfClasses):
    """The area under each class's precision-recall curve, from counts at `n_bins` thresholds from 0.02 to 0.99.

    Their mean over classes, or with `average=False` the array `[class]`. Probabilities that no threshold separates
    count as equal; but for that it is `baal_widgets.metrics.average_precision`, NaN for classes without items
    included, which the mean leaves out. Holds two counts for each class and threshold, however many items come.
    """

    def __init__(
        self, num_classes: int, n_bins: int = 100, average: bool = True, *, from_logits: FromLogits = "auto"
    ) -> None:
        if n_bins < 1:
            raise ValueError(f"Expected at least one threshold, got n_bins={n_bins}.")
        self.threshold = np.linspace(0.02, 0.99, n_bins)
        super().__init__(num_classes, average, from_logits=from_logits)

    def reset(self) -> None:
        super().reset()
        self._counts = np.zeros((self.num_classes, 2, len(self.threshold) + 1), np.int64)

    def update(self, output: Any, target: Any = None) -> None:
        rows, truth = as_rows(self._probabilities(output), target)
        _check_classes(rows.shape[1], self.num_classes)
        # a NaN lies above no threshold, as a prediction that is wrong should
        thresholds = torch.from_numpy(self.threshold).to(rows.dtype).to(rows.device)
        place = torch.searchsorted(thresholds, rows.nan_to_num(nan=0.0).contiguous())
        cell = 2 * torch.arange(self.num_classes, device=rows.device) + F.one_hot(truth, self.num_classes)
        cell = cell * (len(thresholds) + 1) + place
        counts = as_numpy(torch.bincount(cell.flatten(), minlength=self._counts.size))
        self._counts = self._counts + counts.reshape(self._counts.shape)

    def _by_class(self) -> npt.NDArray[np.float64]:
        # from the highest threshold down
        others, found = np.moveaxis(self._counts[..., ::-1], 1, 0)
        above = found.cumsum(axis=1)
        precision = above / np.maximum(1, above + others.cumsum(axis=1))
        items = above[:, -1]
        areas = np.full(self.num_classes, np.nan)
        np.divide((precision * found).sum(axis=1), items, out=areas, where=items > 0)
        return areas


def get_metric(name: str, num_classes: int | None = None, average: bool = True, **options: Any) -> Metrics:
    """A metric object by its name, for configuration files: "loss", "accuracy", "precision", "recall", "f1",
    "classification_report", "ece", "ece_per_cls" or "pr_auc".

    `num_classes` is needed where a number comes for each class, and ignored elsewhere, as is `average`.

    >>> type(get_metric("precision", num_classes=3)).__name__
    'Precision'
    """
    kinds: dict[str, Callable[..., Metrics]] = {
        "accuracy": Accuracy,
        "classification_report": ClassificationReport,
        "ece": ECE,
        "ece_per_cls": ECE_PerCLs,
        "f1": F1,
        "loss": Loss,
        "pr_auc": PRAuC,
        "precision": Precision,
        "recall": Recall,
    }
    if name not in kinds:
        raise ValueError(f"Expected the name of a metric, one of {', '.join(kinds)}; got {name!r}.")
    kind = kinds[name]
    if name not in ("classification_report", "ece", "ece_per_cls"):
        options["average"] = average
    if name in ("accuracy", "ece", "loss"):
        return kind(**options)
    if num_classes is None:
        raise ValueError(f"Expected num_classes for {name!r}: get_metric({name!r}, num_classes=10).")
    return kind(num_classes, **options)


def transpose_and_flatten(input: Tensor) -> Tensor:  # noqa: A002  Baal's name
    """`[item, class, ...]` as `[row, class]`, each pixel a row; `[item, class]` stays as it is.

    >>> transpose_and_flatten(torch.zeros(2, 3, 4, 5)).shape
    torch.Size([40, 3])
    """
    return input.movedim(1, -1).flatten(0, -2) if input.ndim > 2 else input


def _check_classes(got: int, expected: int) -> None:
    if got != expected:
        raise ValueError(f"Expected predictions of {expected} classes, got {got}. Set num_classes to that.")


def _mean(values: npt.NDArray[np.float64]) -> float:
    """The mean of what isn't NaN; NaN if all are."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _one_hot(indices: Tensor, classes: int) -> Tensor:
    if ((indices < 0) | (indices >= classes)).any():
        raise ValueError(
            f"Expected predictions to be class indices from 0 to {classes - 1}, got values from "
            f"{indices.min()} to {indices.max()}."
        )
    return F.one_hot(indices.long(), classes).movedim(-1, 1)


def _spread(bins: CalibrationBins) -> float:
    if not bins.count.any():
        return float("nan")
    return float(np.sqrt(np.average((bins.gap - bins.ece) ** 2, weights=bins.count)))


def _plain(values: npt.NDArray[np.float64]) -> Value:
    """A float where there is but one number."""
    return float(values.item()) if values.size == 1 else values

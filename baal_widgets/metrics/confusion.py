"""Which class is taken for which, and what follows for each: precision, recall, F1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt
import torch

from baal_widgets.arrays import as_numpy
from baal_widgets.metrics.rows import Floats, as_rows

Average: TypeAlias = Literal["macro", "micro", "weighted"]
Counts: TypeAlias = npt.NDArray[np.int64]


def confusion_matrix(predictions: Any, targets: Any) -> Counts:
    """How many items of each true class (rows) were taken for each class (columns): `[class, class]`.

    The class taken is the likeliest one, the first of equals. Logits do as well as probabilities. An item with a
    NaN was taken for nothing, and has no place here: it is refused with a `ValueError`.

    >>> p = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    >>> confusion_matrix(p, [0, 1, 0]).tolist()
    [[1, 1], [0, 1]]
    """
    rows, truth = as_rows(predictions, targets)
    lost = int(rows.isnan().any(dim=1).sum())
    if lost:
        raise ValueError(
            f"Expected predictions to be numbers, got NaN in {lost} of {len(rows)} items. "
            "A model that gives NaN has usually diverged: train it anew with a smaller learning rate."
        )
    classes = rows.shape[1]
    pairs = torch.bincount(truth * classes + _first_largest(rows), minlength=classes**2)
    return as_numpy(pairs.reshape(classes, classes)).astype(np.int64, copy=False)


@overload
def precision(predictions: Any, targets: Any, average: None = None) -> Floats: ...
@overload
def precision(predictions: Any, targets: Any, average: Average) -> float: ...
def precision(predictions: Any, targets: Any, average: Average | None = None) -> float | Floats:
    """Of the items that were taken for a class, the share that belongs to it: `[class]`, or their average.

    "macro" counts classes alike, "weighted" by their items, "micro" takes all items together, which is the accuracy.
    0 for a class that nothing was taken for, as with scikit-learn's `zero_division=0`; it counts in "macro".

    >>> p = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    >>> precision(p, [0, 1, 0]).tolist(), precision(p, [0, 1, 0], average="macro")
    ([1.0, 0.5], 0.75)
    """
    return ClassReport.of(confusion_matrix(predictions, targets)).averaged("precision", average)


@overload
def recall(predictions: Any, targets: Any, average: None = None) -> Floats: ...
@overload
def recall(predictions: Any, targets: Any, average: Average) -> float: ...
def recall(predictions: Any, targets: Any, average: Average | None = None) -> float | Floats:
    """Of the items of a class, the share that was found: `[class]`, or their average, as for `precision`.

    0 for a class without items; it counts in "macro". "weighted" and "micro" are both the accuracy.

    >>> recall(np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]), [0, 1, 0]).tolist()
    [0.5, 1.0]
    """
    return ClassReport.of(confusion_matrix(predictions, targets)).averaged("recall", average)


@overload
def f1(predictions: Any, targets: Any, average: None = None) -> Floats: ...
@overload
def f1(predictions: Any, targets: Any, average: Average) -> float: ...
def f1(predictions: Any, targets: Any, average: Average | None = None) -> float | Floats:
    """The harmonic mean of precision and recall: `[class]`, or their average, as for `precision`.

    "macro" is the mean of the classes' F1, not the F1 of their mean precision and recall. 0 for a class that has
    neither items nor anything taken for it.

    >>> f1(np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]), [0, 1, 0]).round(2).tolist()
    [0.67, 0.67]
    """
    return ClassReport.of(confusion_matrix(predictions, targets)).averaged("f1", average)


def classification_report(predictions: Any, targets: Any, classes: Sequence[str] | None = None) -> ClassReport:
    """Precision, recall and F1 of each class, with its number of items; `str()` of it is a table.

    >>> p = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    >>> print(classification_report(p, [0, 1, 0], classes=["cat", "dog"]))
              precision  recall     f1  support
    cat           1.000   0.500  0.667        2
    dog           0.500   1.000  0.667        1
    macro         0.750   0.750  0.667        3
    weighted      0.833   0.667  0.667        3
    accuracy                     0.667        3
    """
    return ClassReport.of(confusion_matrix(predictions, targets), classes)


@dataclass(frozen=True, eq=False)
class ClassReport:
    """What a confusion matrix, true classes in its rows, says of each class. Arrays are `[class]`.

    The conventions are those of `precision`, `recall` and `f1`.
    """

    matrix: Counts
    classes: tuple[str, ...]

    @classmethod
    def of(cls, matrix: Counts, classes: Sequence[str] | None = None) -> ClassReport:
        """The report of a matrix; without names, classes are called by their index."""
        names = tuple(str(c) for c in (range(len(matrix)) if classes is None else classes))
        if len(names) != len(matrix):
            raise ValueError(f"Expected a name for each of the {len(matrix)} classes, got {len(names)}.")
        return cls(matrix, names)

    @property
    def support(self) -> Counts:
        """The number of items of each class."""
        return np.asarray(self.matrix.sum(axis=1))

    @property
    def precision(self) -> Floats:
        return _ratio(np.diag(self.matrix), self.matrix.sum(axis=0))

    @property
    def recall(self) -> Floats:
        return _ratio(np.diag(self.matrix), self.support)

    @property
    def f1(self) -> Floats:
        return _ratio(2 * np.diag(self.matrix), self.matrix.sum(axis=0) + self.support)

    @property
    def accuracy(self) -> float:
        """The share of all items that were taken for what they are. NaN without any."""
        return float(np.trace(self.matrix) / self.matrix.sum()) if self.matrix.any() else float("nan")

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A mapping for each class, with the keys `class`, `precision`, `recall`, `f1`, `support`."""
        columns = [self.classes, *(getattr(self, name).tolist() for name in ("precision", "recall", "f1", "support"))]
        names = ("class", "precision", "recall", "f1", "support")
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]

    @overload
    def averaged(self, name: str, average: Average) -> float: ...
    @overload
    def averaged(self, name: str, average: Average | None) -> float | Floats: ...
    def averaged(self, name: str, average: Average | None) -> float | Floats:
        """The values of "precision", "recall" or "f1", or their average. NaN without items."""
        values: Floats = getattr(self, name)
        if average is None:
            return values
        if average == "micro":
            return self.accuracy  # each item has one class and is taken for one, so all three are the same
        if average == "weighted":
            items = self.support.sum()
            return float(values @ self.support / items) if items else float("nan")
        if average == "macro":
            return float(values.mean()) if self.matrix.any() else float("nan")
        raise ValueError(f"Expected average to be 'macro', 'micro', 'weighted' or None, got {average!r}.")

    def __str__(self) -> str:
        scores = ("precision", "recall", "f1")
        items = int(self.support.sum())
        lines = [(row["class"], [row[name] for name in scores], row["support"]) for row in self.rows]
        lines += [(kind, [self.averaged(n, kind) for n in scores], items) for kind in ("macro", "weighted")]
        width = max(len(name) for name, *_ in [*lines, ("accuracy",)])
        head = f"{'':{width}}  precision  recall     f1  support"
        body = [f"{name:{width}}  {p:9.3f}  {r:6.3f}  {f:5.3f}  {n:7d}" for name, (p, r, f), n in lines]
        return "\n".join([head, *body, f"{'accuracy':{width}}  {'':9}  {'':6}  {self.accuracy:5.3f}  {items:7d}"])


def _first_largest(rows: torch.Tensor) -> torch.Tensor:
    # argmax promises no order among equals on every device
    places = torch.arange(rows.shape[1], device=rows.device)
    return torch.where(rows == rows.amax(dim=1, keepdim=True), places, rows.shape[1]).amin(dim=1)


def _ratio(part: Counts, whole: Counts) -> Floats:
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)

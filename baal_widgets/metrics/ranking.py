"""How well a class's probability puts its items before the others."""

from __future__ import annotations

from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from baal_widgets.arrays import as_floats, as_numpy, to_probabilities
from baal_widgets.metrics.confusion import Average
from baal_widgets.metrics.rows import Floats, as_rows


@overload
def average_precision(probabilities: Any, targets: Any, average: None = None) -> Floats: ...
@overload
def average_precision(probabilities: Any, targets: Any, average: Average) -> float: ...
def average_precision(probabilities: Any, targets: Any, average: Average | None = None) -> float | Floats:
    """The area under each class's precision-recall curve, one class against the rest: `[class]`, or an average.

    The mean precision at which the items of the class are found, going down from its highest probability; items
    of equal probability are found together. The curve is a staircase, as in scikit-learn, since straight lines
    between its points would promise too much (Davis and Goadrich, ICML 2006).

    NaN for a class without items, which "macro" and "weighted" leave out; "micro" ranks all pairs of item and
    class together. Sorts every class: O(item log item), and holds a few arrays of the probabilities' size.

    >>> import numpy as np
    >>> p = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    >>> average_precision(p, [0, 1, 0]).round(2).tolist()
    [0.83, 0.5]
    """
    rows, truth = as_rows(to_probabilities(as_floats(probabilities), from_logits=False), targets)
    of_class = F.one_hot(truth, rows.shape[1])
    if average == "micro":
        return float(_areas(rows.reshape(-1, 1), of_class.reshape(-1, 1)))
    areas, support = as_numpy(_areas(rows, of_class)).astype(float), as_numpy(of_class.sum(dim=0))
    if average is None:
        return areas
    if average not in ("macro", "weighted"):
        raise ValueError(f"Expected average to be 'macro', 'micro', 'weighted' or None, got {average!r}.")
    there = support > 0
    weights = support[there] if average == "weighted" else there[there]
    return float((areas[there] * weights).sum() / weights.sum())


def _areas(scores: Tensor, positive: Tensor) -> Tensor:
    """The area of each column of `[row, column]`."""
    n = len(scores)
    ranked, order = scores.sort(dim=0, descending=True)
    found = positive.gather(0, order)
    places = torch.arange(n, device=scores.device)[:, None]
    closes = torch.ones_like(found, dtype=torch.bool)
    closes[:-1] = ranked[:-1] != ranked[1:]
    # where the run of equals that each place belongs to ends
    end = torch.where(closes, places, n).flip(0).cummin(dim=0).values.flip(0)
    precision = found.cumsum(dim=0).gather(0, end).to(scores.dtype) / (end + 1)
    area = (precision * found).sum(dim=0) / found.sum(dim=0)
    return torch.where(scores.isnan().any(dim=0), torch.nan, area)

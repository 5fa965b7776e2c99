"""One number for all items: accuracy, and the two proper scores, likelihood and Brier's."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from baal_widgets.arrays import as_floats, to_probabilities
from baal_widgets.metrics.rows import as_rows, hits


def accuracy(predictions: Any, targets: Any, k: int = 1) -> float:
    """The share of items whose true class is among the k likeliest. Logits do as well as probabilities.

    Of equally likely classes the first is taken, so an undecided model isn't always right.

    >>> import numpy as np
    >>> p = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    >>> accuracy(p, [1, 2]), accuracy(p, [1, 2], k=2)
    (0.5, 1.0)
    """
    return float(hits(*as_rows(predictions, targets), k=k).mean())


def nll(probabilities: Any, targets: Any) -> float:
    """The mean surprise at the true class, -log p, in nats (cross-entropy, log loss): 0 is perfect.

    Probability zero counts as the smallest normal number of the dtype (87 nats in float32, 708 in float64): one
    certain mistake costs dearly, but not everything.

    >>> import numpy as np
    >>> round(nll(np.array([[0.5, 0.5], [1.0, 0.0]]), [0, 0]), 3)
    0.347
    """
    rows, truth = as_rows(to_probabilities(as_floats(probabilities), from_logits=False), targets)
    likelihood = rows.gather(1, truth[:, None]).clamp(min=torch.finfo(rows.dtype).tiny)
    return -float(likelihood.log().mean())


def brier(probabilities: Any, targets: Any) -> float:
    """The mean squared distance to the truth, summed over classes: 0 is perfect, 2 certain and wrong.

    Brier, 1950. For two classes this is twice the one-sided score that some libraries give.

    >>> import numpy as np
    >>> brier(np.array([[0.5, 0.5], [1.0, 0.0]]), [0, 0])
    0.25
    """
    rows, truth = as_rows(to_probabilities(as_floats(probabilities), from_logits=False), targets)
    return float((rows - F.one_hot(truth, rows.shape[1])).square().sum(dim=1).mean())

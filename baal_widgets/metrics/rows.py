"""What all measures begin with: one row of numbers and one true class for each item or pixel, checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from baal_widgets.arrays import as_floats, as_numpy, as_tensor, to_probabilities

Floats = npt.NDArray[np.float64]


def as_rows(predictions: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """`[item, class, ...]` and `[item, ...]` as `[row, class]` and `[row]`, checked; a row is an item or a pixel.

    Targets become whole numbers, on the predictions' device; gradients are cut.
    """
    values = _checked(predictions)
    truth = as_tensor(targets).detach().to(values.device)
    expected = (values.shape[0], *values.shape[2:])
    if truth.shape not in (expected, (expected[0], 1, *expected[1:])):
        raise ValueError(
            f"Expected targets shaped {expected}, one class index for each prediction, got {tuple(truth.shape)}. "
            f"The predictions are {tuple(values.shape)}, with the classes on axis 1."
        )
    rows, truth = _flat(values), truth.flatten()
    classes = rows.shape[1]
    whole = truth.long()
    if ((whole != truth) | (whole < 0) | (whole >= classes)).any():
        raise ValueError(
            f"Expected targets to be whole numbers from 0 to {classes - 1}, got values from "
            f"{truth.min().item():g} to {truth.max().item():g}. Leave out items without a label, often marked -1."
        )
    return rows, whole


def probability_rows(probabilities: Any) -> Tensor:
    """`[item, class, ...]` as `[row, class]`, checked to be probabilities; for where no truth is asked for."""
    return _flat(_checked(to_probabilities(as_floats(probabilities), from_logits=False)))


def hits(rows: Tensor, truth: Tensor, k: int = 1) -> Floats:
    """For what `as_rows` gave: 1 where the true class is among the k likeliest, else 0."""
    if not 1 <= k <= rows.shape[1]:
        raise ValueError(f"Expected k between 1 and the {rows.shape[1]} classes, got {k}.")
    if k == 1:
        return np.asarray(as_numpy(right(*rows.max(dim=1), truth)), dtype=np.float64)
    true = truth[:, None]
    own = rows.gather(1, true)
    first = torch.arange(rows.shape[1], device=rows.device) >= true
    behind = (rows < own) | ((rows == own) & first)  # a NaN is behind nothing
    return np.asarray(as_numpy((~behind).sum(dim=1) < k), dtype=np.float64)


def right(confidence: Tensor, likeliest: Tensor, truth: Tensor) -> Tensor:
    """Whether the likeliest class, the first of equals, is the true one; a NaN is wrong. Takes `rows.max(dim=1)`."""
    return (likeliest == truth) & ~confidence.isnan()


def _checked(predictions: Any) -> Tensor:
    values = as_floats(predictions).detach()
    if values.ndim < 2 or 0 in values.shape:
        raise ValueError(f"Expected predictions [item, class, ...] with at least one item, got {tuple(values.shape)}.")
    return to_probabilities(values, from_logits=False) if values.shape[1] == 1 else values


def _flat(values: Tensor) -> Tensor:
    return values.movedim(1, -1).flatten(0, -2)

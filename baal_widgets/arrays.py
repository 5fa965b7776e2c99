"""NumPy and torch alike, and what a model's raw outputs mean: logits or probabilities.

All sums are done by torch, on the device where the predictions already are. What came as NumPy goes back as NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array: TypeAlias = npt.NDArray[Any] | Tensor
FromLogits: TypeAlias = bool | Literal["auto"]

A = TypeVar("A", npt.NDArray[Any], Tensor)
P = ParamSpec("P")

# How far probabilities may be from summing to one: bfloat16 needs 0.004, also after it was stored as float32.
TOLERANCE = 0.01


class Alike(Protocol[P]):
    """A function of predictions that answers in the kind it was asked in."""

    def __call__(self, predictions: A, *args: P.args, **kwargs: P.kwargs) -> A: ...


def alike(function: Callable[Concatenate[Tensor, P], Tensor]) -> Alike[P]:
    """Let a function of tensors take NumPy arrays too, and give NumPy back for them.

    Half precision and integers are raised to float32 on the way in; float64 stays float64. Gradients flow
    through where tensors ask for them.
    """

    @wraps(function)
    def either(predictions: Array, *args: P.args, **kwargs: P.kwargs) -> Array:
        result = function(as_floats(predictions), *args, **kwargs)
        return result if isinstance(predictions, Tensor) else as_numpy(result)

    return cast("Alike[P]", either)


@alike
def to_probabilities(predictions: Tensor, from_logits: FromLogits = "auto") -> Tensor:
    """Probabilities over axis 1 from whatever the model gave: `[item, class, ...]` in, the same shape out.

    "auto" asks `are_logits` about all the predictions at once. With `from_logits=False` probabilities pass through
    untouched (the very same memory where no change is due). A class axis of size one is a yes/no model: it
    comes back with two classes, "no" and "yes".

    Raises `ValueError` when `from_logits=False` and finite values lie outside [0, 1].

    >>> to_probabilities(np.array([[0.0, 0.0], [800.0, 0.0]])).tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    >>> to_probabilities(np.array([[0.75]]), from_logits=False).tolist()
    [[0.25, 0.75]]
    """
    check_shape(predictions)
    yes_or_no = predictions.shape[1] == 1
    if from_logits == "auto" and _are_probabilities(predictions):
        return predictions
    if are_logits(predictions) if from_logits == "auto" else from_logits:
        if yes_or_no:
            return torch.cat([torch.sigmoid(-predictions), torch.sigmoid(predictions)], dim=1)
        return predictions.softmax(dim=1)
    if not _within(predictions, 0, 1 + TOLERANCE):
        predictions = _checked(predictions)
    return torch.cat([1 - predictions, predictions], dim=1) if yes_or_no else predictions


def are_logits(predictions: Array) -> bool | None:
    """Whether `[item, class, ...]` holds logits; `None` where no item is finite enough to tell.

    Probabilities lie within [0, 1] and sum to one over the classes, to within 0.01 so that half precision passes:
    every draw of the first 1,000 items, the mean of the draws of the others. One item that doesn't makes all of them
    logits. Items with a NaN or an infinity have no say. Two passes over
    the predictions, more where they are logits.
    """
    values = as_floats(predictions)
    check_shape(values)
    if _are_probabilities(values):
        return False
    if _within(values, -TOLERANCE, 1 + TOLERANCE) and len(values):
        return values.shape[1] > 1 and not _within(values.sum(dim=1), 1 - TOLERANCE, 1 + TOLERANCE)
    lowest, highest = _extremes(values)
    voters = lowest.isfinite() & highest.isfinite()
    if not voters.any():
        voters = highest.isfinite()  # a class ruled out by -inf in every item
    if not voters.any():
        return None
    outside = (lowest < -TOLERANCE) | (highest > 1 + TOLERANCE)
    if (outside & voters).any() or values.shape[1] == 1:
        return bool((outside & voters).any())
    off = (values.sum(dim=1) - 1).abs()
    off = off.flatten(1).amax(dim=1) if off.ndim > 1 else off
    return bool(((off > TOLERANCE) & voters).any())


def as_tensor(values: Any) -> Tensor:
    """A tensor of the values: themselves, or sharing memory with a NumPy array where torch can.

    Read-only, reversed and foreign-endian arrays are copied, which torch would otherwise warn about or refuse.
    """
    if isinstance(values, Tensor):
        return values
    array = np.asarray(values)
    if not array.flags.writeable or not array.dtype.isnative or any(stride < 0 for stride in array.strides):
        array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(array)


def as_floats(values: Any) -> Tensor:
    """`as_tensor` in float32, or in float64 if it came so."""
    tensor = as_tensor(values)
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def as_numpy(values: Any) -> npt.NDArray[Any]:
    """A NumPy array of the values, wherever they were; shares memory where it can."""
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return np.asarray((values.float() if values.dtype == torch.bfloat16 else values).numpy())


def check_shape(predictions: Tensor, least: int = 2) -> None:
    """Refuse what isn't `[item, class, ..., draw]`, with at least so many axes and none but the first empty."""
    if predictions.ndim < least or 0 in predictions.shape[1:]:
        raise ValueError(
            f"Expected predictions shaped [item, class, ..., draw], got {tuple(predictions.shape)}. "
            "For a single forward pass add the last axis yourself: predictions[..., None]."
        )


def _extremes(predictions: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and highest value of each item; NaN where the item holds one."""
    rest = tuple(range(1, predictions.ndim))
    return predictions.amin(dim=rest), predictions.amax(dim=rest)


def _within(values: Tensor, low: float, high: float) -> bool:
    """Whether every value is a number from `low` to `high`: one pass, several times as fast as one item by item."""
    if not values.numel():
        return True
    lowest, highest = values.aminmax()
    return bool((lowest >= low) & (highest <= high))


def _are_probabilities(values: Tensor) -> bool:
    """Whether all are plainly probabilities: none below 0, so that by their sums none is above 1. Two passes.

    Summed is each draw of the first items, of the others the mean of the draws: half the time, and what sums to one
    in a thousand items was made to.
    """
    if not len(values) or values.shape[1] == 1 or not values.amin() >= 0:
        return False
    if not _within(values[:1000].sum(dim=1), 1 - TOLERANCE, 1 + TOLERANCE):
        return False
    axes, draws = ((1,), 1) if values.ndim == 2 else ((1, -1), values.shape[-1])
    return _within(values.sum(dim=axes) / draws, 1 - TOLERANCE, 1 + TOLERANCE)


def _checked(predictions: Tensor) -> Tensor:
    """Probabilities without rounding noise below 0; items that aren't finite pass."""
    lowest, highest = _extremes(predictions)
    wrong = lowest.isfinite() & highest.isfinite() & ((lowest < -TOLERANCE) | (highest > 1 + TOLERANCE))
    if wrong.any():
        raise ValueError(
            f"Expected probabilities, got values from {lowest[wrong].min():.3g} to {highest[wrong].max():.3g}. "
            "For logits pass from_logits=True."
        )
    if (lowest < 0).any():
        predictions = torch.where(predictions < 0, 0.0, predictions)  # rounding noise, whose logarithm is NaN
    return predictions

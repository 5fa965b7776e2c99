"""How much we would like to know an item's label: one number an item, higher = ask first.

All take probabilities `[item, class, ..., draw]` and give `[item, ...]`: NumPy for NumPy, a tensor on the same
device for a tensor. Logits go through `to_probabilities` first, once for the whole prediction, so that it is
always probabilities that are averaged over the draws, never logits. Where the draw axis can be left out
(`[item, class]`, a single forward pass), the docstring says so. An item with a NaN scores NaN and leaves the
others alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from baal_widgets.arrays import alike, check_shape, to_probabilities

__all__ = [
    "bald",
    "certainty",
    "entropy",
    "expected_entropy",
    "margin",
    "predictive_entropy",
    "to_probabilities",
    "variance",
]


@alike
def bald(predictions: Tensor) -> Tensor:
    """How much an item's label would tell us about the weights, in nats.

    The part of `predictive_entropy` that the draws don't agree on: zero where every draw says the same, however
    unsure they are; at most log of the number of classes or of draws. Houlsby et al., 2011 (arXiv:1112.5745).
    Beside the predictions and their mean it holds a megabyte, on a GPU at most 256 MB.

    >>> import numpy as np
    >>> agree, differ = [[1, 1], [0, 0]], [[1, 0], [0, 1]]      # two draws, two classes
    >>> bald(np.array([agree, differ], float)).round(2).tolist()
    [0.0, 0.69]
    """
    check_shape(predictions, least=3)
    # rounding may leave a little less than nothing, and a negative score has no logarithm or square root
    return (entropy(_mean(predictions)) - _expected(predictions)).clamp(min=0)


@alike
def predictive_entropy(predictions: Tensor) -> Tensor:
    """How unsure the model is of the label, all draws taken together, in nats; at most log of the classes.

    Shannon's entropy of the averaged probabilities: total uncertainty, what more labels could teach and
    what they couldn't. `[item, class]` is a single pass.

    >>> import numpy as np
    >>> predictive_entropy(np.array([[0.5, 0.5], [1.0, 0.0]])).round(2).tolist()
    [0.69, 0.0]
    """
    return entropy(averaged(predictions))


@alike
def expected_entropy(predictions: Tensor) -> Tensor:
    """How unsure the draws are on their own, in nats: the noise that no label will take away (aleatoric).

    >>> import numpy as np
    >>> expected_entropy(np.array([[[1.0, 0.5], [0.0, 0.5]]])).round(2).tolist()
    [0.35]
    """
    check_shape(predictions, least=3)
    return _expected(predictions)


@alike
def margin(predictions: Tensor) -> Tensor:
    """How near the second class comes to the first: minus their distance, from -1 (sure) to 0 (a tie).

    Scheffer et al., 2001 ("Active hidden Markov models for information extraction"); Baal's `Margin` is the same
    without the minus. `[item, class]` is a single pass.

    >>> import numpy as np
    >>> margin(np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])).tolist()
    [-0.25, -1.0]
    """
    check_shape(predictions)
    if predictions.shape[1] < 2:
        raise ValueError(
            f"Expected at least two classes on axis 1, got predictions shaped {tuple(predictions.shape)}. "
            "For a yes/no model call to_probabilities first: it adds the other class."
        )
    first, second = averaged(predictions).topk(2, dim=1).values.unbind(dim=1)
    return second - first


@alike
def certainty(predictions: Tensor) -> Tensor:
    """How doubtful the best guess is: minus its probability, from -1 (sure) to -1/classes.

    "Least confidence" of Lewis & Gale, 1994 (arXiv:cmp-lg/9407020); Baal's `Certainty` is the same without the
    minus. `[item, class]` is a single pass.

    >>> import numpy as np
    >>> certainty(np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])).tolist()
    [-0.5, -1.0]
    """
    return -averaged(predictions).amax(dim=1)


@alike
def variance(predictions: Tensor) -> Tensor:
    """How far the draws spread around their mean, in squared units of the output; made for regression.

    One number an output: `[item, output, ..., draw]` gives `[item, output, ...]`, to be averaged by the caller.
    Any real values will do. Divides by the number of draws, as Baal does, so one draw spreads by 0.

    >>> import numpy as np
    >>> variance(np.array([[[1.0, 3.0]], [[2.0, 2.0]]])).tolist()
    [[1.0], [0.0]]
    """
    check_shape(predictions, least=3)
    return (predictions - predictions.mean(dim=-1, keepdim=True)).square().mean(dim=-1)


@alike
def entropy(predictions: Tensor) -> Tensor:
    """Shannon's entropy over axis 1, in nats: `[item, class, ...]` gives `[item, ...]`; 0 log 0 is 0.

    >>> import numpy as np
    >>> entropy(np.array([[0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0]])).round(2).tolist()
    [1.39, 0.0]
    """
    return 0 - _weighed_logs(predictions).sum(dim=1)


def _expected(predictions: Tensor) -> Tensor:
    """A few items after the other: what is made of them on the way stays in the processor's cache."""
    most = 2**26 if predictions.is_cuda else 2**18
    items = max(1, most // max(1, predictions[:1].numel()))
    room = None if predictions.requires_grad else torch.empty_like(predictions[:items])
    bare = room is not None
    sums = []
    for first in range(0, max(1, len(predictions)), items):
        part = predictions[first : first + items]
        within = None if room is None else room[: len(part)]
        if bare:
            sums.append(torch.log(part, out=within).mul_(part).sum(dim=(1, -1)))
            # 0 log 0 came out as NaN: who holds one 0 holds more, which it takes another pass to keep off the logarithm
            bare = not math.isnan(sums[-1].sum())
        if not bare:
            sums[first // items :] = [_weighed_logs(part, within).sum(dim=(1, -1))]
    return 0 - torch.cat(sums) / predictions.shape[-1]


def _weighed_logs(predictions: Tensor, room: Tensor | None = None) -> Tensor:
    """p log p of each value, 0 for 0, made in `room`; on a CPU in a third of the time of `torch.special.entr`."""
    least = torch.finfo(predictions.dtype).tiny
    return torch.clamp(predictions, min=least, out=room).log_().mul_(predictions)


def _mean(predictions: Tensor) -> Tensor:
    """The mean over the draws, as a product: on a CPU in half the time of a sum over so short an axis."""
    draws = predictions.shape[-1]
    return predictions @ predictions.new_full((draws,), 1 / draws)


def averaged(predictions: Tensor) -> Tensor:
    """The model's one prediction, `[item, class, ...]`: the mean over the draws, if there is a draw axis."""
    check_shape(predictions)
    return predictions if predictions.ndim == 2 else _mean(predictions)

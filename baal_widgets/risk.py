"""The risk on items that were not chosen at random, as it would be on the whole pool.

A model picks the items that it finds hard, so their mean loss says too much. Knowing how probable each choice was is
enough to weigh that out again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from baal_widgets.active.dataset.base import as_indices
from baal_widgets.arrays import A, alike, as_numpy, as_tensor
from baal_widgets.checks import positive


@alike
def lure_weights(proposal_probabilities: Tensor, n_pool: int) -> Tensor:
    """How much the loss of each chosen item must weigh so that their mean estimates the risk on the pool, `[item]`.

    `proposal_probabilities[m]` is the probability with which the m-th item was chosen among those still in the pool,
    in the order of choosing; `n_pool` is how many there were before the first choice. All weights are one where
    items were chosen uniformly, and where the whole pool was. An item that was unlikely to be chosen weighs more, the
    first ones more than the last. Each loss weighed so, the mean is unbiased for any way to choose that could have
    chosen every item (Farquhar, Gal & Rainforth 2021, "LURE", arXiv:2101.11665), and each weight is one on average.
    With a top-k choice it can't be: what is not drawn has no probability.

    >>> lure_weights(np.array([1 / 4, 1 / 3]), n_pool=4).round(6).tolist()
    [1.0, 1.0]
    >>> lure_weights(np.array([1 / 2, 1 / 3]), n_pool=4).round(6).tolist()
    [0.666667, 1.0]
    """
    q, n = proposal_probabilities, positive("n_pool", n_pool)
    if q.ndim != 1 or not ((q > 0) & (q <= 1 + 1e-6)).all():
        raise ValueError(
            "Expected a probability above 0 and at most 1 of choosing each of the chosen items, "
            f"got {q.tolist() if q.numel() < 10 else tuple(q.shape)}."
        )
    m = len(q)
    if m > n:
        raise ValueError(f"Expected at most as many items as there were in the pool, {n}, got {m}.")
    if m == n:
        return torch.ones_like(q)
    left = n - torch.arange(m, device=q.device, dtype=q.dtype)  # in the pool at each choice, the chosen one included
    return 1 + (n - m) / (left - 1) * (1 / (left * q) - 1)


def lure_risk(losses: A, proposal_probabilities: Any, n_pool: int) -> A:
    """The mean loss on the whole pool, estimated from the `losses` `[item]` of what was chosen, one number.

    The items in the order of choosing, with the arguments of `lure_weights`. Gradients flow to the losses, so it can be
    trained on; the authors find that this helps small models and may hurt large ones, which fit every item anyhow.

    >>> float(lure_risk(np.array([1.0, 3.0]), np.array([1 / 4, 1 / 3]), n_pool=4).round(6))
    2.0
    """
    return _weighted_mean(losses, proposal_probabilities, n_pool)


def sequential_proposals(shares: Any, chosen: Any) -> npt.NDArray[np.float64]:
    """With which probability each of the `chosen` was drawn among those left, `[item]`: what `lure_weights` takes.

    `shares` `[item]` say how probable each item of the pool was to be drawn first, and `chosen` are the positions in
    the order drawn, without replacement, each in proportion to its share of what was left. A `StochasticHeuristic`
    draws so, and `get_ranks` tells both: `ranks, shares = heuristic.get_ranks(predictions)`. When scores change from
    round to round, ask once a round about the pool of that round, and join the answers.

    >>> sequential_proposals([0.5, 0.25, 0.25], [0, 2]).tolist()
    [0.5, 0.5]
    """
    weights, (places, _) = as_numpy(shares).astype(np.float64), as_indices(chosen)
    if weights.ndim != 1 or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(f"Expected a share for each item, finite and from 0 on, got shape {weights.shape}.")
    if len(set(places)) < len(places):
        raise ValueError("Expected positions in the order drawn, each once: an item leaves the pool when it is drawn.")
    if any(not 0 <= place < len(weights) for place in places):
        raise IndexError(f"Expected positions among {len(weights)} shares, got {places[:10]}.")
    drawn = weights[places]
    if not (drawn > 0).all():
        raise ValueError("An item with a share of 0 had no chance to be drawn, and yet it was chosen.")
    # Summed from the end on: what a nearly certain choice leaves would be lost in 1 - p.
    left = np.cumsum(np.append(np.delete(weights, places).sum(), drawn[::-1]))[:0:-1]
    return np.asarray(drawn / left)


@alike
def _weighted_mean(losses: Tensor, proposal_probabilities: Any, n_pool: int) -> Tensor:
    weights = lure_weights(as_tensor(proposal_probabilities).to(losses.device), n_pool)
    if losses.shape != weights.shape or not len(losses):
        raise ValueError(
            f"Expected a loss for each of {len(weights)} asked items, at least one, got shape {tuple(losses.shape)}."
        )
    return (weights.to(losses.dtype) * losses).mean()

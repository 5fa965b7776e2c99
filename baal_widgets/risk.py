"""The risk on items that were not chosen at random, as it would be on the whole pool.

A model picks the items that it finds hard, so their mean loss says too much. Knowing how probable each choice was is
enough to weigh that out again.
"""

from __future__ import annotations

import math
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
    q, n, m = proposal_probabilities, positive("n_pool", n_pool), len(proposal_probabilities)
    if q.ndim != 1 or m > n:
        raise ValueError(
            f"Expected a probability for each of at most n_pool={n} chosen items, got shape {tuple(q.shape)}."
        )
    if not ((q > 0) & (q <= 1 + 1e-6)).all():
        raise ValueError(
            "Expected probabilities above 0 and at most 1 of choosing what was chosen, got "
            f"{q[~((q > 0) & (q <= 1 + 1e-6))].tolist()[:5]}."
        )
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


def sampling_probabilities(scores: Any, chosen: Any, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """With which probability each of the `chosen` was drawn among those left, by a softmax of the scores, `[item]`.

    `chosen` are positions in `scores` `[item]` in the order drawn, without replacement. This is how `GibbsSampling`
    draws; for other weights give their logarithms as scores, as `np.log(heuristic.distribution(predictions))` is for
    any `StochasticHeuristic`. When scores change from round to round, ask once a round, about the pool of that round,
    and join the answers: they are what `lure_weights` takes.

    >>> sampling_probabilities(np.log([0.5, 0.25, 0.25]), [0, 2]).round(6).tolist()
    [0.5, 0.5]
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"Expected a temperature above 0, got {temperature}.")
    weights = as_numpy(scores).astype(np.float64) / temperature
    if weights.ndim != 1 or np.isnan(weights).any() or np.isposinf(weights).any():
        raise ValueError(f"Expected a score for each item, none NaN or infinite, got shape {weights.shape}.")
    places, _ = as_indices(chosen)
    if len(set(places)) < len(places) or any(not 0 <= place < len(weights) for place in places):
        raise ValueError(f"Expected different positions among {len(weights)} scores as chosen, got {places[:10]}.")
    if np.isneginf(weights[places]).any():
        raise ValueError("An item with a score of minus infinity has no chance to be drawn, and yet it is chosen.")
    rest = np.delete(weights, places)
    # Summed from the end on: what is left after a near certain choice would be lost in 1 - p.
    log_total = np.logaddexp.accumulate(np.concatenate([[_log_sum_exp(rest)], weights[places][::-1]]))[1:][::-1]
    return np.asarray(np.exp(weights[places] - log_total))


@alike
def _weighted_mean(losses: Tensor, proposal_probabilities: Any, n_pool: int) -> Tensor:
    weights = lure_weights(as_tensor(proposal_probabilities).to(losses.device), n_pool)
    if losses.shape != weights.shape or not len(losses):
        raise ValueError(
            f"Expected a loss for each of {len(weights)} probabilities, at least one, got shape {tuple(losses.shape)}."
        )
    return (weights.to(losses.dtype) * losses).mean()


def _log_sum_exp(values: npt.NDArray[np.float64]) -> float:
    return float(np.logaddexp.reduce(values)) if len(values) else -math.inf

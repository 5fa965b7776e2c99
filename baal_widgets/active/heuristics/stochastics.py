"""Draw the query from the scores rather than take their top: a batch without near-duplicates, at no cost.

Kirsch et al., "Stochastic Batch Acquisition: A Simple Baseline for Deep Active Learning", 2023 (arXiv:2106.12059).
The probabilities are known, so the risk on the items so chosen can be corrected for how they were chosen: see `risk`.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from baal_widgets.active.heuristics.heuristics import AbstractHeuristic, Scores, Seed
from baal_widgets.checks import positive

Floats = npt.NDArray[np.float64]


class StochasticHeuristic(AbstractHeuristic):
    """Draws items one after another without replacement, each in proportion to its weight among those left.

    A subclass says in `log_weights` what the weights are. Whichever way the base heuristic counts, what it asks
    first weighs most. `get_ranks` gives `query_size` places, or with `None` all of them, and the probability of each
    item to be drawn first. Items that can't be scored weigh nothing. `seed` decides what is drawn.
    """

    def __init__(
        self,
        base_heuristic: AbstractHeuristic,
        query_size: int | None = None,
        temperature: float = 1.0,
        seed: Seed = None,
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"Expected a temperature above 0, got {temperature}.")
        super().__init__(reverse=True, seed=seed)
        self.base_heuristic = base_heuristic
        self.query_size = None if query_size is None else positive("query_size", query_size)
        self.temperature = temperature
        self.takes = base_heuristic.takes

    def get_uncertainties(self, predictions: Any, *known: Any) -> Scores:
        """The drawn order as scores, `[item]`: drawn anew at each call, the highest was drawn first."""
        return self._drawn(self._log_weights_of(self.base_heuristic.scores(predictions, *known)))

    def get_ranks(self, predictions: Any, *known: Any) -> tuple[npt.NDArray[np.intp], Scores]:
        """What was drawn, in that order, and the distribution it was drawn from, `[item]`, which sums to one."""
        weights = self._log_weights_of(self.base_heuristic.scores(predictions, *known))
        ranks = self.reorder_indices(self._drawn(weights))
        return ranks[: self.query_size], _normalised(weights)

    def ranking(self, predictions: Any, *known: Any) -> tuple[npt.NDArray[np.intp], Scores]:
        """All positions in the order drawn, and the scores of the base heuristic that they were drawn by."""
        scores = self.base_heuristic.scores(predictions, *known)
        return self.reorder_indices(self._drawn(self._log_weights_of(scores))), scores

    def distribution(self, predictions: Any, *known: Any) -> Floats:
        """The probability of each item to be drawn first, `[item]`."""
        return _normalised(self._log_weights_of(self.base_heuristic.scores(predictions, *known)))

    def sized(self, query_size: int) -> StochasticHeuristic:
        if self.query_size is not None:
            return self
        sized = copy.copy(self)
        sized.query_size = query_size
        return sized

    def log_weights(self, scores: Floats) -> Floats:
        """The logarithm of each item's weight, from finite scores `[item]`, higher = ask first."""
        raise NotImplementedError(f"{type(self).__name__} needs a `log_weights`.")

    def _log_weights_of(self, scores: Scores) -> Floats:
        if scores.ndim != 1:
            raise ValueError(
                f"Expected one score an item to draw by, got scores shaped {scores.shape}. Give the base heuristic, "
                f"{type(self.base_heuristic).__name__}, a reduction such as 'mean'."
            )
        known = np.isfinite(scores)
        weights = np.full(len(scores), -np.inf)
        if known.any():
            weights[known] = self.log_weights(scores[known].astype(np.float64))
        return weights

    def _drawn(self, log_weights: Floats) -> Floats:
        # the largest of Gumbel-perturbed log weights is a draw, and the next ones are draws from what is left
        return log_weights + self.rng.gumbel(size=len(log_weights))


class PowerSampling(StochasticHeuristic):
    """Weights are the scores to the power of `1/temperature`: an item that teaches nothing is not drawn.

    Scores count from where nothing is to be learned (0; a margin or a certainty of 1); should some lie below, from the
    lowest. An item of weight zero comes after all others.
    """

    def log_weights(self, scores: Floats) -> Floats:
        above = scores - self.base_heuristic.least
        above -= min(above.min(), 0.0)
        with np.errstate(divide="ignore"):
            return np.asarray(np.maximum(np.log(above), -1e4) / self.temperature)


class GibbsSampling(StochasticHeuristic):
    """Weights are `exp(score / temperature)`, a softmax: also what teaches nothing may be drawn."""

    def log_weights(self, scores: Floats) -> Floats:
        return scores / self.temperature


class RankBasedSampling(StochasticHeuristic):
    """Weights are the ranks to the power of `-1/temperature`, so only the order of the scores counts.

    Equal scores share the mean of their ranks.
    """

    def log_weights(self, scores: Floats) -> Floats:
        _, place, count = np.unique(-scores, return_inverse=True, return_counts=True)
        last = np.cumsum(count)
        rank = last - (count - 1) / 2
        return np.asarray(-np.log(rank)[place] / self.temperature)


def _normalised(log_weights: Floats) -> Floats:
    if not np.isfinite(log_weights).any():
        return np.zeros(len(log_weights))
    weights = np.exp(log_weights - log_weights.max())
    return np.asarray(weights / weights.sum())

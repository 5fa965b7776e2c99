"""One ranking from a model of several outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from baal_widgets.active.heuristics.heuristics import AbstractHeuristic, Reduction, Scores, Seed, is_array


class CombineHeuristics(AbstractHeuristic):
    """A heuristic for each output of a model, their scores weighed and brought together.

    Predictions are a list with an array, or an iterator of batches, for each output, or an iterator of batches that are
    such lists, as a wrapper's `predict_on_dataset_generator` gives. Weights are taken as shares of their sum.
    `reduction` brings the weighed scores of an item together. The heuristics may count
    up or down; uncertainties here are high where they ask first. Nothing is rescaled: give outputs on other scales
    other weights. An item that one of the heuristics can't score comes last.
    """

    def __init__(
        self,
        heuristics: Sequence[AbstractHeuristic],
        weights: Sequence[float],
        reduction: Reduction = "mean",
        shuffle_prop: float = 0.0,
        seed: Seed = None,
    ) -> None:
        super().__init__(shuffle_prop, True, reduction, seed=seed)
        if len(heuristics) != len(weights) or not heuristics:
            raise ValueError(f"Expected a weight for each heuristic, got {len(heuristics)} and {len(weights)}.")
        if min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(f"Expected weights from 0 on that are not all 0, got {list(weights)}.")
        self.composed_heuristic = list(heuristics)
        self.weights = [weight / sum(weights) for weight in weights]

    def get_uncertainties(self, predictions: Any, *known: Any) -> Scores:
        """The combined score of each item, `[item]`, high where it is to be asked first."""
        if is_array(predictions):
            raise ValueError("Expected a list of predictions, one for each output of the model, got one array.")
        if isinstance(predictions, (list, tuple)):
            return self._combined([self._checked(predictions)])
        return self.get_uncertainties_generator(predictions)

    def get_uncertainties_generator(self, predictions: Iterable[Any], *known: Any) -> Scores:
        """The same from batches, each a list of outputs. Keeps the scores and one batch in memory."""
        return self._combined(self._checked(batch) for batch in predictions)

    def _combined(self, batches: Iterable[Sequence[Any]]) -> Scores:
        heuristics, parts = self.composed_heuristic, []
        for outputs in batches:
            pairs = list(zip(heuristics, outputs, strict=True))
            heuristics = [one._settled_by(output) if is_array(output) else one for one, output in pairs]
            parts.append([one.scores(output) for one, output in zip(heuristics, outputs, strict=True)])
        if not parts:
            return np.zeros(0, np.float32)
        scores = [np.concatenate(of_output) for of_output in zip(*parts, strict=True)]
        if len({score.shape for score in scores}) > 1 or scores[0].ndim != 1:
            raise ValueError(
                f"Expected one score an item from each heuristic, got shapes {[score.shape for score in scores]}. "
                "Give each heuristic whose output has more axes a reduction, such as reduction='mean'."
            )
        stacked = np.stack(scores, axis=1)
        known = np.isfinite(stacked).all(axis=1)
        weighed = np.where(known[:, None], stacked, 0) * self.weights
        return np.where(known, self._reduced(weighed), -np.inf)

    def _checked(self, outputs: Sequence[Any]) -> Sequence[Any]:
        if not isinstance(outputs, (list, tuple)) or len(outputs) != len(self.composed_heuristic):
            came = len(outputs) if isinstance(outputs, (list, tuple)) else f"a {type(outputs).__name__}"
            raise ValueError(
                f"Expected a list of {len(self.composed_heuristic)} outputs, one for each heuristic, got {came}."
            )
        return outputs

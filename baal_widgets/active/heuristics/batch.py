"""Heuristics that choose a batch as a whole, so that its items do not all teach the same.

Each is a function of `batches` or `diversity` plus options. The score of an item that was picked is what it added when
it was; that of any other what it would still add.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from baal_widgets.active import batches, diversity
from baal_widgets.active.heuristics.heuristics import AbstractHeuristic, Scores, Seed, is_array
from baal_widgets.arrays import Array, FromLogits, as_floats, as_numpy, to_probabilities
from baal_widgets.checks import positive

QUERY_SIZE = 24


class BatchHeuristic(AbstractHeuristic):
    """Picks `query_size` items one after another, each for what it adds to those before it; the others follow.

    Left at `None`, the size is the loop's or the session's. `seed` decides what is drawn, where anything is.
    Uncertainties are high where an item is asked first. Predictions that come batch by batch are put together.
    """

    def __init__(self, query_size: int | None = None, from_logits: FromLogits = "auto", seed: Seed = None) -> None:
        super().__init__(reverse=True, from_logits=from_logits, seed=seed)
        self.query_size = None if query_size is None else positive("query_size", query_size)

    def sized(self, query_size: int) -> Self:
        if self.query_size is not None:
            return self
        sized = copy.copy(self)
        sized.query_size = query_size
        return sized

    def get_uncertainties(self, predictions: Any, *known: Any) -> Scores:
        """The score of each item, `[item]`, such that the picked ones come first, in the order they were picked."""
        first = self._whole(predictions)
        if not len(first):
            return np.zeros(0, np.float32)
        named = dict(zip(self.takes[1:], known, strict=False))
        return self._unknown_last(as_numpy(self.choose(first, self.query_size or QUERY_SIZE, **named)))

    def get_uncertainties_generator(self, predictions: Iterable[Array], *known: Any) -> Scores:
        return self.get_uncertainties(predictions, *known)

    def choose(self, predictions: Array, n: int, **known: Any) -> Any:
        """The score of each item when `n` are to be picked."""
        raise NotImplementedError(f"{type(self).__name__} needs a `choose`.")

    def _whole(self, predictions: Any) -> Tensor:
        if isinstance(predictions, (list, tuple)) or not is_array(predictions):
            parts = [as_floats(part) for part in predictions]
            return torch.cat(parts) if parts else torch.zeros(0)
        return as_floats(predictions).detach()

    def _draws(self, predictions: Any) -> Tensor:
        """Probabilities `[item, class, draw]`."""
        if predictions.ndim != 3:
            raise ValueError(
                f"{type(self).__name__} is for classification: expected predictions [item, class, draw], got "
                f"{tuple(predictions.shape)}."
            )
        return to_probabilities(as_floats(predictions).detach(), self.from_logits)


class BatchBALD(BatchHeuristic):
    """Ask for the batch whose labels together tell most about the weights. See `batches.batchbald`.

    `num_samples` is Baal's name of `query_size`. `num_draw` is how many combinations of labels are drawn once there are
    too many to count them all.
    """

    joint = True

    def __init__(
        self,
        num_samples: int | None = None,
        num_draw: int = 1_000,
        *,
        query_size: int | None = None,
        from_logits: FromLogits = "auto",
        seed: Seed = None,
    ) -> None:
        super().__init__(query_size if num_samples is None else num_samples, from_logits, seed)
        self.num_draw = positive("num_draw", num_draw)

    def choose(self, predictions: Array, n: int, **known: Any) -> Any:
        return batches.batchbald(self._draws(predictions), n, samples=self.num_draw, rng=self.rng).scores


class ICAL(BatchHeuristic):
    """Ask for the batch whose predictions depend most on those of the whole pool. See `batches.ical`."""

    joint = True

    def choose(self, predictions: Array, n: int, **known: Any) -> Any:
        return batches.ical(self._draws(predictions), n, rng=self.rng).scores


class EPIG(BatchHeuristic):
    """Ask first what tells most about the labels of target items. See `batches.epig`.

    Takes `target_predictions`, `[target, class, draw]` of the same draws, beside those of the pool. One score an item;
    a batch is simply the best of them.
    """

    joint = True
    takes = ("predictions", "target_predictions")

    def choose(self, predictions: Array, n: int, target_predictions: Any = None, **known: Any) -> Any:
        if target_predictions is None:
            raise ValueError(
                "EPIG needs predictions of target items, those whose labels matter: "
                "heuristic(predictions, target_predictions), or the targets= of a loop or session."
            )
        return batches.epig(self._draws(predictions), self._draws(self._whole(target_predictions)))


class BADGE(BatchHeuristic):
    """Ask for items that would move the last layer far and each in its own direction. See `diversity.badge`."""

    takes = ("predictions", "features")

    def choose(self, predictions: Array, n: int, features: Any = None, **known: Any) -> Any:
        if features is None:
            raise ValueError(
                "BADGE needs the features of the items, what goes into the last layer, as a second argument."
            )
        probabilities = to_probabilities(as_floats(predictions), self.from_logits)
        mean = probabilities if probabilities.ndim == 2 else probabilities.mean(dim=-1)
        return diversity.badge(mean, as_floats(features).to(mean.device), n, rng=self.rng).scores


class _ByFeatures(BatchHeuristic):
    """Takes the features of the pool and of what is labelled, and no predictions: works before the first label."""

    takes = ("features", "labelled_features")

    def choose(self, predictions: Array, n: int, labelled_features: Any = None, **known: Any) -> Any:
        features = as_floats(predictions)
        labelled = None if labelled_features is None or not len(labelled_features) else as_floats(labelled_features)
        return self.cover(features, n, labelled)

    def cover(self, features: Tensor, n: int, labelled: Tensor | None) -> Any:
        raise NotImplementedError(f"{type(self).__name__} needs a `cover`.")


class CoreSet(_ByFeatures):
    """Ask for items far from all that is labelled (k-center greedy). See `diversity.coreset`."""

    def cover(self, features: Tensor, n: int, labelled: Tensor | None) -> Any:
        return diversity.coreset(features, n, labelled).scores


class TypiClust(_ByFeatures):
    """Ask for the most typical items of clusters without a label, best when there are few: `diversity.typiclust`."""

    def cover(self, features: Tensor, n: int, labelled: Tensor | None) -> Any:
        return diversity.typiclust(features, n, labelled, rng=self.rng).scores


class MaxHerding(_ByFeatures):
    """Ask for items that have most of the pool near them, and none twice. See `diversity.max_herding`."""

    def cover(self, features: Tensor, n: int, labelled: Tensor | None) -> Any:
        return diversity.max_herding(features, n, labelled).scores

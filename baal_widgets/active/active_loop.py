"""The active learning step: predict on the pool, rank it, label what comes first."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset, Subset

from baal_widgets.active.dataset import ActiveLearningDataset, ActiveLearningPool
from baal_widgets.active.dataset.base import RandomSource, as_generator
from baal_widgets.active.heuristics import AbstractHeuristic, Random
from baal_widgets.active.heuristics.knowledge import N_TARGETS, known_to
from baal_widgets.checks import positive
from baal_widgets.modelwrapper import ModelWrapper


class ActiveLearningLoop:
    """Asks `heuristic` about `get_probabilities(pool, **kwargs)` and labels the first `query_size` items.

    `max_sample` (or `max_samples`) limits a step to that many items of the pool picked at random, which costs
    little accuracy and saves most of the time (Atighehchian et al. 2020); -1 takes all. `uncertainty_folder`
    receives the scores of each step as an `.npz` file. `ndata_to_label` is Baal's old name of `query_size`.
    `get_features(dataset)` is for heuristics that look at features (`wrapper.features_on_dataset`). `targets` are
    inputs whose labels matter, for EPIG; left out, a random part of the pool. With heuristics that weigh items
    together, such as BatchBALD, let `get_probabilities` draw the same models for all items
    (`MCConsistentDropoutModule`).
    With `wrapper.predict_on_dataset` for `get_probabilities`, and a heuristic that scores items one by one, no more
    than a few batches of predictions are held at a time.
    Labels come from the dataset itself, as in research; for a person's labels take `query()`, or a
    `LabellingSession`.
    """

    def __init__(
        self,
        dataset: ActiveLearningDataset,
        get_probabilities: Callable[..., Any],
        heuristic: AbstractHeuristic | None = None,
        query_size: int = 1,
        max_sample: int = -1,
        uncertainty_folder: str | os.PathLike[str] | None = None,
        ndata_to_label: int | None = None,
        *,
        max_samples: int | None = None,
        random_state: RandomSource = None,
        get_features: Callable[[Dataset[Any]], Any] | None = None,
        targets: Dataset[Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.dataset = dataset
        self.get_probabilities = get_probabilities
        self.query_size = positive("query_size", query_size if ndata_to_label is None else ndata_to_label)
        self.heuristic = (Random() if heuristic is None else heuristic).sized(self.query_size)
        self.get_features, self.targets = get_features, targets
        max_sample = max_sample if max_samples is None else max_samples
        self.max_sample = max_sample if max_sample == -1 else positive("max_sample, if not -1 for all,", max_sample)
        self.uncertainty_folder = None if uncertainty_folder is None else Path(uncertainty_folder)
        self.random_state = as_generator(random_state)
        self.kwargs = kwargs
        self.uncertainties: npt.NDArray[Any] = np.zeros(0)
        """The scores behind the last query, in the order of the items it was about."""

    def query(self, pool: Dataset[Any] | None = None) -> npt.NDArray[np.int64]:
        """Positions in `dataset.pool` to label next, most wanted first. Labels nothing.

        `pool` may be a `Subset` of `dataset.pool`; positions are those of the pool all the same. Empty when the
        pool is.
        """
        places, asked = self._candidates(pool)
        if not len(places):
            return places
        ranks, scores = self.heuristic.get_ranks(*self._known(asked))
        self.uncertainties = np.asarray(scores)
        self._keep(places, self.uncertainties)
        return places[np.asarray(ranks, dtype=np.int64)]

    def step(self, pool: Dataset[Any] | None = None) -> bool:
        """Label the next items with the dataset's own targets; whether there was anything left to label."""
        if self.dataset.can_label and self.dataset.n_unlabelled:
            raise ValueError(
                "The dataset waits for labels, which a loop does not have. Take loop.query(), ask for the labels and "
                "give them with dataset.label(index, value), or use a LabellingSession; for research on known labels "
                "set dataset.can_label = False."
            )
        chosen = self.query(pool)[: self.query_size]
        if len(chosen):
            self.dataset.label(chosen)
        return len(chosen) > 0

    def _known(self, asked: Dataset[Any]) -> list[Any]:
        whole, n = self.dataset.pool_dataset, len(asked)  # type: ignore[arg-type]
        targets = self.targets
        if targets is None:
            wanted = min(n, N_TARGETS) if "target_predictions" in self.heuristic.takes else 0
            targets = Subset(asked, self.random_state.choice(n, wanted, replace=False).tolist())
        return known_to(
            self.heuristic,
            asked,
            predict=self._predict,
            features=self.get_features,
            labelled=Subset(whole, np.flatnonzero(self.dataset.labelled).tolist()),
            targets=targets,
        )

    def _predict(self, dataset: Dataset[Any]) -> Any:
        wrapper = getattr(self.get_probabilities, "__self__", None)
        one_by_one = self.heuristic.takes == ("predictions",) and self.heuristic.score is not None
        # only where nobody has put another method in its place
        if one_by_one and getattr(self.get_probabilities, "__func__", None) is ModelWrapper.predict_on_dataset:
            assert isinstance(wrapper, ModelWrapper)
            return wrapper.draws_on_dataset(dataset, **self.kwargs)
        return self.get_probabilities(dataset, **self.kwargs)

    def _candidates(self, pool: Dataset[Any] | None) -> tuple[npt.NDArray[np.int64], Dataset[Any]]:
        """The positions in the whole pool that are asked about, and the dataset that holds just those."""
        whole = self.dataset.pool
        if pool is None:
            places = np.arange(len(whole))
            if 0 < self.max_sample < len(places):
                places = np.sort(self.random_state.choice(places, self.max_sample, replace=False))
                return places, Subset(whole, places.tolist())
            return places, whole
        places = np.arange(len(pool))  # type: ignore[arg-type]
        inner: Any = pool
        while isinstance(inner, Subset):
            places, inner = np.asarray(inner.indices, dtype=np.int64)[places], inner.dataset
        if not isinstance(inner, ActiveLearningPool) or inner._owner is not self.dataset:
            raise ValueError("Expected pool to be dataset.pool or a Subset of it: its items must be known by position.")
        return places, pool

    def _keep(self, places: npt.NDArray[np.int64], scores: npt.NDArray[Any]) -> None:
        if self.uncertainty_folder is None:
            return
        self.uncertainty_folder.mkdir(parents=True, exist_ok=True)
        name = f"uncertainty_pool={len(self.dataset.pool)}_labelled={self.dataset.n_labelled}.npz"
        items = np.asarray(self.dataset.pool_to_dataset(places), dtype=np.int64)
        np.savez(self.uncertainty_folder / name, items=items, uncertainty=scores, labelled=self.dataset.labelled_map)

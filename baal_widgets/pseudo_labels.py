"""The model's own answers as labels, where it is sure enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from baal_widgets.active.dataset.base import as_indices
from baal_widgets.active.scores import bald
from baal_widgets.arrays import FromLogits, as_floats, as_numpy, to_probabilities
from baal_widgets.checks import positive

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PseudoLabels:
    """What the model is sure of, surest first: items, the class index it gives each, and how sure it is."""

    items: Ints
    labels: Ints
    confidence: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.items)

    def as_dict(self) -> dict[int, int]:
        """The class index of each item."""
        return dict(zip(self.items.tolist(), self.labels.tolist(), strict=True))


def pseudo_labels(
    probabilities: Any,
    threshold: float = 0.95,
    *,
    per_class: int | None = None,
    balanced: bool = False,
    max_bald: float | None = None,
    items: Any = None,
    from_logits: FromLogits = "auto",
) -> PseudoLabels:
    """The items whose most probable class is at least `threshold` probable, with that class (Lee 2013,
    "Pseudo-Label"; the threshold is FixMatch's, Sohn et al. 2020, arXiv:2001.07685).

    `probabilities` are `[item, class]` or `[item, class, draw]`, averaged over the draws. `per_class` keeps the
    surest of each class; `balanced` keeps as many of each as there are of the rarest class that comes at all.
    `max_bald` takes an item only if the draws agree on it: its BALD score, in nats, must not be higher,
    as models are less well calibrated where they are uncertain of themselves (Rizve et al. 2021, "UPS",
    arXiv:2101.06329). `items` are the items' indices in the whole dataset (default: their positions in
    `probabilities`), so `dataset.pool_to_dataset(range(len(dataset.pool)))` after a prediction on the pool. An item
    with a NaN is never chosen.

    >>> sure = pseudo_labels(np.array([[0.97, 0.03], [0.6, 0.4], [0.01, 0.99]]))
    >>> sure.items.tolist(), sure.labels.tolist(), sure.confidence.tolist()
    ([2, 0], [1, 0], [0.99, 0.97])
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"Expected a threshold between 0 and 1, a probability, got {threshold}.")
    cap = None if per_class is None else positive("per_class", per_class)
    given = as_floats(probabilities)
    if given.ndim not in (2, 3):
        raise ValueError(
            f"Expected probabilities shaped [item, class] or [item, class, draw], got {tuple(given.shape)}."
        )
    draws = to_probabilities(given, from_logits)
    mean = as_numpy(draws if draws.ndim == 2 else draws.mean(dim=-1)).astype(np.float64)
    indices = np.arange(len(mean)) if items is None else np.array(as_indices(items)[0], dtype=np.int64)
    if indices.shape != (len(mean),):
        raise ValueError(f"Expected an index for each of {len(mean)} items, got {len(indices)}.")

    confidence = mean.max(axis=1)  # NaN where there is a NaN, and nothing is at most NaN
    sure = confidence >= threshold
    if max_bald is not None:
        if draws.ndim == 2:
            raise ValueError(
                "max_bald asks whether draws agree, so it needs draws: probabilities shaped [item, class, draw]."
            )
        sure &= as_numpy(bald(draws)) <= max_bald
    rows = np.flatnonzero(sure)
    rows = rows[np.argsort(-confidence[rows], kind="stable")]
    labels = mean[rows].argmax(axis=1) if len(rows) else np.zeros(0, np.int64)
    if balanced and len(rows):
        rarest = int(np.unique(labels, return_counts=True)[1].min())
        cap = rarest if cap is None else min(cap, rarest)
    if cap is not None:
        kept = _place_in_class(labels) < cap
        rows, labels = rows[kept], labels[kept]
    return PseudoLabels(indices[rows].astype(np.int64), labels.astype(np.int64), confidence[rows])


class WithPseudoLabels(Dataset[tuple[Any, int, float]]):
    """Items (input, class index, weight) to train on: what is labelled, then what the model is sure of.

    `dataset` holds all items, as pairs or inputs alone; its own targets are not looked at. `labels` are those of
    people, by item, and weigh 1; a guess at an item that has one is left out. Guesses weigh `weight`, or where that is
    `None` as much as the model is sure of them.
    """

    def __init__(
        self, dataset: Any, labels: Mapping[int, int], guesses: PseudoLabels, weight: float | None = None
    ) -> None:
        if weight is not None and not 0 <= weight < np.inf:
            raise ValueError(f"Expected a weight from 0 on, got {weight}.")
        weights = guesses.confidence if weight is None else np.full(len(guesses), float(weight))
        guessed = zip(guesses.items.tolist(), guesses.labels.tolist(), weights.tolist(), strict=True)
        self._dataset = dataset
        self._examples = [(int(item), int(label), 1.0) for item, label in labels.items()]
        self._examples += [guess for guess in guessed if guess[0] not in labels]

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, place: int) -> tuple[Any, int, float]:
        item, label, weight = self._examples[place]
        held = self._dataset[item]
        return held[0] if isinstance(held, (tuple, list)) else held, label, weight


def _place_in_class(labels: Ints) -> Ints:
    """How many of the same class come before each."""
    order = np.argsort(labels, kind="stable")
    _, first = np.unique(labels[order], return_index=True)
    places = np.empty(len(labels), np.int64)
    counts = np.diff(np.append(first, len(labels)))
    places[order] = np.arange(len(labels)) - np.repeat(first, counts)
    return places

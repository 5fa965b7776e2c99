"""When to stop labelling, and why."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, where

from baal_widgets.active.dataset.base import SplittedDataset
from baal_widgets.arrays import alike, as_numpy, check_shape, to_probabilities
from baal_widgets.checks import positive

LOWER_IS_BETTER = frozenset({"loss", "nll", "ece", "brier", "error", "mse", "rmse", "mae", "perplexity"})
HIGHER_IS_BETTER = frozenset(
    {"accuracy", "acc", "f1", "precision", "recall", "auc", "auroc", "prauc", "kappa", "iou", "map"}
)


class StoppingCriterion:
    """Asked once a round, after training and scoring, whether that was enough. `reason` says why, once it was."""

    reason: str = ""

    def __init__(self, active_dataset: SplittedDataset) -> None:
        self._active_ds = active_dataset

    def should_stop(self, metrics: Mapping[str, Any], uncertainty: Iterable[float]) -> bool:
        """Whether to stop, given the round's `metrics` and the scores of the pool, higher = more uncertain."""
        raise NotImplementedError(f"{type(self).__name__} needs a `should_stop`.")

    def _stop_if(self, stop: bool, reason: str) -> bool:
        self.reason = reason if stop else ""
        return stop


class LabellingBudgetStoppingCriterion(StoppingCriterion):
    """Stops when `labelling_budget` items were labelled since this was made."""

    def __init__(self, active_dataset: SplittedDataset, labelling_budget: int) -> None:
        super().__init__(active_dataset)
        self.labelling_budget = 0 if labelling_budget == 0 else positive("labelling_budget", labelling_budget)
        self._n_before = active_dataset.n_labelled

    def should_stop(self, metrics: Mapping[str, Any], uncertainty: Iterable[float]) -> bool:
        spent = self._active_ds.n_labelled - self._n_before
        return self._stop_if(spent >= self.labelling_budget, f"{spent} of {self.labelling_budget} labels are spent")


class LowAverageUncertaintyStoppingCriterion(StoppingCriterion):
    """Stops when the mean uncertainty of the pool is below a threshold, in the unit of the heuristic's scores.

    Scores may come in batches. Those that are not finite don't count; where none is, nothing is known and nothing
    stops.
    """

    def __init__(self, active_dataset: SplittedDataset, avg_uncertainty_thresh: float) -> None:
        super().__init__(active_dataset)
        if not math.isfinite(avg_uncertainty_thresh):
            raise ValueError(f"Expected a finite avg_uncertainty_thresh, got {avg_uncertainty_thresh}.")
        self.avg_uncertainty_thresh = avg_uncertainty_thresh

    def should_stop(self, metrics: Mapping[str, Any], uncertainty: Iterable[float]) -> bool:
        parts = [as_numpy(part).astype(np.float64).reshape(-1) for part in uncertainty]
        scores = np.concatenate([np.zeros(0), *parts])
        scores = scores[np.isfinite(scores)]
        mean = float(scores.mean()) if scores.size else math.nan
        return self._stop_if(
            mean < self.avg_uncertainty_thresh,
            f"the pool's mean uncertainty, {mean:.4g}, is below {self.avg_uncertainty_thresh:.4g}",
        )


class EarlyStoppingCriterion(StoppingCriterion):
    """Stops when a metric was not better than its best so far, by more than `epsilon`, `patience` rounds in a row.

    It need not stand still for that: one that gets worse stops as well. A NaN is no improvement. Whether higher is
    better is known of usual names (`test_loss`, `nll`, `test_accuracy`, `f1` ...); of others `higher_is_better` must
    tell, or a `ValueError` asks for it. The authors of Baal advise against stopping training early; this is about
    stopping to label.
    """

    def __init__(
        self,
        active_dataset: SplittedDataset,
        metric_name: str,
        patience: int = 10,
        epsilon: float = 1e-4,
        higher_is_better: bool | None = None,
    ) -> None:
        super().__init__(active_dataset)
        if not (epsilon >= 0 and math.isfinite(epsilon)):
            raise ValueError(f"Expected a finite epsilon from 0 on, got {epsilon}.")
        self.metric_name, self.epsilon = metric_name, epsilon
        self.patience = positive("patience", patience)
        self.higher_is_better = _direction_of(metric_name) if higher_is_better is None else higher_is_better
        self._best, self._rounds_since = math.nan, 0

    def should_stop(self, metrics: Mapping[str, Any], uncertainty: Iterable[float]) -> bool:
        if self.metric_name not in metrics:
            raise ValueError(f"No metric {self.metric_name!r} in this round: there are {', '.join(metrics) or 'none'}.")
        value = float(metrics[self.metric_name])
        gain = value - self._best if self.higher_is_better else self._best - value
        if gain > self.epsilon or (math.isnan(self._best) and not math.isnan(value)):
            self._best, self._rounds_since = value, 0
        else:
            self._rounds_since += 1
        return self._stop_if(
            self._rounds_since >= self.patience,
            f"{self.metric_name} has not got better for {self._rounds_since} rounds than {self._best:.4g}",
        )


class StabilizingPredictionsStoppingCriterion(StoppingCriterion):
    """Stops when successive models say the same: Cohen's kappa between their predictions on a fixed stop set was at
    least `threshold` in each of the last `patience` rounds.

    Needs no labels. The stop set is to be representative and large, 2,000 items in the paper, and the same every
    round. Bloodgood & Vijay-Shanker 2009 (arXiv:1409.5165). A model that gives all items the same class tells
    nothing by doing so again, and an item with a NaN agrees with nothing: neither stops.
    """

    def __init__(self, active_dataset: SplittedDataset, threshold: float = 0.99, patience: int = 3) -> None:
        super().__init__(active_dataset)
        if not -1 <= threshold <= 1:
            raise ValueError(f"Expected a threshold of kappa, from -1 to 1, got {threshold}.")
        self.threshold, self.patience = threshold, positive("patience", patience)
        self.agreements: list[float] = []
        """Kappa of each round's model with the one before, from the second round on; NaN where all is one class."""
        self._before: npt.NDArray[Any] | None = None

    def should_stop(self, metrics: Mapping[str, Any], uncertainty: Iterable[float], predictions: Any = None) -> bool:
        """Whether to stop, given predictions on the stop set, `[item, class, ..., draw]` or `[item, class]`."""
        if predictions is None:
            raise ValueError(
                "Expected the predictions of the stop set, [item, class, ..., draw], on the same items every round: "
                "should_stop(metrics, uncertainty, predictions)."
            )
        said = as_numpy(_answers(predictions))
        if self._before is not None:
            if said.shape != self._before.shape:
                raise ValueError(
                    f"Expected predictions on the same stop set every round, {self._before.shape} answers, "
                    f"got {said.shape}."
                )
            unknown = np.where(self._before < 0, -2, self._before)  # unlike the -1 of now: no agreement on nothing
            one_class = (said == said.flat[:1]).all() and (unknown == said).all()
            self.agreements.append(math.nan if one_class else cohen_kappa(unknown, said))
        self._before = said
        last = self.agreements[-self.patience :]
        return self._stop_if(
            len(last) == self.patience and all(kappa >= self.threshold for kappa in last),
            f"the predictions on the stop set are stable: kappa {min(last, default=math.nan):.3f} or more for "
            f"{self.patience} rounds",
        )


def cohen_kappa(one: Any, other: Any) -> float:
    """How far two lists of class indices agree beyond chance: 1 fully, 0 as by chance (Cohen 1960).

    1 where both give every item the same class, which scikit-learn leaves undefined.

    >>> cohen_kappa([0, 0, 1, 1], [0, 0, 1, 0])
    0.5
    """
    first, second = as_numpy(one).reshape(-1), as_numpy(other).reshape(-1)
    if first.shape != second.shape:
        raise ValueError(f"Expected two answers to each item, got {len(first)} and {len(second)}.")
    n = len(first)
    classes, codes = np.unique(np.concatenate([first, second]), return_inverse=True)
    if len(classes) < 2:
        return 1.0
    counts = [np.bincount(half, minlength=len(classes)) for half in (codes[:n], codes[n:])]
    observed, expected = float((first == second).mean()), float(counts[0] @ counts[1]) / n**2
    return (observed - expected) / (1 - expected)


@alike
def _answers(predictions: Tensor) -> Tensor:
    """The class that the averaged prediction gives each item, `[item, ...]`; -1 where it is not a number."""
    check_shape(predictions)
    probabilities = to_probabilities(predictions)
    mean = probabilities if probabilities.ndim == 2 else probabilities.mean(dim=-1)
    return where(mean.isnan().any(dim=1), -1, mean.argmax(dim=1))


def _direction_of(name: str) -> bool:
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    lower, higher = bool(words & LOWER_IS_BETTER), bool(words & HIGHER_IS_BETTER)
    if lower == higher:
        raise ValueError(
            f"Whether a higher {name!r} is better can't be told from its name: pass higher_is_better=True or False."
        )
    return higher

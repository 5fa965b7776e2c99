"""A wrapper whose predictions are scores already, so that no draw leaves the GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from baal_widgets.active.scores import bald
from baal_widgets.arrays import FromLogits, are_logits, to_probabilities
from baal_widgets.modelwrapper import ModelWrapper

Reduction: TypeAlias = str | Callable[[Tensor], Tensor]

_REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda scores: scores.flatten(1).amax(dim=1),
    "min": lambda scores: scores.flatten(1).amin(dim=1),
    "mean": lambda scores: scores.flatten(1).mean(dim=1),
    "sum": lambda scores: scores.flatten(1).sum(dim=1),
    "none": lambda scores: scores,
}


class AbstractGPUHeuristic(ModelWrapper):
    """A wrapper of which `predict_on_dataset` gives `[item]` uncertainties, computed where the model runs.

    Give them to `Precomputed(reverse=True)` in a loop. Takes a `ModelWrapper`, or a model and its criterion.
    Subclasses say in `compute_score` what the scores are. Items whose predictions aren't finite get -inf (inf where low
    is uncertain). `threshold` is Baal's, and has no effect.
    """

    def __init__(
        self,
        model: ModelWrapper | nn.Module,
        criterion: Any = None,
        shuffle_prop: float = 0.0,
        threshold: float | None = None,
        reverse: bool = False,
        reduction: Reduction = "none",
        from_logits: FromLogits = "auto",
    ) -> None:
        if isinstance(model, ModelWrapper):
            super().__init__(model.model, args=model.args, device=model._device)
        else:
            super().__init__(model, criterion)
        if not callable(reduction) and reduction not in _REDUCTIONS:
            raise ValueError(f"Expected reduction to be one of {sorted(_REDUCTIONS)} or a function, got {reduction!r}.")
        self.shuffle_prop, self.threshold, self.reversed = shuffle_prop, threshold, reverse
        self._are_logits = None if from_logits == "auto" else from_logits
        self.reduction = reduction if callable(reduction) else _REDUCTIONS[reduction]

    def compute_score(self, predictions: Tensor) -> Tensor:
        """Scores `[item, ...]` of probabilities `[item, class, ..., draw]`."""
        raise NotImplementedError(f"{type(self).__name__} needs a `compute_score`.")

    def get_uncertainties(self, predictions: Tensor) -> Tensor:
        """The reduced scores of predictions that are on a device already."""
        if self._are_logits is None:
            self._are_logits = are_logits(predictions)
        logits: FromLogits = "auto" if self._are_logits is None else self._are_logits
        scores = self.compute_score(to_probabilities(predictions, logits))
        scores = scores if scores.ndim == 1 else self.reduction(scores)
        return torch.where(scores.isfinite(), scores, -torch.inf if self.reversed else torch.inf)

    def _answer(self, draws: Any) -> Any:
        return self.get_uncertainties(draws)


class BALDGPUWrapper(AbstractGPUHeuristic):
    """Predicts BALD scores. `BALDGPUWrapper(wrapper)` or, as in Baal 1.x, `BALDGPUWrapper(model, criterion)`."""

    def __init__(
        self,
        model: ModelWrapper | nn.Module,
        criterion: Any = None,
        shuffle_prop: float = 0.0,
        threshold: float | None = None,
        reduction: Reduction = "none",
        from_logits: FromLogits = "auto",
    ) -> None:
        super().__init__(model, criterion, shuffle_prop, threshold, True, reduction, from_logits)

    def compute_score(self, predictions: Tensor) -> Tensor:
        return bald(predictions)

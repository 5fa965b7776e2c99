"""Heuristics that look at one item at a time: each is a function of `scores` plus options."""

from __future__ import annotations

import copy
import importlib
import inspect
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt
from torch import Tensor

from baal_widgets.active.scores import bald, certainty, margin, predictive_entropy, variance
from baal_widgets.arrays import Array, FromLogits, are_logits, as_floats, as_numpy, to_probabilities

Scores: TypeAlias = npt.NDArray[Any]
Reduction: TypeAlias = str | Callable[..., Any]
Seed: TypeAlias = int | np.random.Generator | None

_REDUCTIONS: dict[str, Callable[..., Any] | None] = {
    "max": np.max, "min": np.min, "mean": np.mean, "sum": np.sum, "none": None,
}  # fmt: skip


class AbstractHeuristic:
    """Ranks items by a score. Give `score` in a subclass, or override `compute_score`.

    Predictions are `[item, class, ..., draw]`, as an array, a tensor on any device, or an iterator of batches of
    either, which is consumed batch by batch so that only scores are kept.

    - `shuffle_prop`: each place in the ranking is drawn with this probability, and the drawn places change places
      among themselves: 0 keeps the ranking, 1 is random.
    - `reverse`: True where the highest score is the most uncertain. The attribute is called `reversed`.
    - `reduction`: how an item's many scores (a pixel each, say) become one: "max", "min", "mean", "sum", "none",
      or a function that receives the scores per pixel, `[item, ...]`, and `axis=(1, ...)` if it has an `axis`.
    - `from_logits`: whether the model gives logits; "auto" looks at the values (see `are_logits`), once for
      the whole prediction, or at the first batch of an iterator.
    - `seed`: a number or a `numpy.random.Generator`. The global random state is never used.
    """

    score: ClassVar[Callable[..., Any] | None] = None
    takes: tuple[str, ...] = ("predictions",)
    """What it looks at, in the order of its arguments: "predictions" of the pool, "features" of the pool,
    "labelled_features", "target_predictions", or the "items" alone."""
    least: ClassVar[float] = 0.0
    """The score of an item whose label would teach nothing, where the scores have such an end."""
    joint: ClassVar[bool] = False
    """Whether items are weighed together, so that draw t must be one and the same model for all of them, as in
    `MCConsistentDropoutModule`, an ensemble or any posterior over weights."""

    def __init__(
        self,
        shuffle_prop: float = 0.0,
        reverse: bool = False,
        reduction: Reduction = "none",
        from_logits: FromLogits = "auto",
        seed: Seed = None,
    ) -> None:
        if not 0 <= shuffle_prop <= 1:
            raise ValueError(f"Expected shuffle_prop between 0 (keep the ranking) and 1 (random), got {shuffle_prop}.")
        if not callable(reduction) and reduction not in _REDUCTIONS:
            raise ValueError(f"Expected reduction to be one of {sorted(_REDUCTIONS)} or a function, got {reduction!r}.")
        self.shuffle_prop = shuffle_prop
        self.reversed = reverse
        self.reduction = reduction
        self.from_logits = from_logits
        self.rng = np.random.default_rng(seed)

    def __call__(self, predictions: Any, *known: Any) -> npt.NDArray[np.intp]:
        """The items' positions in `predictions`, the one to ask about first, first."""
        return self.get_ranks(predictions, *known)[0]

    def get_ranks(self, predictions: Any, *known: Any) -> tuple[npt.NDArray[np.intp], Scores]:
        """The ranking, and the uncertainties it came from (these in the order of the items).

        `known` is what else the heuristic `takes`.
        """
        uncertainties = self.get_uncertainties(predictions, *known)
        return self.reorder_indices(uncertainties), uncertainties

    def scores(self, predictions: Any, *known: Any) -> Scores:
        """One score an item, higher = ask first whatever the heuristic; -inf for items that can't be scored."""
        uncertainties = self.get_uncertainties(predictions, *known)
        return uncertainties if self.reversed else -uncertainties

    def ranking(self, predictions: Any, *known: Any) -> tuple[npt.NDArray[np.intp], Scores]:
        """All positions, first first, and the score of each item that they came from, higher = ask first."""
        scores = self.scores(predictions, *known)
        return self.reorder_indices(scores if self.reversed else -scores), scores

    def sized(self, query_size: int) -> AbstractHeuristic:
        """Myself, or for one that weighs a batch as a whole and was left to choose its size, one of that size."""
        return self

    @property
    def takes_either(self) -> bool:
        """Whether probabilities score as the logits do that they were made of."""
        return (
            self.score is not None
            and self.from_logits == "auto"
            and type(self).compute_score is AbstractHeuristic.compute_score
        )

    def get_uncertainties(self, predictions: Any, *known: Any) -> Scores:
        """Baal's scores, `[item]` after the reduction; whether high is uncertain is told by `reversed`.

        Items whose score isn't finite (the model gave NaN) get the value that is asked last, -inf where `reversed`
        and inf otherwise, with one warning; they leave the other items' scores alone.
        """
        if isinstance(predictions, (list, tuple)):
            raise _several_outputs(predictions)
        return self.get_uncertainties_generator([predictions] if is_array(predictions) else predictions, *known)

    def get_uncertainties_generator(self, predictions: Iterable[Array], *known: Any) -> Scores:
        """`get_uncertainties` of batches, in their order. Keeps the scores and one batch in memory."""
        heuristic, parts = self, []
        alone = isinstance(predictions, list) and len(predictions) == 1
        for batch in predictions:
            if not is_array(batch):
                raise _several_outputs(batch)
            if not alone:  # else there is no other batch to settle it for, and scoring looks at it anyway
                heuristic = heuristic._settled_by(batch)
            parts.append(heuristic._reduced(as_numpy(heuristic.compute_score(batch, *known))))
        return self._unknown_last(np.concatenate(parts) if parts else np.zeros(0, np.float32))

    def compute_score(self, predictions: Array, *known: Any) -> Scores:
        """Baal's scores before the reduction, `[item, ...]`; NaN where the model gave NaN."""
        if self.score is None:
            raise NotImplementedError(f"{type(self).__name__} needs a `score` function or its own `compute_score`.")
        score = as_numpy(self.score(self._prepared(as_floats(predictions).detach())))
        return score if self.reversed else -score

    def reorder_indices(self, scores: Scores | Sequence[Any]) -> npt.NDArray[np.intp]:
        """The ranking of given uncertainties `[item]`, or of a list of them, one for each batch.

        Equal scores keep their order; NaN comes last. With `shuffle_prop` each call shuffles anew, but items that
        can't be scored stay last.
        """
        if isinstance(scores, (list, tuple)):
            scores = np.concatenate([np.atleast_1d(as_numpy(part)) for part in scores] or [np.zeros(0)])
        scores = as_numpy(scores)
        if scores.ndim != 1:
            raise ValueError(
                f"Can't order scores shaped {scores.shape}: expected one score an item. "
                f"Give {type(self).__name__} a reduction over the other axes, such as reduction='mean'."
            )
        key = -scores.astype(float) if self.reversed else scores.astype(float)
        ranks = np.argsort(key, kind="stable")
        known = np.count_nonzero(key < np.inf)
        drawn = np.flatnonzero(self.rng.random(known) < self.shuffle_prop)
        ranks[drawn] = ranks[self.rng.permutation(drawn)]
        return ranks

    def _prepared(self, predictions: Tensor) -> Tensor:
        return to_probabilities(predictions, self.from_logits)

    def _settled_by(self, batch: Array) -> AbstractHeuristic:
        """Myself, with "auto" decided for all later batches if this one can tell."""
        logits = are_logits(batch) if self.from_logits == "auto" and self.score is not None else None
        if logits is None:
            return self
        settled = copy.copy(self)
        settled.from_logits = logits
        return settled

    def _reduced(self, scores: Scores) -> Scores:
        reduce = _REDUCTIONS[self.reduction] if isinstance(self.reduction, str) else self.reduction
        if reduce is None or scores.ndim == 1:
            return scores
        with np.errstate(invalid="ignore"):
            axes = {"axis": tuple(range(1, scores.ndim))} if _has_axis(reduce) else {}
            reduced = as_numpy(reduce(scores, **axes))
        if reduced.shape[:1] != scores.shape[:1]:
            raise ValueError(
                f"Expected the reduction to leave one score for each of {len(scores)} items, got shape "
                f"{reduced.shape} from {scores.shape}. "
                "Reduce all axes but the first, as in lambda u: np.max(u, axis=(1, 2))."
            )
        return reduced

    def _unknown_last(self, scores: Scores) -> Scores:
        unknown = ~np.isfinite(scores)
        if not unknown.any():
            return scores
        items = np.count_nonzero(unknown.reshape(len(scores), -1).any(axis=1))
        warnings.warn(
            f"{items} of {len(scores)} items have no finite score and were put last: the model gives NaN or "
            "infinity there. Look at those inputs, or train with a lower learning rate.",
            UserWarning,
            stacklevel=4,
        )
        return np.where(unknown, -np.inf if self.reversed else np.inf, scores)


class _ByProbability(AbstractHeuristic):
    """Baal's order of arguments for heuristics whose direction is known."""

    _high_is_uncertain: ClassVar[bool] = True

    def __init__(
        self,
        shuffle_prop: float = 0.0,
        reduction: Reduction = "none",
        from_logits: FromLogits = "auto",
        seed: Seed = None,
    ) -> None:
        super().__init__(shuffle_prop, self._high_is_uncertain, reduction, from_logits, seed)


class BALD(_ByProbability):
    """Ask first where the draws disagree. Needs the draw axis. See `scores.bald`."""

    score = staticmethod(bald)


class Entropy(_ByProbability):
    """Ask first where the model, averaged over draws, is unsure. See `scores.predictive_entropy`."""

    score = staticmethod(predictive_entropy)


class Margin(_ByProbability):
    """Ask first where two classes are nearly tied. Uncertainties are their distance: *low* is uncertain."""

    score = staticmethod(margin)
    least = -1.0
    _high_is_uncertain = False


class Certainty(_ByProbability):
    """Ask first where the best guess is doubtful. Uncertainties are its probability: *low* is uncertain."""

    score = staticmethod(certainty)
    least = -1.0
    _high_is_uncertain = False


class Variance(_ByProbability):
    """Ask first where the draws spread, averaged over outputs. Made for regression: see `scores.variance`.

    Values are taken as they are unless `from_logits` is True (or "auto", and they look like logits), which turns
    classification logits into probabilities first.
    """

    score = staticmethod(variance)

    def __init__(
        self,
        shuffle_prop: float = 0.0,
        reduction: Reduction = "mean",
        from_logits: FromLogits = False,
        seed: Seed = None,
    ) -> None:
        super().__init__(shuffle_prop, reduction, from_logits, seed)

    def _prepared(self, predictions: Tensor) -> Tensor:
        return predictions if self.from_logits is False else super()._prepared(predictions)


class Random(AbstractHeuristic):
    """Ask in random order: the baseline. Looks at nothing but the number of items."""

    takes = ("items",)

    def __init__(self, shuffle_prop: float = 0.0, reduction: Reduction = "none", seed: Seed = None) -> None:
        super().__init__(shuffle_prop, True, reduction, False, seed)

    def compute_score(self, predictions: Array, *known: Any) -> Scores:
        return self.rng.random(len(predictions))


class Precomputed(AbstractHeuristic):
    """Ranks scores that you computed yourself, given in the predictions' place; *low* first unless `reverse`."""

    def __init__(
        self, shuffle_prop: float = 0.0, reverse: bool = False, reduction: Reduction = "none", seed: Seed = None
    ) -> None:
        super().__init__(shuffle_prop, reverse, reduction, False, seed)

    def compute_score(self, predictions: Array, *known: Any) -> Scores:
        return as_numpy(predictions)


def is_array(predictions: Any) -> TypeGuard[Array]:
    return isinstance(predictions, Tensor) or hasattr(predictions, "__array__")


def _has_axis(reduce: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(reduce).parameters
    except ValueError:  # written in C, as NumPy's ufunc methods, which take an axis
        return True
    return "axis" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _several_outputs(predictions: Any) -> TypeError:
    return TypeError(
        "Expected the predictions of one output, an array or tensor [item, class, ..., draw], got a "
        f"{type(predictions).__name__}. For a model with several outputs rank one of them, as in "
        "heuristic(predictions[0]); for a list of batches pass an iterator: iter(batches)."
    )


def __getattr__(name: str) -> Any:
    if name not in ("BatchBALD", "CombineHeuristics", "EPIG"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Baal has them here too, and they are built upon what is here
    return getattr(importlib.import_module("baal_widgets.active.heuristics"), name)

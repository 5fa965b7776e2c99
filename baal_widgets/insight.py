"""What a lesson's model says of each item, kept to be asked about: why this one, what is it, and do we agree.

Labels are disputed by their neighbours in the trained model's features. On the demo data with 10 % of its labels
flipped, three seeds, that found 0.27 of them at 150 labels and 0.41 at 250, with precision 0.89 and 0.81; with none
flipped it disputed 0.7 and 4.3 labels. What the model itself predicts of those it was trained on found none, for it has
learned them by heart; two-fold cross-fitting found 0.76 at a guess of 0.6, but with precision 0.24 and for half to
twice the time of a lesson more, since half of so few labels teach too little.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from baal_widgets.active.scores import averaged, entropy, expected_entropy, to_probabilities
from baal_widgets.arrays import FromLogits, are_logits, as_floats, as_numpy

Floats = npt.NDArray[np.floating[Any]]
Target = int | tuple[int, ...]
"""A class index, or those of all classes that an item belongs to where it may belong to several."""

N_NEIGHBOURS = 5
N_WITNESSES, MAJORITY = 10, 0.6


@dataclass(frozen=True)
class Neighbour:
    """A labelled item that looks alike to the model: cosine distance of features, 0 (same) to 2."""

    item: int
    label: Target
    distance: float


@dataclass(frozen=True)
class Explanation:
    """Why an item stands where it stands. Entropies are in nats, and `total = epistemic + aleatoric`.

    `epistemic` is what its label would tell about the model, `aleatoric` the noise no label takes away. `rank` counts
    from 1 and is `None`, as is `score`, for items that were not ranked: the labelled ones. `votes` are the class that
    each draw prefers, none where items may belong to several classes. `neighbours`, nearest first, are known for the
    items to be asked next and the labelled ones.
    """

    item: int
    round: int
    rank: int | None
    n_ranked: int
    score: float | None
    probabilities: tuple[float, ...]
    votes: tuple[int, ...]
    total: float
    epistemic: float
    aleatoric: float
    neighbours: tuple[Neighbour, ...] = ()


@dataclass(frozen=True)
class Dispute:
    """A label that the model confidently takes for another: class indices, and how sure it is of its guess, the share
    of the nearest labelled items that have it."""

    item: int
    label: int
    guess: int
    confidence: float


@dataclass(frozen=True, eq=False)
class Predicted:
    """What the draws said of some items: their mean `[item, class]`, the class each draw prefers `[item, draw]`, the
    entropy of the mean and the mean entropy `[item]`, in nats."""

    items: npt.NDArray[np.int64]
    probabilities: Floats
    votes: npt.NDArray[np.unsignedinteger[Any]]
    total: Floats
    aleatoric: Floats

    def __len__(self) -> int:
        return len(self.items)

    @property
    def epistemic(self) -> Floats:
        return np.maximum(self.total - self.aleatoric, 0)

    def of(self, items: npt.ArrayLike) -> Predicted:
        """The rows of those of the items that are here."""
        return self._rows(np.isin(self.items, np.asarray(items)))

    def joined(self, other: Predicted) -> Predicted:
        """Both; what either says of an item that is in both."""
        if not len(self) or not len(other):
            return self if len(self) else other
        other = other._rows(~np.isin(other.items, self.items))
        each = zip(self._columns(), other._columns(), strict=True)
        return Predicted(*(np.concatenate(pair) for pair in each))

    def ordered(self) -> Predicted:
        """The same by item."""
        return self._rows(np.argsort(self.items))

    def classes(self) -> npt.NDArray[np.intp]:
        """The likeliest class of each, `[item]`."""
        return np.asarray(self.probabilities.argmax(axis=1))

    def _rows(self, chosen: npt.NDArray[Any]) -> Predicted:
        return Predicted(*(column[chosen] for column in self._columns()))

    def _columns(self) -> tuple[npt.NDArray[Any], ...]:
        return self.items, self.probabilities, self.votes, self.total, self.aleatoric


def nothing_predicted() -> Predicted:
    return Predicted(
        np.zeros(0, np.int64), np.zeros((0, 0), np.float32), np.zeros((0, 0), np.uint8), np.zeros(0), np.zeros(0)
    )


class Recorder:
    """Keeps of each batch of draws what `Predicted` holds: a share of 1 / draws of their size and less."""

    def __init__(self, items: Sequence[int], multi_label: bool = False) -> None:
        self.items, self.multi_label = np.asarray(items, np.int64), multi_label
        self._parts: list[tuple[npt.NDArray[Any], ...]] = []
        self._from_logits: FromLogits = "auto"

    def add(self, draws: Any) -> Any:
        """Predictions `[batch, class, draw]`; others, of several outputs or pixels, are let pass.

        Gives them back as probabilities, so that nobody has to make them again. What the first batch that can tell
        shows, logits or probabilities, goes for all. With `multi_label` they are those of no and yes, `[batch, 2,
        class, draw]`: entropies are means over the classes, and no draw has one vote.
        """
        if self.multi_label:
            whole = as_floats(draws)
            both = whole.mean(dim=-1)
            entropies = torch.special.entr(both).sum(dim=1).mean(dim=1), expected_entropy(whole).mean(dim=1)
            no_votes = np.zeros((len(both), 0), np.uint8)
            self._parts.append((as_numpy(both[:, 1].float()), no_votes, *map(as_numpy, entropies)))
            return draws
        if not hasattr(draws, "ndim") or draws.ndim != 3:
            return draws
        values = as_floats(draws)
        if self._from_logits == "auto":
            logits = are_logits(values)
            self._from_logits = "auto" if logits is None else logits
        probabilities = to_probabilities(values, self._from_logits)
        mean = averaged(probabilities)
        votes = probabilities.max(dim=1).indices  # in a seventh of the time of argmax
        kind = np.min_scalar_type(probabilities.shape[1] - 1)
        columns = mean.float(), votes, entropy(mean), expected_entropy(probabilities)
        mean_, votes_, total_, aleatoric_ = map(as_numpy, columns)
        self._parts.append((mean_, votes_.astype(kind), total_, aleatoric_))
        return probabilities if isinstance(draws, torch.Tensor) else as_numpy(probabilities)

    def predicted(self) -> Predicted:
        """What came so far; what was predicted beyond the items is left out."""
        if not self._parts:
            return nothing_predicted()
        mean, votes, total, aleatoric = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        n = min(len(self.items), len(mean))
        return Predicted(self.items[:n], mean[:n], votes[:n], total[:n], aleatoric[:n])


@dataclass(frozen=True, eq=False)
class Insight:
    """What the model of a lesson said of the pool and of the labelled items, as far as it was asked.

    Holds classes + draws / 4 + 4 numbers an item, and the features of the items that have `neighbours`. Those are
    looked for when asked: one product with the features of all labelled items.
    """

    round: int
    predicted: Predicted
    """By item."""
    ranking: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    """NaN for none."""
    labels: Mapping[int, Target]
    feature_items: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """By item, those that `features` are of."""
    features: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """`[item, feature]`, each of length 1."""
    disputes: tuple[Dispute, ...] = ()

    def __post_init__(self) -> None:
        order = np.argsort(self.ranking, kind="stable")
        labelled = np.asarray(sorted(set(self.labels) & set(self.feature_items.tolist())), np.int64)
        object.__setattr__(self, "_by_item", (self.ranking[order], order))
        object.__setattr__(self, "_labelled", (labelled, np.searchsorted(self.feature_items, labelled)))

    def guess(self, item: int) -> tuple[int, float] | None:
        """The likeliest class of an item and its probability; `None` where the model was not asked or gave NaN."""
        told = self.probabilities(item)
        return None if told is None else (int(told.argmax()), float(told.max()))

    def probabilities(self, item: int) -> Floats | None:
        """The mean over the draws, `[class]`; `None` as in `guess`."""
        place = _place(self.predicted.items, item)
        if place is None or not np.isfinite(self.predicted.probabilities[place]).all():
            return None
        return np.asarray(self.predicted.probabilities[place])

    def explain(self, item: int) -> Explanation | None:
        """All that is known of an item; `None` where the model was not asked or gave NaN."""
        place = _place(self.predicted.items, item)
        if place is None or not np.isfinite(self.predicted.probabilities[place]).all():
            return None
        told = self.predicted
        total = max(float(told.total[place]), 0.0)
        aleatoric = min(max(float(told.aleatoric[place]), 0.0), total)
        rank, score = self._standing(item)
        return Explanation(
            item=int(item),
            round=self.round,
            rank=rank,
            n_ranked=len(self.ranking),
            score=score,
            probabilities=tuple(map(float, told.probabilities[place])),
            votes=tuple(map(int, told.votes[place])),
            total=total,
            epistemic=total - aleatoric,
            aleatoric=aleatoric,
            neighbours=self.neighbours(item),
        )

    def neighbours(self, item: int, n: int = N_NEIGHBOURS) -> tuple[Neighbour, ...]:
        """The labelled items nearest to one, itself left out; none where its features were not asked for."""
        place = _place(self.feature_items, item)
        labelled, rows = self._labelled  # type: ignore[attr-defined]
        if place is None or not len(labelled):
            return ()
        distance = 1 - self.features[rows] @ self.features[place]
        distance[labelled == item] = np.inf
        nearest = np.argsort(distance, kind="stable")[:n]
        return tuple(
            Neighbour(int(labelled[i]), self.labels[int(labelled[i])], float(np.clip(distance[i], 0, 2)))
            for i in nearest
            if np.isfinite(distance[i])
        )

    def _standing(self, item: int) -> tuple[int | None, float | None]:
        items, order = self._by_item  # type: ignore[attr-defined]
        place = _place(items, item)
        if place is None:
            return None, None
        rank = int(order[place])
        return rank + 1, float(self.scores[rank]) if np.isfinite(self.scores[rank]) else None


def disputed(
    items: Sequence[int],
    labels: Sequence[int],
    features: Floats,
    *,
    told: Callable[[float], None] = lambda share: None,
) -> tuple[Dispute, ...]:
    """The labels that most of their neighbours contradict, most confident first.

    `features` are rows of length 1. The ten nearest other items are asked, fewer for a rare class, so that those who
    share its label could be half of them; labels of classes with fewer than three items are let be. The time goes with
    the square of the items: 10,000 take a second or two. `told` is called with the share done.
    """
    truth, found = np.asarray(labels, np.int64), list[tuple[float, float, Dispute]]()
    counts = np.bincount(truth) if len(truth) else np.zeros(0, np.int64)
    for first in range(0, len(items), 256):
        told(first / len(items))
        rows = slice(first, first + 256)
        near = features[rows] @ features.T
        near[np.arange(len(near)), np.arange(first, first + len(near))] = -np.inf
        most = min(N_WITNESSES, len(items) - 1)
        nearest = np.argpartition(-near, most - 1, axis=1)[:, :most] if most > 0 else np.zeros((len(near), 0), np.intp)
        by_distance = np.argsort(-np.take_along_axis(near, nearest, axis=1), axis=1, kind="stable")
        nearest = np.take_along_axis(nearest, by_distance, axis=1)
        for place, witnesses in enumerate(nearest, first):
            label = int(truth[place])
            asked = truth[witnesses[: min(most, 2 * (int(counts[label]) - 1))]]
            if len(asked) < 4:
                continue
            votes = np.bincount(asked, minlength=len(counts))
            guess, share = int(votes.argmax()), float(votes.max() / len(asked))
            if guess != label and share >= MAJORITY:
                nearness = float(near[place - first, witnesses[: len(asked)]].mean())
                found.append((share, nearness, Dispute(int(items[place]), label, guess, share)))
    return tuple(one for _, _, one in sorted(found, key=lambda each: each[:2], reverse=True))


def unit_rows(features: Floats) -> Floats:
    """Features `[item, feature]` scaled to length 1; those of length 0, or not finite, stay or become 0."""
    rows = np.nan_to_num(np.asarray(features, np.float32), posinf=0, neginf=0)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1))


def _place(ordered: npt.NDArray[np.int64], item: int) -> int | None:
    place = int(np.searchsorted(ordered, item))
    return place if place < len(ordered) and ordered[place] == item else None

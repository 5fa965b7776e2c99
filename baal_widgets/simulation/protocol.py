"""What a simulated study fixes before it begins: the data, how a network learns, and what a run is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from baal_widgets.active.heuristics import AbstractHeuristic
from baal_widgets.arrays import Array, as_numpy
from baal_widgets.checks import positive

Ints: TypeAlias = npt.NDArray[np.int64]
Method: TypeAlias = str | tuple[str, Callable[[np.random.Generator], AbstractHeuristic]]
"""A name of `selection.names()`, or a name of one's own with a function that makes the heuristic for a query, given
what it may draw from."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Items to learn from and to test on, as vectors: pixels, their principal components, a backbone's features.

    `features` `[item, feature]` and true `labels` `[item]`; `test_features` and `test_labels` likewise.
    `target_features` `[target, feature]` are what EPIG cares about: unlabelled items as they will be met in use. Left
    out, the first 100 items of the run's own pool take their place.
    """

    features: Array
    labels: Array
    test_features: Array
    test_labels: Array
    target_features: Array | None = None

    def __post_init__(self) -> None:
        for name, features, labels in (
            ("", self.features, self.labels),
            ("test_", self.test_features, self.test_labels),
        ):
            if features.ndim != 2 or labels.shape != features.shape[:1] or not len(labels):
                raise ValueError(
                    f"Expected {name}features [item, feature] and a label for each, got {tuple(features.shape)} and "
                    f"{tuple(labels.shape)}. Flatten images first: images.reshape(len(images), -1)."
                )
        every = [each for each in (self.features, self.test_features, self.target_features) if each is not None]
        widths = {each.shape[1] for each in every}
        if len(widths) > 1:
            raise ValueError(f"Expected as many features an item everywhere, got {sorted(widths)}.")
        if not all(np.isfinite(as_numpy(each)).all() for each in every):
            raise ValueError("Expected finite features, got NaN or infinity. Leave those items out.")
        if min(as_numpy(self.labels).min(), as_numpy(self.test_labels).min()) < 0:
            raise ValueError("Expected class indices from 0 on, got a negative label. Leave out items without a label.")

    @property
    def n_classes(self) -> int:
        return 1 + int(max(as_numpy(self.labels).max(), as_numpy(self.test_labels).max()))

    def digest(self) -> str:
        """A fingerprint of everything in it."""
        arrays = (self.features, self.labels, self.test_features, self.test_labels, self.target_features)
        return digest(*(() if each is None else (as_numpy(each),) for each in arrays))


Case: TypeAlias = Callable[[Pool, int], tuple[Ints, Ints]]
"""A world of a seed, from the pool and the seed: which items there are to ask about, in the order of the pool, and for
each item *of the pool* the label that a person would give."""


def as_it_is(pool: Pool, seed: int) -> tuple[Ints, Ints]:
    """The case in which all items are there and all labels are right."""
    return np.arange(len(pool.labels)), as_numpy(pool.labels).astype(np.int64)


@dataclass(frozen=True)
class Protocol:
    """How a run goes: what is asked, and how the network learns from it, anew at each step.

    - `initial` labels are drawn at random, then `query_size` more are asked for at each step, `until` so many.
    - `epochs` of minibatches of `batch_size`, every label in each epoch once. `optimizer` is "sgd", with `momentum`,
      or "adam"; the learning rate falls from `lr` to 0 along half a cosine with `schedule="cosine"`, or stays.
    - `draws` of MC-Dropout score the pool and are averaged at the test; each draw is one mask for all items.
    - `scored` is the share of the pool, drawn anew at each step, among which the query is chosen.
    - `patience`: stop early once the loss on the share `validation` of the labels, which is then not trained on, has
      not fallen for so many epochs, and go back to where it was lowest. `None` never does.

    Weights begin at the seed's initial values at every step (Gal et al., 2017, arXiv:1703.02910).
    """

    initial: int = 50
    query_size: int = 50
    until: int = 400
    epochs: int = 150
    draws: int = 10
    hidden: tuple[int, ...] = (64, 64)
    dropout: float = 0.5
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"
    batch_size: int = 32
    scored: float = 1.0
    patience: int | None = None
    validation: float = 0.2

    def __post_init__(self) -> None:
        for name in ("initial", "query_size", "until", "epochs", "draws", "batch_size"):
            positive(name, getattr(self, name))
        if self.until < self.initial:
            raise ValueError(f"Expected until to be at least initial, got {self.until} and {self.initial}.")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"Expected the sizes of one or more hidden layers, got {self.hidden}.")
        for name, low in (("scored", 0), ("validation", 0), ("dropout", None)):
            share = getattr(self, name)
            if not (0 < share <= 1 if name == "scored" else 0 <= share < 1):
                raise ValueError(f"Expected {name} to be a share {'above 0' if low == 0 else 'below 1'}, got {share}.")
        if self.optimizer not in ("sgd", "adam") or self.schedule not in ("cosine", "constant"):
            raise ValueError(
                "Expected optimizer 'sgd' or 'adam' and schedule 'cosine' or 'constant', got "
                f"{self.optimizer!r} and {self.schedule!r}."
            )
        if self.patience is not None:
            positive("patience", self.patience)

    @property
    def counts(self) -> list[int]:
        """How many labels there are at each step."""
        counts = list(range(self.initial, self.until, self.query_size))
        return [*counts, self.until]


def digest(*parts: Any) -> str:
    """A fingerprint of arrays and of what `repr` tells, the same on every machine."""
    whole = sha256()
    for part in parts:
        for each in part if isinstance(part, tuple) else (part,):
            if isinstance(each, np.ndarray):
                whole.update(f"{each.dtype.str}{each.shape}".encode())
                whole.update(np.ascontiguousarray(each).data)
            else:
                whole.update(repr(each).encode())
    return whole.hexdigest()[:32]

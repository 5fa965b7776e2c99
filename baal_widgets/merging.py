"""What a model said by the numbers of its outputs, told by the classes that there are now.

A class keeps the number of its output. When one class is merged into another, nothing of what the model said is thrown
away: what it said of either counts for the one that is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from baal_widgets.insight import Dispute, Explanation, Target

Array = npt.NDArray[Any]


def joined(probabilities: Array, places: Sequence[int], multi_label: bool = False) -> Array:
    """Probabilities `[..., output]` as `[..., class]`, where `places[output]` is the class.

    Those of one class add up; where items may have several classes, the likelier of them stands.

    >>> joined(np.array([0.5, 0.25, 0.25]), [0, 0, 1]).tolist()
    [0.75, 0.25]
    """
    places = places[: probabilities.shape[-1]]
    if list(places) == list(range(probabilities.shape[-1])):
        return probabilities
    told = np.zeros((*probabilities.shape[:-1], max(places) + 1), probabilities.dtype)
    for number, place in enumerate(places):
        both = (told[..., place], probabilities[..., number])
        told[..., place] = np.maximum(*both) if multi_label else np.add(*both)
    return told


def explained(known: Explanation, places: Sequence[int], multi_label: bool = False) -> Explanation:
    """An explanation by class; its entropies are those of the lesson."""
    if list(places) == list(range(len(places))):
        return known
    return replace(
        known,
        probabilities=tuple(map(float, joined(np.asarray(known.probabilities), places, multi_label))),
        votes=tuple(places[vote] for vote in known.votes),
        neighbours=tuple(replace(near, label=_placed(near.label, places)) for near in known.neighbours),
    )


def still_disputed(disputes: Iterable[Dispute], places: Sequence[int]) -> tuple[Dispute, ...]:
    """Disputes by class, without those between classes that are one by now."""
    if list(places) == list(range(len(places))):
        return tuple(disputes)
    told = (replace(one, label=places[one.label], guess=places[one.guess]) for one in disputes)
    return tuple(one for one in told if one.label != one.guess)


def measured_by_class(mean: Array, truth: Array, kept: Mapping[int, int], multi_label: bool) -> tuple[Array, Array]:
    """Probabilities `[item, output]` and true numbers `[item]`, or rows `[item, output]`, both by class.

    `kept` has by the number of a class merged away that of the class it is now.
    """
    if not kept:
        return mean, truth
    own = [number for number in range(mean.shape[1]) if number not in kept]
    places = [own.index(kept.get(number, number)) for number in range(mean.shape[1])]
    told = joined(truth, places, True) if multi_label else np.asarray(places)[truth]
    return joined(mean, places, multi_label), told


def _placed(label: Target, places: Sequence[int]) -> Target:
    if isinstance(label, tuple):
        return tuple(sorted({places[number] for number in label}))
    return places[label]

"""Heuristics by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from baal_widgets.active.heuristics.aliases import PowerBALD, PowerEntropy
from baal_widgets.active.heuristics.batch import BADGE, EPIG, ICAL, BatchBALD, CoreSet, MaxHerding, TypiClust
from baal_widgets.active.heuristics.heuristics import (
    BALD,
    AbstractHeuristic,
    Certainty,
    Entropy,
    Margin,
    Precomputed,
    Random,
    Reduction,
    Variance,
)

HEURISTICS: dict[str, Callable[..., AbstractHeuristic]] = {
    "badge": BADGE,
    "bald": BALD,
    "batch_bald": BatchBALD,
    "certainty": Certainty,
    "coreset": CoreSet,
    "entropy": Entropy,
    "epig": EPIG,
    "ical": ICAL,
    "margin": Margin,
    "max_herding": MaxHerding,
    "power_bald": PowerBALD,
    "power_entropy": PowerEntropy,
    "precomputed": Precomputed,
    "random": Random,
    "typiclust": TypiClust,
    "variance": Variance,
}


def get_heuristic(
    name: str | AbstractHeuristic, shuffle_prop: float | None = None, reduction: Reduction | None = None, **options: Any
) -> AbstractHeuristic:
    """The heuristic of that name (upper or lower case); a heuristic comes back as it is, whatever the options.

    What is left at `None` is the heuristic's own default. Other options go to its constructor.

    >>> get_heuristic("margin").reversed
    False
    """
    if isinstance(name, AbstractHeuristic):
        return name
    if name.lower() not in HEURISTICS:
        raise ValueError(f"Expected a heuristic among {sorted(HEURISTICS)}, got {name!r}.")
    given = {"shuffle_prop": shuffle_prop or None, "reduction": reduction}
    options |= {option: value for option, value in given.items() if value is not None}
    return HEURISTICS[name.lower()](**options)

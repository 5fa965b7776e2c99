"""Which items of the pool to ask about first."""

from baal_widgets.active.heuristics.aliases import PowerBALD, PowerEntropy
from baal_widgets.active.heuristics.batch import (
    BADGE,
    EPIG,
    ICAL,
    BatchBALD,
    BatchHeuristic,
    CoreSet,
    MaxHerding,
    TypiClust,
)
from baal_widgets.active.heuristics.combine import CombineHeuristics
from baal_widgets.active.heuristics.heuristics import (
    BALD,
    AbstractHeuristic,
    Certainty,
    Entropy,
    Margin,
    Precomputed,
    Random,
    Variance,
)
from baal_widgets.active.heuristics.registry import HEURISTICS, get_heuristic
from baal_widgets.active.heuristics.stochastics import (
    GibbsSampling,
    PowerSampling,
    RankBasedSampling,
    StochasticHeuristic,
)

__all__ = [
    "BADGE",
    "BALD",
    "EPIG",
    "HEURISTICS",
    "ICAL",
    "AbstractHeuristic",
    "BatchBALD",
    "BatchHeuristic",
    "Certainty",
    "CombineHeuristics",
    "CoreSet",
    "Entropy",
    "GibbsSampling",
    "Margin",
    "MaxHerding",
    "PowerBALD",
    "PowerEntropy",
    "PowerSampling",
    "Precomputed",
    "Random",
    "RankBasedSampling",
    "StochasticHeuristic",
    "TypiClust",
    "Variance",
    "get_heuristic",
]

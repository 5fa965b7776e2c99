"""Heuristics that are others put together."""

from __future__ import annotations

from baal_widgets.active.heuristics.heuristics import BALD, Entropy, Reduction, Seed
from baal_widgets.active.heuristics.stochastics import PowerSampling


def PowerBALD(  # noqa: N802  Baal's name
    query_size: int | None = None, temperature: float = 1.0, reduction: Reduction = "none", seed: Seed = None
) -> PowerSampling:
    """Draw items in proportion to their BALD score to the power of `1/temperature`; see `PowerSampling`."""
    return PowerSampling(BALD(reduction=reduction), query_size, temperature, seed=seed)


def PowerEntropy(  # noqa: N802  Baal's name
    query_size: int | None = None, temperature: float = 1.0, reduction: Reduction = "none", seed: Seed = None
) -> PowerSampling:
    """Draw items in proportion to their entropy to the power of `1/temperature`; see `PowerSampling`."""
    return PowerSampling(Entropy(reduction=reduction), query_size, temperature, seed=seed)

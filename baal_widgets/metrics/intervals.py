"""How far a rate that was counted may be from the true one."""

from __future__ import annotations

from math import sqrt


def wilson_interval(rate: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """The interval of a rate seen in n trials, 95 % for the z given (Wilson 1927). The rate lies within.

    >>> [round(x, 3) for x in wilson_interval(0.9, 10)]
    [0.596, 0.982]
    """
    if n < 1:
        raise ValueError(f"Expected a number of trials from 1 on, got {n}.")
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return min(rate, max(0.0, middle - reach)), max(rate, min(1.0, middle + reach))

"""Whether a claim held: paired differences, their interval, their test, and one of four words.

Everything here takes differences between runs of one seed, `[seed]`, positive where the claim has it so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from baal_widgets.simulation.randomness import generator

Floats: TypeAlias = npt.NDArray[np.float64]
Kind: TypeAlias = Literal["better", "same", "no_worse", "trend"]
Verdict: TypeAlias = Literal["reproduced", "not reproduced", "opposite", "inconclusive"]

RESAMPLES = 10_000
LEVEL = 0.05


@dataclass(frozen=True)
class Evidence:
    """What the seeds say about one reading of a claim.

    The `mean` difference with its 95 % `interval`, how many of the `seeds` have the claimed sign (`wins`), the `p` of
    the test that its kind asks for, and `p_same`, that of being no further from 0 than the margin.
    """

    mean: float
    interval: tuple[float, float]
    wins: int
    seeds: int
    p: float
    p_same: float


def weigh(kind: Kind, differences: Any, margin: float, p: float | None = None) -> Evidence:
    """The evidence for a claim of the kind; `p` is given for trends, whose test needs more than the differences.

    - "better": there is a difference. The sign test, and the bootstrap interval must agree.
    - "same": it is smaller than the margin either way. Two one-sided tests (TOST).
    - "no_worse": it is above minus the margin. One of the two.
    - "trend": `differences` are changes from the first level to the last, see `changes`.
    """
    d = _checked(differences)
    if not margin > 0:
        raise ValueError(f"Expected a margin above 0, got {margin}.")
    same = tost(d, margin)
    if kind == "better":
        p = sign_test(d)
    elif kind == "same":
        p = same
    elif kind == "no_worse":
        p = above(d, -margin)
    elif p is None:
        raise ValueError("Expected the p of a trend, from permutation_slope.")
    return Evidence(float(d.mean()), bootstrap_interval(d), int((d > 0).sum()), len(d), p, same)


def verdict(kind: Kind, evidence: Evidence, p: float) -> Verdict:
    """The word for a claim, from its evidence and its p after correction for the other claims of the family.

    A claim of a difference or a trend is *reproduced* where the interval lies above 0 and p is below 0.05, *opposite*
    where it lies below 0 and p is, *not reproduced* where neither holds but the difference is shown to be smaller than
    the margin. A claim of no difference, or no loss, is *reproduced* where p is below 0.05, and *not reproduced* where
    the interval excludes 0, for no loss from above. Whatever else is *inconclusive*.
    """
    low, high = evidence.interval
    if kind in ("same", "no_worse"):
        if p < LEVEL:
            return "reproduced"
        return "not reproduced" if high < 0 or (kind == "same" and low > 0) else "inconclusive"
    if p < LEVEL and (low > 0 or high < 0):
        return "reproduced" if low > 0 else "opposite"
    return "not reproduced" if evidence.p_same < LEVEL else "inconclusive"


def bootstrap_interval(differences: Any, resamples: int = RESAMPLES, level: float = 0.95) -> tuple[float, float]:
    """Between which values the mean of other seeds would lie: the percentile bootstrap (Efron, 1979), always the same.

    >>> bootstrap_interval([1.0, 1.0, 1.0])
    (1.0, 1.0)
    """
    d = _checked(differences)
    means = d[generator(0, "bootstrap").integers(len(d), size=(resamples, len(d)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def sign_test(differences: Any) -> float:
    """How probable so uneven a split of signs is where both are as likely; two-sided, exact, without those at 0.

    >>> sign_test([1, 2, 3, -1]), sign_test([0, 0])
    (0.625, 1.0)
    """
    d = _checked(differences)
    n, more = int((d != 0).sum()), int(max((d > 0).sum(), (d < 0).sum()))
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(more, n + 1)) * 0.5**n)


def tost(differences: Any, margin: float) -> float:
    """How probable such seeds are where the mean is `margin` or more from 0: two one-sided t tests.

    Schuirmann, 1987.
    """
    d = _checked(differences)
    return max(above(d, -margin), above(-d, -margin))


def above(differences: Any, bound: float) -> float:
    """How probable such seeds are where the mean is `bound` or less: a one-sided t test.

    >>> round(above([1.0, 2.0, 3.0], 0.0), 3)
    0.037
    """
    d = _checked(differences)
    if len(d) < 2:
        raise ValueError(f"Expected two or more seeds, got {len(d)}.")
    error = float(d.std(ddof=1)) / math.sqrt(len(d))
    if error == 0:
        return 0.0 if d.mean() > bound else 1.0
    return _t_above(float(d.mean() - bound) / error, len(d) - 1)


def holm(p: Sequence[float]) -> list[float]:
    """The p of each claim of a family so raised that one below 0.05 is a mistake in 5 % of families (Holm, 1979).

    >>> [round(each, 3) for each in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    raised, most = [0.0] * len(p), 0.0
    for rank, at in enumerate(np.argsort(p, kind="stable").tolist()):
        most = max(most, min(1.0, (len(p) - rank) * p[at]))
        raised[at] = most
    return raised


def changes(levels: Sequence[float], differences: Any) -> Floats:
    """How far each seed's line rises from the first level to the last, `[seed]`, from `[seed, level]`."""
    x, d = _levels(levels, differences)
    return np.asarray(d @ x / (x @ x) * (x[-1] - x[0]))


def permutation_slope(levels: Sequence[float], differences: Any, permutations: int = RESAMPLES) -> float:
    """How probable so steep a mean line is where levels mean nothing: two-sided, levels exchanged within each seed.

    `differences` are `[seed, level]`. Drawn permutations, the one seen among them, so never below 1 / 10,001.
    """
    x, d = _levels(levels, differences)
    rng = generator(0, "permutations")
    drawn = rng.permuted(np.broadcast_to(x, (permutations, *d.shape)), axis=2)
    slopes = np.einsum("psl,sl->p", drawn, d)
    rounding = 1e-12 * np.abs(d).sum() * np.abs(x).max()
    return float((1 + (np.abs(slopes) >= abs((d @ x).sum()) - rounding).sum()) / (1 + permutations))


def _t_above(t: float, freedom: int) -> float:
    """The chance of Student's t above `t`, by the finite series for whole degrees of freedom.

    Abramowitz & Stegun, 1964, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2
    term = total = cosine if odd else 1.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    inside = 2 / math.pi * (angle + (sine * total if freedom > 1 else 0.0)) if odd else sine * total
    return (1 - inside) / 2


def _levels(levels: Sequence[float], differences: Any) -> tuple[Floats, Floats]:
    x, d = np.asarray(levels, float), np.asarray(differences, float)
    if len(x) < 2 or d.ndim != 2 or d.shape[1] != len(x) or not np.isfinite(d).all():
        raise ValueError(
            f"Expected finite differences [seed, level] for two or more levels, got {d.shape} for {len(x)}."
        )
    return x - x.mean(), d


def _checked(differences: Any) -> Floats:
    d = np.asarray(differences, float)
    if d.ndim != 1 or not len(d) or not np.isfinite(d).all():
        raise ValueError(f"Expected finite differences [seed], one or more, got {d}.")
    return d

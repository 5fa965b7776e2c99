"""Whether a person says the same of an item when asked once more without a look at the first answer."""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan
from typing import Any

from baal_widgets.metrics.agreement import cohen_kappa
from baal_widgets.metrics.intervals import wilson_interval


def consistency(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """How often the two answers of each pair are the same.

    `n` pairs, `same` of them, their `rate` with its 95 % Wilson `interval`, both `None` where there are no pairs,
    and Cohen's `kappa`: 1 for full agreement, 0 for that of chance; `None` where chance alone agrees always, since
    all answers are of one class.

    >>> told = consistency([("cat", "cat"), ("cat", "dog"), ("dog", "dog"), ("dog", "dog")])
    >>> told["n"], told["same"], told["rate"], told["kappa"]
    (4, 3, 0.75, 0.5)
    """
    given = list(pairs)
    n, same = len(given), sum(one == other for one, other in given)
    rate = same / n if n else None
    return {
        "n": n,
        "same": same,
        "rate": rate,
        "interval": None if rate is None else wilson_interval(rate, n),
        "kappa": _kappa(given),
    }


def _kappa(pairs: list[tuple[str, str]]) -> float | None:
    if not pairs:
        return None
    kappa = cohen_kappa({place: {"first": one, "again": other} for place, (one, other) in enumerate(pairs)})
    return None if isnan(kappa) else kappa

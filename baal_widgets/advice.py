"""Whether more labels are still worth their while, read from a session's history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from baal_widgets.metrics import wilson_interval

ROUNDS = 3
STABLE = 0.99


@dataclass(frozen=True)
class Sign:
    """One thing that may speak for stopping: whether it does, and why, in a sentence."""

    name: str
    fired: bool
    reason: str


@dataclass(frozen=True)
class Advice:
    """Whether to stop labelling, and the signs that say so or not."""

    stop: bool
    signs: tuple[Sign, ...]


def stopping_advice(history: Sequence[Mapping[str, Any]], *, budget: int | None = None) -> Advice:
    """What a session's history says about stopping; `budget` is how many labels are wanted in all.

    Three signs: "budget" (spent), "stabilising predictions" (successive models say the same of the pool: Cohen's kappa
    of at least 0.99 on average over the last three rounds; Bloodgood and Vijay-Shanker 2009, arXiv:1409.5165) and
    "plateau" (the accuracy gained over three rounds is within the noise of the test set: 95 % of Newcombe 1998,
    method 10). Advises to stop when the budget is spent, or when predictions are stable and, where there is a test set,
    so is the accuracy: on a small one that alone says little.
    """
    signs = [_stabilising(history), _plateau(history)]
    if budget is not None:
        signs.append(_budget(history, budget))
    fired = {sign.name for sign in signs if sign.fired}
    measured = any("accuracy" in row for row in history)
    stable = "stabilising predictions" in fired and ("plateau" in fired or not measured)
    return Advice(stable or "budget" in fired, tuple(signs))


def _stabilising(history: Sequence[Mapping[str, Any]]) -> Sign:
    name = "stabilising predictions"
    kappas = [row.get("agreement") for row in history[-ROUNDS:]]
    known = [float(kappa) for kappa in kappas if kappa is not None]
    if len(known) < ROUNDS:
        return Sign(name, False, f"Successive models were compared in {len(known)} of the {ROUNDS} rounds it takes.")
    mean = sum(known) / ROUNDS
    stable = mean >= STABLE
    told = "agree" if stable else "still change their minds"
    return Sign(name, stable, f"Successive models {told}: kappa is {mean:.3f} over the last {ROUNDS} rounds.")


def _plateau(history: Sequence[Mapping[str, Any]]) -> Sign:
    rows = [row for row in history if row.get("accuracy") is not None]
    if not rows:
        return Sign("plateau", False, "There is no test set to measure the accuracy on.")
    if len(rows) <= ROUNDS:
        return Sign("plateau", False, f"The accuracy was measured {len(rows)} times of the {ROUNDS + 1} it takes.")
    before, now = rows[-1 - ROUNDS], rows[-1]
    gain = now["accuracy"] - before["accuracy"]
    low, high = _interval_of_gain(before["accuracy"], before["n_test"], now["accuracy"], now["n_test"])
    labels = now["n_labelled"] - before["n_labelled"]
    flat = low <= 0
    told = "which may be chance" if flat else "which is more than chance"
    return Sign(
        "plateau",
        flat,
        f"{labels} more labels changed the accuracy by {_points(gain)} points on {now['n_test']} test items, {told} "
        f"(95 %: {_points(low)} to {_points(high)}).",
    )


def _budget(history: Sequence[Mapping[str, Any]], budget: int) -> Sign:
    spent = int(history[-1]["n_labelled"]) if history else 0
    return Sign("budget", spent >= budget, f"{spent} of {budget} labels are spent.")


def _interval_of_gain(before: float, n_before: int, now: float, n_now: int) -> tuple[float, float]:
    """95 % of the difference of two rates (Newcombe 1998, method 10: from the Wilson interval of each)."""
    low_before, high_before = wilson_interval(before, n_before)
    low_now, high_now = wilson_interval(now, n_now)
    gain = now - before
    return (
        gain - sqrt((now - low_now) ** 2 + (high_before - before) ** 2),
        gain + sqrt((high_now - now) ** 2 + (before - low_before) ** 2),
    )


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"

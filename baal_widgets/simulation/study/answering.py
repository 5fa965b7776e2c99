"""What the runs say about the claims of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from baal_widgets.simulation.results import Results
from baal_widgets.simulation.study.registration import Claim, Reference, Table
from baal_widgets.simulation.study.worlds import FREQUENT, RARE
from baal_widgets.simulation.verdicts import (
    Evidence,
    Kind,
    Verdict,
    bootstrap_interval,
    changes,
    holm,
    permutation_slope,
    verdict,
    weigh,
)

Floats: TypeAlias = npt.NDArray[np.float64]
Found: TypeAlias = Mapping[tuple[str, str], Results]
Curves: TypeAlias = Callable[[Reference, str], Floats]
"""The value of a reference at a reading, `[seed]`."""


def curves(found: Found, counts: Mapping[str, int]) -> Curves:
    """Readings of a table's results, by setting and case; `counts` are the numbers of labels by name."""

    def value(reference: Reference, at: str) -> Floats:
        results = found[reference.setting, reference.case]
        curve = measured(results, reference)
        if at == "area":
            n = results.n_labelled
            return np.asarray(np.trapezoid(curve, n, axis=1) / (n[-1] - n[0]))
        return np.asarray(curve[:, results.at(counts[at])])

    return value


def measured(results: Results, reference: Reference) -> Floats:
    """A curve `[seed, step]`, of the measures of the engine or of those that worlds add."""
    classes = {"f1_rare": RARE, "f1_frequent": (FREQUENT,)}.get(reference.measure)
    if classes is not None:
        f1 = results.curve("class_f1", reference.method, reference.case)
        return np.asarray(f1[..., classes].mean(axis=-1))
    if reference.measure == "seconds_step":
        parts = [results.curve(name, reference.method, reference.case) for name in ("seconds_train", "seconds_score")]
        return np.asarray(sum(parts))
    return results.curve(reference.measure, reference.method, reference.case)


def answers(table: Table, value: Curves, found: Found | None = None) -> list[dict[str, Any]]:
    """Each claim of the table with its evidence, p corrected for the others of the table, and verdict."""
    tested = [claim for claim in table.claims if claim.kind != "factor"]
    found_of = {claim.id: [evidence(claim, value, at) for at in claim.at] for claim in tested}
    raised = dict(zip(found_of, holm([readings[0].p for readings in found_of.values()]), strict=True))
    told = []
    for claim in table.claims:
        if claim.kind == "factor":
            assert found is not None
            told.append({**_words(claim), **_factor(claim, found)})
            continue
        readings = found_of[claim.id]
        word = verdict(cast("Kind", claim.kind), readings[0], raised[claim.id])
        numbers = [
            {"at": at, **_numbers(each), "differences": _short(differences(claim, value, at))}
            for at, each in zip(claim.at, readings, strict=True)
        ]
        told.append({**_words(claim), "verdict": word, "p_holm": _p(raised[claim.id]), "readings": numbers})
    return told


def evidence(claim: Claim, value: Curves, at: str) -> Evidence:
    """What a claim's runs say at a reading."""
    return weighed(claim, differences(claim, value, at))


def differences(claim: Claim, value: Curves, at: str) -> Floats:
    """By how much `higher` exceeds `lower`, `[seed]`, and for a trend `[seed, level]`."""
    pairs = zip(claim.higher, claim.lower, strict=True)
    each = np.stack([value(higher, at) - value(lower, at) for higher, lower in pairs], axis=1)
    return each if claim.kind == "trend" else each[:, 0]


def weighed(claim: Claim, differences: Any) -> Evidence:
    """The evidence that the claim's `differences` are, so that those of a file can be weighed once more."""
    kind = cast("Kind", claim.kind)
    if kind != "trend":
        return weigh(kind, differences, claim.margin)
    p = permutation_slope(claim.levels, differences)
    return weigh(kind, changes(claim.levels, differences), claim.margin, p)


def _factor(claim: Claim, found: Found) -> dict[str, Any]:
    """How many times as long `higher` takes as `lower`, over all steps but the last, which scores nothing."""
    higher, lower = (
        measured(found[reference.setting, reference.case], reference)[:, :-1].sum(axis=0)
        for reference in (claim.higher[0], claim.lower[0])
    )
    ratio = float(higher.sum() / lower.sum())
    low, high = np.exp(bootstrap_interval(np.log(higher / lower)))
    word: Verdict = "inconclusive"
    if low >= claim.factor or high < claim.factor:
        word = "reproduced" if low >= claim.factor else "not reproduced"
    return {
        "verdict": word,
        "factor": round(ratio, 2),
        "claimed": claim.factor,
        "interval": [round(float(low), 2), round(float(high), 2)],
    }


def _words(claim: Claim) -> dict[str, Any]:
    return {"id": claim.id, "says": claim.says, "source": claim.source, "kind": claim.kind}


def _numbers(found: Evidence) -> dict[str, Any]:
    return {
        "mean": round(found.mean, 4),
        "interval": [round(bound, 4) for bound in found.interval],
        "wins": found.wins,
        "seeds": found.seeds,
        "p": _p(found.p),
    }


def _short(values: Floats) -> list[Any]:
    """To six digits, so that what is weighed once more gives what is told."""
    return [float(f"{each:.6g}") if np.ndim(each) == 0 else _short(each) for each in values]


def _p(p: float) -> float:
    return float(f"{p:.2g}")

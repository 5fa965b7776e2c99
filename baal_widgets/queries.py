"""How the next question is written down, and what is asked once more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from baal_widgets.claims import Share
from baal_widgets.journal import Draft, State

RESERVE = 10  # queries' worth of ranking kept beside each query, for those who answer faster than they retrain


def chosen_repeats(state: State, annotator: str, n: int, rng: np.random.Generator) -> list[int]:
    """Items to ask this person once more, at random among those they labelled before the last query was asked."""
    if not n:
        return []
    last = state.asked.of(annotator)
    asked = 0 if last is None else last.seq
    known = [
        item
        for item, answer in state.answers.items()
        if answer.annotator == annotator and answer.value is not None and answer.seq < asked
    ]
    return sorted(rng.choice(sorted(known), min(n, len(known)), replace=False).tolist()) if known else []


def asking(
    chosen: Share,
    *,
    number: int,
    round_: int,
    keys: Sequence[str],
    repeats: Sequence[int] = (),
    annotator: str,
) -> Draft:
    """The fact that a person is asked for their share of a ranking, with what follows in reserve, and some repeats."""
    payload: dict[str, Any] = {"number": number, "for": annotator}
    parts = {"": chosen.asked, "reserve_": chosen.reserve, "held_": chosen.held}
    for name, rows in parts.items():
        if not rows and name == "held_":
            continue
        payload[f"{name}items"] = [item for item, _ in rows]
        payload[f"{name}keys"] = [keys[item] for item, _ in rows]
        payload[f"{name}scores"] = [score for _, score in rows]
    if repeats:
        payload |= {"repeats": list(repeats), "repeat_keys": [keys[item] for item in repeats]}
    return Draft("asked", annotator="model", round=round_, payload=payload)

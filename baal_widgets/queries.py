"""The next question, from a ranking or at random, and how it is written down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from baal_widgets.journal import Draft, State

Ranking = list[tuple[int, float | None]]
"""Items with their scores, most wanted first; `None` where the item was picked at random."""

RESERVE = 10  # queries' worth of ranking kept beside each query, for those who answer faster than they retrain


def continued_ranking(state: State, n_items: int, query_size: int, seed: int) -> Ranking:
    """What was not yet asked of the last lesson's ranking; then, or where there was no lesson, at random."""
    last, ranked = state.query, Ranking()
    if last is not None and last.round == state.round:
        rest = zip(last.reserve, last.reserve_scores, strict=True)
        ranked = [(item, score) for item, score in rest if item not in state.answers]
    if len(ranked) < query_size:
        held = {item for item, _ in ranked} | state.answers.keys()
        others = [item for item in range(n_items) if item not in held]
        rng = np.random.default_rng([seed, state.round, len(state.answers)])
        ranked += [(int(item), None) for item in rng.permutation(others)]
    return ranked


def chosen_repeats(state: State, annotator: str, n: int, rng: np.random.Generator) -> list[int]:
    """Items to ask this person once more, at random among those they labelled before the last query was asked."""
    if not n:
        return []
    known = [
        item
        for item, answer in state.answers.items()
        if answer.annotator == annotator and answer.value is not None and answer.seq < state.asked
    ]
    return sorted(rng.choice(sorted(known), min(n, len(known)), replace=False).tolist()) if known else []


def asking(
    ranked: Ranking,
    *,
    query_size: int,
    number: int,
    round_: int,
    keys: Sequence[str],
    repeats: Sequence[int] = (),
    annotator: str = "",
) -> Draft:
    """The fact that the first of a ranking are asked for, with those that follow in reserve, and some repeats."""
    kept = ranked[: query_size * (1 + RESERVE)]
    payload: dict[str, Any] = {"number": number}
    for name, rows in (("", kept[:query_size]), ("reserve_", kept[query_size:])):
        payload[f"{name}items"] = [item for item, _ in rows]
        payload[f"{name}keys"] = [keys[item] for item, _ in rows]
        payload[f"{name}scores"] = [score for _, score in rows]
    if repeats:
        payload |= {"repeats": list(repeats), "repeat_keys": [keys[item] for item in repeats]}
        payload["repeats_for"] = annotator
    return Draft("asked", annotator="model", round=round_, payload=payload)

"""Who is asked what: no two people the same item, unless several answers to each are wanted.

A person's claims are the items of their last query that they have not answered. They are theirs for some minutes from
the last fact of that person; then others may be asked, and of those who answer the first one stands. All of this is
functions of the state folded from the journal: what they choose is written right after the fact that the state ends
with, or chosen anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from baal_widgets.journal import NOBODY, Query, State

Ranking = list[tuple[int, float | None]]
"""Items with their scores, most wanted first; `None` where the item was picked at random."""


@dataclass(frozen=True)
class Asker:
    """A person, and the rules that hold for all: `overlap` people an item, whose claims live for so many `minutes`."""

    annotator: str
    overlap: int = 1
    minutes: float = 10.0


class Share(NamedTuple):
    """What a person gets of a ranking: the next query, what may follow it, and what others have in their hands."""

    asked: Ranking
    reserve: Ranking
    held: Ranking


def share(state: State, ranked: Ranking, who: Asker, clock: float, size: int, reserve: int) -> Share:
    """Divide a ranking for one person: so many items to ask and so many in reserve, in its order.

    What others have ahead of them, on their screens perhaps, is asked only where nothing else is left.
    """
    claimed, ahead = claims_of_others(state, who, clock), set(_ahead_of_others(state, who, clock))
    free, others, spare = Ranking(), Ranking(), Ranking()
    for row in ranked:
        is_mine = is_free(state, row[0], who, claimed)
        if is_mine and row[0] not in ahead:
            free.append(row)
        elif is_mine or row[0] not in state.answers:
            others.append(row)
            spare += [row] if is_mine else []
        if len(free) == size + reserve:
            break
    taken = spare[: max(0, size - len(free))]
    return Share(free[:size] + taken, free[size:], [row for row in others if row not in taken])


def ranking(state: State, n_items: int, who: Asker, clock: float, size: int, seed: int) -> Ranking:
    """What is left of the newest ranking; then, where that is not enough or there was no lesson, the rest at random."""
    last, ranked = state.query, Ranking()
    if last is not None and last.round == state.round:
        items = (*last.held, *last.items, *last.reserve)
        scores = (*last.held_scores, *last.scores, *last.reserve_scores)
        ranked = [row for row in zip(items, scores, strict=True) if row[0] not in state.answers]
    if len(share(state, ranked, who, clock, size, 0).asked) < size:
        held = {item for item, _ in ranked} | state.answers.keys()
        others = [item for item in range(n_items) if item not in held]
        rng = np.random.default_rng([seed, state.round, len(state.answers)])
        ranked += [(int(item), None) for item in rng.permutation(others)]
    return ranked


def begun(state: State, who: Asker) -> Ranking:
    """The items that others have answered and this person may answer too, the earliest first: to be finished first."""
    if who.overlap == 1:
        return []
    some = [item for item in state.answers if is_free(state, item, who, {})]
    return [(item, None) for item in sorted(some, key=lambda item: (state.answers[item].seq, item))]


def open_items(state: State, who: Asker, clock: float) -> tuple[int, ...]:
    """The items of this person's query that still wait for their answer."""
    query = state.asked.of(who.annotator)
    if query is None:
        return ()
    claimed = claims_of_others(state, who, clock, since=query.seq)
    return tuple(item for item in query.items if is_free(state, item, who, claimed))


def in_hands(state: State, who: Asker, clock: float) -> Query | None:
    """This person's query, with their own repeats alone, without what others were given of it or of its reserve."""
    query = state.asked.of(who.annotator)
    if query is None:
        return None
    told = dict(vars(query))
    taken = claims_of_others(state, who, clock, since=query.seq)
    lost = {i for i in taken if state.said(i, who.annotator) is None and not is_free(state, i, who, taken)}
    gone = claims_of_others(state, who, clock).keys() | set(_ahead_of_others(state, who, clock))
    for items, scores, without in (("items", "scores", lost), ("reserve", "reserve_scores", gone)):
        rows = [row for row in zip(told[items], told[scores], strict=True) if row[0] not in without]
        told[items], told[scores] = tuple(row[0] for row in rows), tuple(row[1] for row in rows)
    if query.repeats and query.annotator != who.annotator:
        told["repeats"], told["annotator"] = (), ""
    return Query(**told)


def is_open(state: State, item: int, who: Asker) -> bool:
    """Whether an item was asked of this person who has not answered it, and fewer than wanted have."""
    return state.asked.waits(who.annotator, item) and is_free(state, item, who, {})


def is_free(state: State, item: int, who: Asker, claimed: Counter[int] | dict[int, int]) -> bool:
    """Whether this person may be asked for an item: they have not answered it, and too few others have or will."""
    stands = state.answers.get(item)
    if stands is None:
        return claimed.get(item, 0) < who.overlap
    if stands.annotator in NOBODY or state.said(item, who.annotator) is not None:
        return False
    return len({stands.annotator, *state.opinions.get(item, ())}) + claimed.get(item, 0) < who.overlap


def claims_of_others(state: State, who: Asker, clock: float, since: int = 0) -> Counter[int]:
    """How many others hold each item: asked after the fact `since`, not answered, of somebody heard of lately."""
    return Counter(
        item
        for person, query in _others(state, who, clock)
        if query.seq > since
        for item in query.items
        if state.said(item, person) is None
    )


def _ahead_of_others(state: State, who: Asker, clock: float) -> Iterable[int]:
    return (item for _, query in _others(state, who, clock) for item in query.ahead)


def _others(state: State, who: Asker, clock: float) -> Iterator[tuple[str, Query]]:
    """The queries in the hands of the other people."""
    for person, query in state.asked.by.items():
        if person != who.annotator and state.asked.is_live(person, clock, who.minutes):
            yield person, query

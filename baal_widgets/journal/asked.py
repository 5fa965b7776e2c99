"""What was asked of whom: the query of each person, what they have not answered of it, and when they were last heard.

A claim is no row of its own: it is the fact `asked`, written for one person. Nothing but the order of the facts decides
who holds what; time only tells whose claims have lapsed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from baal_widgets.journal.journal import Event

EVERYBODY = ""
"""Whose the queries of journals are that were written before queries were one person's."""
NOBODY = frozenset({"", "model", "dataset", "oracle"})
"""Annotators who are no person: their facts are no claims, and a person's answer replaces theirs."""


@dataclass(frozen=True)
class Query:
    """The items asked for, most wanted first, with their scores (higher = ask first; `None` where random).

    `round` counts the retrains before it, `number` the queries of all people. `reserve` goes on with the same ranking,
    for those who answer everything before the next retrain; its first part, `ahead`, may be on this person's screen
    already. `held` are those of the ranking that others had in their hands. `repeats` are items that `annotator` has
    labelled before, to be labelled once more without a look at the first label. `seq` is its place among the facts.
    """

    items: tuple[int, ...]
    scores: tuple[float | None, ...]
    round: int
    number: int
    reserve: tuple[int, ...] = ()
    reserve_scores: tuple[float | None, ...] = ()
    repeats: tuple[int, ...] = ()
    annotator: str = ""
    held: tuple[int, ...] = ()
    held_scores: tuple[float | None, ...] = ()
    seq: int = 0

    @property
    def ahead(self) -> tuple[int, ...]:
        """As many items of the reserve as were asked for: what a screen may turn to before it can ask."""
        return self.reserve[: len(self.items)]


@dataclass
class Asked:
    """The queries as the facts tell them, `newest` that of whoever asked last. Changed by `State.apply` alone.

    `clock` counts seconds between facts, forward only: a clock that was set back stands still for one fact, one that
    was set forward lets claims lapse early, and both go on from there.
    """

    newest: Query | None = None
    by: dict[str, Query] = field(default_factory=dict)
    waiting: dict[str, set[int]] = field(default_factory=dict)
    """By person: what they were ever asked, or had ahead, without having answered it."""
    seen: dict[str, tuple[float, str]] = field(default_factory=dict)
    """By person: the clock at the last fact of theirs, and its time as written."""
    clock: float = 0.0
    moment: float = 0.0
    """The time of the last fact, in seconds since 1970."""

    def hear(self, event: Event) -> None:
        """Take in that a fact was stated, whatever it is."""
        if not event.time:
            return
        moment = datetime.fromisoformat(event.time).timestamp()
        self.clock += max(0.0, moment - self.moment) if self.moment else 0.0
        self.moment = moment
        who = event.payload.get("for", "") if event.kind == "asked" else event.annotator
        if who not in NOBODY:
            self.seen[who] = (self.clock, event.time)

    def ask(self, event: Event, index_of: Mapping[str, int] | None) -> str:
        """Take in a query; whose it is."""
        query, who = _query(event, index_of), str(event.payload.get("for", EVERYBODY))
        self.newest = self.by[who] = query
        if who != EVERYBODY:
            self.waiting.setdefault(who, set()).update(query.items, query.ahead)
        return who

    def release(self, who: str) -> None:
        """Nothing is claimed by this person any more. What was asked of them stays known: an answer may come late."""
        self.by.pop(who, None)

    def of(self, who: str) -> Query | None:
        """The query in a person's hands: their own, or one for everybody that is newer."""
        return max((self.by[one] for one in (EVERYBODY, who) if one in self.by), key=lambda q: q.seq, default=None)

    def waits(self, who: str, item: int) -> bool:
        """Whether a person was asked for an item and has not answered it."""
        return item in self.waiting.get(who, ())

    def put(self, who: str, item: int, waits: bool) -> None:
        """Note that a person has answered an item, or has taken that back."""
        told = self.waiting.setdefault(who, set()) if waits else self.waiting.get(who, set())
        (told.add if waits else told.discard)(item)

    def clock_at(self, now: datetime) -> float:
        """The clock at a time, never before the last fact."""
        return self.clock + max(0.0, now.timestamp() - self.moment)

    def is_live(self, who: str, clock: float, minutes: float) -> bool:
        """Whether a person was heard of so recently that what they claimed is theirs."""
        heard = self.seen.get(who)
        return heard is not None and clock - heard[0] < 60 * minutes


def _query(event: Event, index_of: Mapping[str, int] | None) -> Query:
    """Items are written with their keys, so a query survives files that were added or moved."""
    told = event.payload

    def found(items: str, keys: str, scores: str = "") -> list[tuple[int, float | None]]:
        asked = told.get(items, ())
        rows = zip(asked, told.get(keys, ()), told.get(scores, [None] * len(asked)), strict=True)
        if index_of is None:
            return [(item, score) for item, _, score in rows]
        return [(index_of[key], score) for _, key, score in rows if key in index_of]

    asked, reserve, held = (found(f"{part}items", f"{part}keys", f"{part}scores") for part in ("", "reserve_", "held_"))
    return Query(
        items=tuple(item for item, _ in asked),
        scores=tuple(score for _, score in asked),
        round=event.round,
        number=told["number"],
        reserve=tuple(item for item, _ in reserve),
        reserve_scores=tuple(score for _, score in reserve),
        repeats=tuple(item for item, _ in found("repeats", "repeat_keys")),
        annotator=told.get("for", told.get("repeats_for", "")),
        held=tuple(item for item, _ in held),
        held_scores=tuple(score for _, score in held),
        seq=event.seq,
    )

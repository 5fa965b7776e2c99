"""What a list of facts amounts to: labels, undo, the open question, the rounds so far.

`State.apply` is the only place that says what a fact means. A session replays the journal through it when it
opens and feeds it each new fact after that, so what is on the screen and what is on the disk cannot differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from baal_widgets.journal.journal import Event

ANSWERS = frozenset({"label", "skip", "import"})


@dataclass(frozen=True)
class Answer:
    """What is now said of an item: a class name, or `None` for "skipped"."""

    value: str | None
    round: int
    annotator: str
    seq: int


@dataclass(frozen=True)
class Change:
    """One answer given: what it put in the place of what. Undo puts `before` back, redo `after`."""

    seq: int
    item: int
    before: Answer | None
    after: Answer


@dataclass(frozen=True)
class Query:
    """The items asked for, most wanted first, with their scores (higher = ask first; `None` where random).

    `round` counts the retrains before it, `number` the queries. `reserve` goes on with the same ranking, for
    those who answer everything before the next retrain.
    """

    items: tuple[int, ...]
    scores: tuple[float | None, ...]
    round: int
    number: int
    reserve: tuple[int, ...] = ()
    reserve_scores: tuple[float | None, ...] = ()


@dataclass
class State:
    """The present, folded from the past. Changed by `apply` alone."""

    settings: dict[str, Any] = field(default_factory=dict)
    answers: dict[int, Answer] = field(default_factory=dict)
    done: list[Change] = field(default_factory=list)
    undone: list[Change] = field(default_factory=list)
    query: Query | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    seq: int = 0
    unknown: set[str] = field(default_factory=set)

    @property
    def round(self) -> int:
        """How many times the model has learned."""
        return len(self.history)

    @property
    def labels(self) -> dict[int, str]:
        return {item: answer.value for item, answer in self.answers.items() if answer.value is not None}

    @property
    def skipped(self) -> set[int]:
        return {item for item, answer in self.answers.items() if answer.value is None}

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.labels.values())

    @property
    def open_items(self) -> tuple[int, ...]:
        """The items of the query that still wait for an answer."""
        return () if self.query is None else tuple(i for i in self.query.items if i not in self.answers)

    def apply(self, event: Event, index_of: Mapping[str, int] | None = None) -> int | None:
        """Take in the next fact; the item whose answer it changed, if any.

        `index_of` maps an item's stable key to its index in the dataset at hand. Facts about keys that the
        dataset no longer holds change nothing and are remembered in `unknown`.
        """
        self.seq = event.seq
        item = event.item
        if event.key is not None and index_of is not None:
            item = index_of.get(event.key)
            if item is None:
                self.unknown.add(event.key)
        match event.kind:
            case "opened":
                self.settings = dict(event.payload)
            case "label" | "skip" | "import" if item is not None:
                answer = Answer(event.value, event.round, event.annotator, event.seq)
                if event.kind != "import":
                    self.done.append(Change(event.seq, item, self.answers.get(item), answer))
                    self.undone = [c for c in self.undone if c.after.annotator != event.annotator]
                self.answers[item] = answer
                return item
            case "undo":
                return self._move(event, self.done, self.undone)
            case "redo":
                return self._move(event, self.undone, self.done)
            case "asked":
                self.query = _query(event, index_of)
            case "measured":
                self.history.append(dict(event.payload))
        return None

    def labels_after(self, seq: int) -> int:
        """How many of the labels were given, or put back, after a fact: what a model trained at it has not seen."""
        return sum(answer.seq > seq for answer in self.answers.values() if answer.value is not None)

    def last_done(self, annotator: str) -> Change | None:
        """What an undo of this person would take back."""
        return next((change for change in reversed(self.done) if change.after.annotator == annotator), None)

    def last_undone(self, annotator: str) -> Change | None:
        """What a redo of this person would put back."""
        return next((change for change in reversed(self.undone) if change.after.annotator == annotator), None)

    def _move(self, event: Event, source: list[Change], goal: list[Change]) -> int | None:
        change = next((c for c in reversed(source) if c.seq == event.payload["target"]), None)
        if change is None:
            return None
        source.remove(change)
        goal.append(change)
        answer = change.before if goal is self.undone else change.after
        later = next((c for c in self.done if c.item == change.item and c.seq > change.seq), None)
        if goal is self.undone and later is not None:  # somebody has answered since: theirs stands, on other ground
            self.done[self.done.index(later)] = replace(later, before=change.before)
            return None
        if answer is None:
            self.answers.pop(change.item, None)
        else:
            self.answers[change.item] = replace(answer, seq=event.seq)
        return change.item


def fold(events: Iterable[Event], index_of: Mapping[str, int] | None = None) -> State:
    """The state after all these facts."""
    state = State()
    for event in events:
        state.apply(event, index_of)
    return state


def _query(event: Event, index_of: Mapping[str, int] | None) -> Query:
    """Items are written with their keys, so a query survives files that were added or moved."""
    told = event.payload

    def found(name: str) -> list[tuple[int, float | None]]:
        rows = zip(told[f"{name}items"], told[f"{name}keys"], told[f"{name}scores"], strict=True)
        if index_of is None:
            return [(item, score) for item, _, score in rows]
        return [(index_of[key], score) for _, key, score in rows if key in index_of]

    asked, reserve = found(""), found("reserve_")
    return Query(
        items=tuple(item for item, _ in asked),
        scores=tuple(score for _, score in asked),
        round=event.round,
        number=told["number"],
        reserve=tuple(item for item, _ in reserve),
        reserve_scores=tuple(score for _, score in reserve),
    )

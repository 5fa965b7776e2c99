"""What a list of facts amounts to: labels, undo, the open question, the rounds so far.

`State.apply` is the only place that says what a fact means. A session replays the journal through it when it
opens and feeds it each new fact after that, so what is on the screen and what is on the disk cannot differ.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from baal_widgets.journal.journal import Event

NAMING = ("opened", "class_added", "class_renamed", "class_merged")
"""The facts that say which classes there are."""

PACE = 51  # answers whose times are remembered, to tell how fast a person is


class Answer(NamedTuple):
    """What is now said of an item: a class name, or `None` for one set aside, and then `why`: `skip` or `unsure`.

    Where items have several labels, the value is a JSON list of names. `review` marks the answer of a person who
    looked again at a label that the model disputed.
    """

    value: str | None
    round: int
    annotator: str
    seq: int
    why: str = ""
    review: bool = False


class Change(NamedTuple):
    """One answer given: what it put in the place of what. Undo puts `before` back, redo `after`.

    Changes of one `group` were made by one gesture and are taken back together.
    """

    seq: int
    item: int
    before: Answer | None
    after: Answer
    group: str | None = None


@dataclass(frozen=True)
class Query:
    """The items asked for, most wanted first, with their scores (higher = ask first; `None` where random).

    `round` counts the retrains before it, `number` the queries. `reserve` goes on with the same ranking, for
    those who answer everything before the next retrain. `repeats` are items that `annotator` has labelled before,
    to be labelled once more without a look at the first label.
    """

    items: tuple[int, ...]
    scores: tuple[float | None, ...]
    round: int
    number: int
    reserve: tuple[int, ...] = ()
    reserve_scores: tuple[float | None, ...] = ()
    repeats: tuple[int, ...] = ()
    annotator: str = ""


@dataclass
class State:
    """The present, folded from the past. Changed by `apply` alone.

    What would take a walk over all answers is counted as they come: `n_labelled`, `counts` by class, `aside` by
    reason, `behind` (the labels that the last lesson has not seen).
    """

    settings: dict[str, Any] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    answers: dict[int, Answer] = field(default_factory=dict)
    done: MutableSequence[Change] = field(default_factory=list)
    undone: MutableSequence[Change] = field(default_factory=list)
    query: Query | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    seq: int = 0
    unknown: set[str] = field(default_factory=set)
    flagged: set[int] = field(default_factory=set)
    notes: dict[int, str] = field(default_factory=dict)
    reviewed: set[int] = field(default_factory=set)
    asked: int = 0
    """The place of the last query among the facts."""
    repeated: dict[int, str] = field(default_factory=dict)
    """The answers to the repeats of the last query."""
    again: dict[str, dict[int, tuple[str, str]]] = field(default_factory=dict)
    """By annotator and item: the label that stood, and what the same person said the last time it was repeated."""
    times: dict[str, deque[tuple[str, str | None]]] = field(default_factory=dict)
    """By annotator: when the latest answers were given, and in which group."""
    n_labelled: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    aside: Counter[str] = field(default_factory=Counter)
    behind: int = 0
    n_done: Counter[str] = field(default_factory=Counter)
    said: dict[str, Any] | None = None
    """What the model of the last lesson said of some of the pool, for the next one to be compared with."""
    merged: dict[int, str] = field(default_factory=dict)
    """By number: the class that one merged away counts as now. A class keeps its number, see `outputs`."""
    _renamed: dict[str, str] = field(default_factory=dict)
    _latest: dict[int, int] = field(default_factory=dict)
    """By item: the latest change it ever had, so that an undo knows without a search that nobody came after."""

    @property
    def round(self) -> int:
        """How many times the model has learned."""
        return len(self.history)

    @property
    def outputs(self) -> list[str]:
        """By number: the class that each output of a model stands for. Every class that ever was has one, in the order
        in which they came, and keeps it; that of a class merged away stands for the class it was merged into."""
        return outputs_of(self.classes, self.merged)

    @property
    def labels(self) -> dict[int, str]:
        return {item: answer.value for item, answer in self.answers.items() if answer.value is not None}

    @property
    def skipped(self) -> set[int]:
        return {item for item, answer in self.answers.items() if answer.value is None}

    @property
    def unsure(self) -> set[int]:
        return {item for item, answer in self.answers.items() if answer.why == "unsure"}

    @property
    def open_items(self) -> tuple[int, ...]:
        """The items of the query that still wait for an answer."""
        return () if self.query is None else tuple(i for i in self.query.items if i not in self.answers)

    @property
    def learned(self) -> int:
        """The place among the facts of the snapshot that the last lesson learned from."""
        return int(self.history[-1].get("seq", 0)) if self.history else 0

    def apply(self, event: Event, index_of: Mapping[str, int] | None = None) -> int | None:
        """Take in the next fact; the item whose answer it changed, if any.

        `index_of` maps an item's stable key to its index in the dataset at hand. Facts about keys that the
        dataset no longer holds change nothing and are remembered in `unknown`, those of kinds not known here
        change nothing.
        """
        self.seq = event.seq
        item = event.item
        if event.key is not None and index_of is not None:
            item = index_of.get(event.key)
            if item is None:
                self.unknown.add(event.key)
        match event.kind:
            case "opened" if not self.settings:  # where two processes begin it at once, the first one does
                self.settings = dict(event.payload)
                self.classes = list(event.payload.get("classes", ()))
            case "label" | "skip" | "import" if item is not None:
                self._answer(event, item)
                return item
            case "repeat" if item is not None and event.value is not None:
                self._repeat(event, item, event.value)
            case "undo":
                return self._move(event, self.done, self.undone)
            case "redo":
                return self._move(event, self.undone, self.done)
            case "flag" if item is not None:
                (self.flagged.add if event.payload.get("on", True) else self.flagged.discard)(item)
            case "note" if item is not None:
                self.notes.pop(item, None)
                if event.value:
                    self.notes[item] = event.value
            case "class_added":
                self._add_class(str(event.value))
            case "class_renamed":
                self._rename_class(event.payload["old"], event.payload["new"])
            case "class_merged":
                self._merge_classes(event.payload["old"], event.payload["into"], event.seq)
            case "asked":
                self.query, self.asked, self.repeated = _query(event, index_of), event.seq, {}
            case "said":
                self.said = dict(event.payload)
            case "measured":
                self.said = None
                self.history.append(dict(event.payload))
                self.behind = self.labels_after(self.learned)
        return None

    def labels_after(self, seq: int) -> int:
        """How many of the labels were given, or put back, after a fact: what a model trained at it has not seen."""
        return sum(answer.seq > seq for answer in self.answers.values() if answer.value is not None)

    def names_in(self, value: str) -> tuple[str, ...]:
        """The classes that a value stands for: one, or where items have several labels any number."""
        return tuple(json.loads(value)) if self.settings.get("multi_label") else (value,)

    def last_done(self, annotator: str) -> Change | None:
        """What an undo of this person would take back."""
        return _last(self.done, annotator) if self.n_done[annotator] else None

    def last_undone(self, annotator: str) -> Change | None:
        """What a redo of this person would put back."""
        return _last(self.undone, annotator)

    def next_to_undo(self, annotator: str) -> list[Change]:
        """The changes that one undo of this person takes back, in that order: one, or all of a group."""
        return _group(self.done, self.last_done(annotator))

    def next_to_redo(self, annotator: str) -> list[Change]:
        """The changes that one redo of this person puts back, in that order."""
        return _group(self.undone, self.last_undone(annotator))

    def recent(self, annotator: str, n: int) -> list[tuple[int, Answer]]:
        """The latest answers of this person that still stand, newest first."""
        told: dict[int, Answer] = {}
        left = self.n_done[annotator]
        for change in reversed(self.done):
            if left == 0 or len(told) >= n:
                break
            if change.after.annotator == annotator:
                left -= 1
                answer = self.answers.get(change.item)
                if answer is not None and answer.annotator == annotator:
                    told.setdefault(change.item, answer)
        return list(told.items())

    def _answer(self, event: Event, item: int) -> None:
        before, told, value, seq = self.answers.get(item), event.payload, event.value, event.seq
        if value is not None and self._renamed:
            value = self._present(value)
        review, group, via = map(told.get, ("review", "group", "via")) if told else (None, None, None)
        why = told.get("why", "skip") if value is None else ""
        # a label that was looked at and kept stands since it was given: the model has learned from it
        if review == "kept" and before is not None and before.value == value:
            seq = before.seq
        person = event.annotator
        answer = Answer(value, event.round, person, seq, why, review is not None)
        if event.kind != "import":
            self.done.append(Change(event.seq, item, before, answer, group))
            self.n_done[person] += 1
            self._latest[item] = event.seq
            if self.undone:
                self.undone = [c for c in self.undone if c.after.annotator != person]
            if via != "import":
                self._clock(event)
        self._put(item, answer)

    def _repeat(self, event: Event, item: int, value: str) -> None:
        value, before = self._present(value), self.answers.get(item)
        if self.query is not None and item in self.query.repeats:
            self.repeated[item] = value
        if before is not None and before.value is not None and before.annotator == event.annotator:
            self.again.setdefault(event.annotator, {})[item] = (before.value, value)
        self._clock(event)

    def _clock(self, event: Event) -> None:
        times = self.times.get(event.annotator)
        if times is None:
            times = self.times[event.annotator] = deque(maxlen=PACE)
        times.append((event.time, event.payload.get("group") if event.payload else None))

    def _move(self, event: Event, source: MutableSequence[Change], goal: MutableSequence[Change]) -> int | None:
        seq = event.payload["target"]
        place = next((p for p in range(len(source) - 1, -1, -1) if source[p].seq == seq), None)
        if place is None:
            return None
        change = source.pop(place)
        goal.append(change)
        undone = goal is self.undone
        self.n_done[change.after.annotator] += -1 if undone else 1
        answer = change.before if undone else change.after
        if undone and self._latest[change.item] > seq:
            later = next((p for p, c in enumerate(self.done) if c.item == change.item and c.seq > seq), None)
            if later is not None:  # somebody has answered since: theirs stands, on other ground
                self.done[later] = self.done[later]._replace(before=change.before)
                return None
        now = self.answers.get(change.item)
        if answer is not None and (now is None or now.value != answer.value):
            answer = answer._replace(seq=event.seq)  # what a model that learned in between has not seen
        self._put(change.item, answer)
        return change.item

    def _put(self, item: int, answer: Answer | None) -> None:
        """The one place that changes an answer, and what is counted of it."""
        before = self.answers.get(item)
        if before is not None:
            self._count(before, -1)
        self.reviewed.discard(item)
        if answer is None:
            self.answers.pop(item, None)
            return
        self.answers[item] = answer
        self._count(answer, 1)
        if answer.review:
            self.reviewed.add(item)

    def _count(self, answer: Answer, sign: int) -> None:
        if answer.value is None:
            self.aside[answer.why] += sign
            return
        self.n_labelled += sign
        if not self.history or answer.seq > self.learned:
            self.behind += sign
        if self.settings.get("multi_label"):
            for name in self.names_in(answer.value):
                self.counts[name] += sign
        else:
            self.counts[answer.value] += sign

    def _add_class(self, name: str) -> None:
        if name not in self.classes:  # where two processes add the same, it is one
            self.classes.append(name)
            self._renamed.pop(name, None)

    def _rename_class(self, old: str, new: str) -> None:
        old = self.present_name(old)
        if new in self.classes or (self.classes and old not in self.classes):
            return  # another process was there first
        if self.classes:
            self.classes[self.classes.index(old)] = new
            self._renamed[old] = new
            self._renamed.pop(new, None)

        self.merged = {number: new if name == old else name for number, name in self.merged.items()}
        self._replace_name(old, new)
        self.counts[new] = self.counts.pop(old, 0)

    def _merge_classes(self, old: str, into: str, seq: int) -> None:
        old, into = self.present_name(old), self.present_name(into)
        if old == into or (self.classes and (not {old, into} <= set(self.classes) or len(self.classes) < 3)):
            return  # another process was there first
        if self.classes:
            self.merged = {number: into if name == old else name for number, name in self.merged.items()}
            self.merged[numbers_of(self.classes, self.merged)[old]] = into
            self.classes.remove(old)
            self._renamed[old] = into
        self._replace_name(old, into, seq)
        self.counts = Counter()
        for answer in self.answers.values():
            if answer.value is not None:
                self.counts.update(self.names_in(answer.value))
        self.behind = self.labels_after(self.learned)

    def _replace_name(self, old: str, new: str, seq: int | None = None) -> None:
        """Let every answer that ever named a class name another; with `seq` those that stand become new by it."""

        def named(value: str) -> str:
            return self._written({new if name == old else name: None for name in self.names_in(value)})

        def said(answer: Answer, seq: int | None = None) -> Answer:
            value = None if answer.value is None else named(answer.value)
            return answer if value == answer.value else answer._replace(value=value, seq=seq or answer.seq)

        def changed(change: Change) -> Change:
            before, after = change.before and said(change.before), said(change.after)
            same = before is change.before and after is change.after
            return change if same else change._replace(before=before, after=after)

        self.answers = {item: said(answer, seq) for item, answer in self.answers.items()}
        self.done, self.undone = list(map(changed, self.done)), list(map(changed, self.undone))
        self.repeated = {item: named(value) for item, value in self.repeated.items()}
        for person, told in self.again.items():
            self.again[person] = {item: (named(one), named(other)) for item, (one, other) in told.items()}

    def _written(self, names: Iterable[str]) -> str:
        """A value that stands for these names, each once; where there are several in the order of the classes."""
        once = list(dict.fromkeys(names))
        if not self.settings.get("multi_label"):
            return once[0]
        order = {name: place for place, name in enumerate(self.classes)}
        return json.dumps(sorted(once, key=lambda name: order.get(name, len(order))), ensure_ascii=False)

    def _present(self, value: str) -> str:
        """A value by the names that classes have now: another process may not have known of a new name yet."""
        return self._written(map(self.present_name, self.names_in(value))) if self._renamed else value

    def present_name(self, name: str) -> str:
        """What a class is called now that had this name; the name itself where there was none."""
        while name not in self.classes and name in self._renamed:
            name = self._renamed[name]
        return name


def outputs_of(classes: Sequence[str], merged: Mapping[int, str]) -> list[str]:
    """See `State.outputs`.

    >>> outputs_of(["cat", "cow"], {1: "cat"})  # the dog was merged into the cat
    ['cat', 'cat', 'cow']
    """
    names = iter(classes)
    return [merged[n] if n in merged else next(names) for n in range(len(classes) + len(merged))]


def numbers_of(classes: Sequence[str], merged: Mapping[int, str]) -> dict[str, int]:
    """The number of each class, by which a model and a dataset know it: its place among all that ever were.

    >>> numbers_of(["cat", "cow"], {1: "cat"})
    {'cat': 0, 'cow': 2}
    """
    numbers = (n for n in range(len(classes) + len(merged)) if n not in merged)
    return dict(zip(classes, numbers, strict=True))


def fold(events: Iterable[Event], index_of: Mapping[str, int] | None = None) -> State:
    """The state after all these facts."""
    state = State()
    for event in events:
        state.apply(event, index_of)
    return state


def _last(stack: Sequence[Change], annotator: str) -> Change | None:
    return next((change for change in reversed(stack) if change.after.annotator == annotator), None)


def _group(stack: Sequence[Change], last: Change | None) -> list[Change]:
    """The last change and all that one gesture made with it, last first."""
    if last is None or last.group is None:
        return [] if last is None else [last]
    annotator = last.after.annotator
    return [c for c in reversed(stack) if c.group == last.group and c.after.annotator == annotator]


def _query(event: Event, index_of: Mapping[str, int] | None) -> Query:
    """Items are written with their keys, so a query survives files that were added or moved."""
    told = event.payload

    def found(items: str, keys: str, scores: str = "") -> list[tuple[int, float | None]]:
        asked = told.get(items, ())
        rows = zip(asked, told.get(keys, ()), told.get(scores, [None] * len(asked)), strict=True)
        if index_of is None:
            return [(item, score) for item, _, score in rows]
        return [(index_of[key], score) for _, key, score in rows if key in index_of]

    asked, reserve = found("items", "keys", "scores"), found("reserve_items", "reserve_keys", "reserve_scores")
    return Query(
        items=tuple(item for item, _ in asked),
        scores=tuple(score for _, score in asked),
        round=event.round,
        number=told["number"],
        reserve=tuple(item for item, _ in reserve),
        reserve_scores=tuple(score for _, score in reserve),
        repeats=tuple(item for item, _ in found("repeats", "repeat_keys")),
        annotator=told.get("repeats_for", ""),
    )

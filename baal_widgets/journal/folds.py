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

from baal_widgets.journal.asked import EVERYBODY, NOBODY, Asked, Query
from baal_widgets.journal.journal import Event

ANSWERING = ("label", "skip", "import")  # what is said of an item is said of what it then held
NAMING = ("opened", "class_added", "class_renamed", "class_merged")
"""The facts that say which classes there are."""

PACE = 51  # answers whose times are remembered, to tell how fast a person is


class Answer(NamedTuple):
    """What is now said of an item: a class name, or `None` for one set aside, and then `why`: `skip` or `unsure`.

    Where items have several labels, the value is a JSON list of names. `review` marks the answer of a person who
    looked again at a label that the model disputed, `beside` one given where somebody else's stood.
    """

    value: str | None
    round: int
    annotator: str
    seq: int
    why: str = ""
    review: bool = False
    beside: bool = False


class Change(NamedTuple):
    """One answer given: what it put in the place of what. Undo puts `before` back, redo `after`.

    Changes of one `group` were made by one gesture and are taken back together. `at` is the place of the fact that made
    it what it is, the answer or its last redo; `asked` tells that the item had been asked of this person.
    """

    seq: int
    item: int
    before: Answer | None
    after: Answer
    group: str | None = None
    at: int = 0
    asked: bool = False


@dataclass
class State:
    """The present, folded from the past. Changed by `apply` alone.

    What would take a walk over all answers is counted as they come: `n_labelled`, `counts` by class, `aside` by
    reason, `behind` (the labels that the last lesson has not seen).
    """

    settings: dict[str, Any] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    answers: dict[int, Answer] = field(default_factory=dict)
    opinions: dict[int, dict[str, Answer]] = field(default_factory=dict)
    """By item and person: the answers given beside that of somebody else, the earliest first."""
    done: MutableSequence[Change] = field(default_factory=list)
    undone: MutableSequence[Change] = field(default_factory=list)
    asked: Asked = field(default_factory=Asked)
    history: list[dict[str, Any]] = field(default_factory=list)
    seq: int = 0
    unknown: set[str] = field(default_factory=set)
    flagged: set[int] = field(default_factory=set)
    notes: dict[int, str] = field(default_factory=dict)
    reviewed: set[int] = field(default_factory=set)
    repeated: dict[str, dict[int, str]] = field(default_factory=dict)
    """By annotator: the answers to the repeats of their last query."""
    again: dict[str, dict[int, tuple[str, str]]] = field(default_factory=dict)
    """By annotator and item: the label that stood, and what the same person said the last time it was repeated."""
    times: dict[str, deque[tuple[str, str | None]]] = field(default_factory=dict)
    """By annotator: when the latest answers were given, and in which group."""
    n_labelled: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    aside: Counter[str] = field(default_factory=Counter)
    behind: int = 0
    n_done: Counter[str] = field(default_factory=Counter)
    contents: dict[str, tuple[int, str]] = field(default_factory=dict)
    """By key: the bytes and the SHA-256 of what an item held when it was last answered, or else when it was seen."""
    heard: dict[str, Any] | None = None
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
    def query(self) -> Query | None:
        """The query that was asked last, whosever it is: its ranking is the newest."""
        return self.asked.newest

    def said(self, item: int, annotator: str) -> Answer | None:
        """The answer of this person, whether it stands or somebody else's does."""
        stands = self.answers.get(item)
        if stands is not None and stands.annotator == annotator:
            return stands
        return self.opinions[item].get(annotator) if item in self.opinions else None

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
        self.asked.hear(event)
        item = event.item
        if "sha256" in event.payload and event.key is not None:
            told = int(event.payload["bytes"]), str(event.payload["sha256"])
            if event.kind in ANSWERING or event.key not in self.contents:
                self.contents[event.key] = told
        if event.key is not None and index_of is not None:
            item = index_of.get(event.key)
            if item is None:
                self.unknown.add(event.key)
        match event.kind:
            case "opened" if not self.settings:  # where two processes begin it at once, the first one does
                self.settings = dict(event.payload)
                self.classes = list(event.payload.get("classes", ()))
            case "label" | "skip" | "import" if item is not None:
                return self._answer(event, item)
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
            case "seen":
                self.contents |= {key: (size, hash_) for key, (size, hash_) in event.payload["contents"].items()}
            case "class_added":
                self._add_class(str(event.value))
            case "class_renamed":
                self._rename_class(event.payload["old"], event.payload["new"])
            case "class_merged":
                self._merge_classes(event.payload["old"], event.payload["into"], event.seq)
            case "asked":
                whose = self.asked.ask(event, index_of)
                self.repeated = {who: told for who, told in self.repeated.items() if whose not in (who, EVERYBODY)}
            case "released":
                self.asked.release(event.payload["of"])
            case "said":
                self.heard = dict(event.payload)
            case "measured":
                self.heard = None
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
                answer = self.said(change.item, annotator)
                if answer is not None:
                    told.setdefault(change.item, answer)
        return list(told.items())

    def _answer(self, event: Event, item: int) -> int | None:
        before, told, who = self.answers.get(item), event.payload, event.annotator
        value = None if event.value is None else self._present(event.value)
        why = told.get("why", "skip") if value is None else ""
        # a label that was looked at and kept stands since it was given: the model has learned from it
        kept = told.get("review") == "kept" and before is not None and before.value == value
        seq = before.seq if before is not None and kept else event.seq
        # who was asked may be late: that never replaces what somebody else has said, only a decision to do so does
        asked, decided = self.asked.waits(who, item), event.kind == "import" or "review" in told
        late = _is_others(before, who) and (asked or who in self.opinions.get(item, ()))
        beside = late and not decided and told.get("via") != "import"
        answer = Answer(value, event.round, who, seq, why, "review" in told, beside)
        if event.kind != "import":
            before = self.said(item, who) if beside else before
            self.done.append(Change(event.seq, item, before, answer, told.get("group"), event.seq, asked))
            self.n_done[who] += 1
            if self.undone:
                self.undone = [c for c in self.undone if c.after.annotator != who]
            if told.get("via") != "import":
                self._clock(event)
        self.asked.put(who, item, False)
        return self._say(item, answer, event)

    def _say(self, item: int, answer: Answer, event: Event) -> int | None:
        """Let an answer stand, or beside the one that stands."""
        if answer.beside:
            self.opinions.setdefault(item, {})[answer.annotator] = answer
            return None
        if event.kind != "import":
            self._latest[item] = event.seq
        self._put(item, answer)
        return item

    def _repeat(self, event: Event, item: int, value: str) -> None:
        value, before = self._present(value), self.answers.get(item)
        query = self.asked.of(event.annotator)
        if query is not None and item in query.repeats:
            self.repeated.setdefault(event.annotator, {})[item] = value
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
        if goal is self.done:
            return self._put_back(change, event)
        goal.append(change)
        return self._take_back(change, event)

    def _take_back(self, change: Change, event: Event) -> int | None:
        item, who = change.item, change.after.annotator
        self.n_done[who] -= 1
        if change.asked:
            self.asked.put(who, item, True)
        if change.after.beside:
            return self._withdraw(change, event)
        if self._latest[item] > change.at:
            later = next((p for p, c in enumerate(self.done) if _later(c, change) and not c.after.beside), None)
            if later is not None:  # somebody has answered since: theirs stands, on other ground
                self.done[later] = self.done[later]._replace(before=change.before)
                return None
        return self._restore(item, change.before, event)

    def _withdraw(self, change: Change, event: Event) -> int | None:
        """Take back an answer that was given beside another's, wherever it is by now."""
        item, who = change.item, change.after.annotator
        own = self.opinions.get(item, {})
        if who in own and own[who].seq != change.after.seq:  # they have said something else since
            later = next(p for p, c in enumerate(self.done) if _later(c, change) and c.after.annotator == who)
            self.done[later] = self.done[later]._replace(before=change.before)
            return None
        if self._latest.get(item, 0) > change.at:  # somebody may have replaced it where it stood
            for place, one in enumerate(self.done):
                before = one.before if _later(one, change) and not one.after.beside else None
                if before is not None and before.beside and before.annotator == who:
                    self.done[place] = one._replace(before=change.before)
        if change.before is None:
            own.pop(who, None)
        else:
            own[who] = change.before
        if not own:
            self.opinions.pop(item, None)
        stands = self.answers.get(item)
        if stands is None or stands.annotator != who or not stands.beside:
            return None
        return self._restore(item, own.get(who), event)

    def _put_back(self, change: Change, event: Event) -> int | None:
        item, who = change.item, change.after.annotator
        self.n_done[who] += 1
        self.asked.put(who, item, False)
        stands = self.answers.get(item)
        beside = (change.asked or change.after.beside) and _is_others(stands, who)
        if beside and stands is not None and stands.beside:  # it stands because others were taken back: this one too?
            beside = self.opinions[item][stands.annotator].seq < change.seq
        before, after = self.said(item, who) if beside else stands, change.after._replace(beside=beside)
        self.done.append(change._replace(before=before, after=after, at=event.seq))
        if beside:
            return self._say(item, after, event)
        self._latest[item] = event.seq
        return self._restore(item, after, event)

    def _restore(self, item: int, answer: Answer | None, event: Event) -> int:
        """Let an answer stand again; where there is none, the earliest that was given beside it."""
        if answer is None:
            answer = next(iter(self.opinions.get(item, {}).values()), None)
        now = self.answers.get(item)
        if answer is not None and (now is None or now.value != answer.value):
            answer = answer._replace(seq=event.seq)  # what a model that learned in between has not seen
        self._put(item, answer)
        return item

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
        self.opinions = {
            item: {who: said(answer) for who, answer in told.items()} for item, told in self.opinions.items()
        }
        self.repeated = {
            who: {item: named(value) for item, value in told.items()} for who, told in self.repeated.items()
        }
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


def _is_others(answer: Answer | None, who: str) -> bool:
    """Whether it is the answer of another person; what came with the data is nobody's."""
    return answer is not None and answer.annotator not in (who, *NOBODY)


def _later(change: Change, other: Change) -> bool:
    return change.item == other.item and change.at > other.at


def _group(stack: Sequence[Change], last: Change | None) -> list[Change]:
    """The last change and all that one gesture made with it, last first."""
    if last is None or last.group is None:
        return [] if last is None else [last]
    annotator = last.after.annotator
    return [c for c in reversed(stack) if c.group == last.group and c.after.annotator == annotator]

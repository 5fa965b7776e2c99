"""A journal and what it amounts to, in step with a dataset."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from typing import Any

from baal_widgets.claims import Asker, open_items
from baal_widgets.jobs import Job
from baal_widgets.journal import Draft, Event, Journal, JournalMovedError, State
from baal_widgets.learning import Learner
from baal_widgets.register import Register
from baal_widgets.sources import Source
from baal_widgets.vocabulary import Vocabulary

ABOUT_CONTENT = ("label", "skip", "repeat", "flag", "note")  # the facts that say of which content they are


class Book:
    """What all parts of a session share: every change is a fact in the journal first, then folded."""

    annotator: str
    multi_label: bool
    overlap: int
    claim_minutes: float
    _journal: Journal
    _state: State
    _source: Source
    _register: Register
    _learner: Learner
    _job: Job[Any] | None
    _lock: threading.RLock
    _moments: int
    _closed: bool

    @property
    def classes(self) -> list[str]:
        """The names of the classes as they are now. One that is added comes last, so an index stays what it was until
        a class before it is merged into another."""
        return list(self._state.classes)

    @property
    def _index_of(self) -> Mapping[str, int]:
        return self._register.index_of

    def _is_written(self, op_id: str | None) -> bool:
        return op_id is not None and not self._closed and self._journal.holds(op_id)

    def _signed(self, op_id: str | None) -> dict[str, Any]:
        """What every fact of a person carries."""
        return {"annotator": self.annotator, "round": self._state.round, "op_id": op_id or uuid.uuid4().hex}

    def _fit_learner(self, n_classes: int | None = None) -> None:
        """Give the model an output for each class, where some were added, and tell it which are one by now."""
        words = self._words()
        wanted = len(words.outputs) if n_classes is None else n_classes
        self._learner.merged = {n: words.numbers[name] for n, name in self._state.merged.items()}
        if self._learner.n_classes < wanted:
            self._learner.set_classes(wanted)

    def _words(self) -> Vocabulary:
        return Vocabulary(self._state.classes, self.multi_label, self._state.merged)

    def _places(self) -> list[int]:
        """By output of the model: the index of the class that it stands for now."""
        with self._lock:
            return self._words().places()

    def _value(self, label: Any) -> str:
        """A label as the journal writes it, once it is known to be one."""
        try:
            return self._words().written(label)
        except ValueError:
            if not self._catch_up():  # else another process may have added the class
                raise
            return self._words().written(label)

    def _draft(
        self,
        kind: str,
        item: int,
        value: str | None,
        op_id: str | None,
        *,
        annotator: str | None = None,
        round_: int | None = None,
        payload: Mapping[str, Any] | None = None,
    ) -> Draft:
        query = self._state.asked.of(self.annotator) if round_ is None else None
        asked = dict(zip(query.items, query.scores, strict=True)) if query is not None else {}
        return Draft(
            kind,
            item=item,
            key=self._register.keys[item],
            value=value,
            annotator=annotator or self.annotator,
            round=self._state.round if round_ is None else round_,
            score=asked.get(item),
            payload={**(payload or {}), **(self._register.told(item) if kind in ABOUT_CONTENT else {})},
            op_id=op_id or uuid.uuid4().hex,
        )

    def _write(self, *drafts: Draft, after: int | None = None) -> list[Event]:
        """Append to the journal, then fold what it holds that is new, whoever wrote it; the new facts."""
        with self._lock:
            self._check_open()
            self._journal.append(*drafts, after=after)
            self._moments, held = 0, self._moments
            try:
                return self._catch_up()
            finally:
                self._moments = held

    def _write_next(self, *drafts: Draft) -> bool:
        """Write what was made of the present state, if nothing has come after it; else take that in."""
        try:
            self._write(*drafts, after=self._state.seq)
        except JournalMovedError:
            self._moments, held = 0, self._moments
            try:
                self._catch_up()
            finally:
                self._moments = held
            return False
        return True

    def _asker(self) -> Asker:
        return Asker(self.annotator, self.overlap, self.claim_minutes)

    def _clock(self) -> float:
        """The time by which claims lapse; no matter where nobody else has any."""
        asked = self._state.asked
        return asked.clock if asked.by.keys() <= {self.annotator} else asked.clock_at(self._journal.now())

    def _open_items(self) -> tuple[int, ...]:
        """The items of the query that still wait for an answer of this annotator."""
        return open_items(self._state, self._asker(), self._clock())

    def _catch_up(self) -> list[Event]:
        """Fold the facts that this or another process has written since."""
        if self._closed or self._moments:
            return []
        fresh, n_outputs = self._journal.events(after=self._state.seq), len(self._state.outputs)
        merged = set(self._state.merged)
        changed = {self._state.apply(event, self._index_of) for event in fresh} - {None}
        answers = {item: self._state.answers.get(item) for item in changed if item is not None}
        # their rows have become longer, or a class stands for two
        if (self.multi_label and len(self._state.outputs) > n_outputs) or self._state.merged.keys() != merged:
            answers |= self._state.answers
        if answers:
            self._source.put({**dict.fromkeys(answers), **self._words().targets(answers)}, self._state.round + 1)
        return fresh

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("This session is closed. LabellingSession.open(...) goes on where it ended.")

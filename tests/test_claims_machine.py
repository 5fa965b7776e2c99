"""Two people ask, answer, take back, leave and come back in any order and at any time, against a plain model of it."""

import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from torch import nn
from torch.utils.data import TensorDataset

from baal_widgets.journal import Journal, fold, resume
from baal_widgets.session import LabellingSession

ITEMS, SIZE, CLAIM = 12, 3, 10.0
CLASSES = ["cat", "dog"]
OTHER = {"ann": "bob", "bob": "ann"}

person = st.sampled_from(sorted(OTHER))


class Asking(RuleBasedStateMachine):
    """`words` are what each person says of an item, `line` who spoke first of it: a place is kept for whoever takes
    theirs back until somebody answers meanwhile. `heard` is when somebody was last heard of, by a clock that counts
    forward from fact to fact; `query` what each person was asked last, with its number."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "labels.db"
        self.minutes, self.last, self.clock, self.number = 0.0, 0.0, 0.0, 0
        self.words = {who: {} for who in OTHER}
        self.done, self.undone = {who: [] for who in OTHER}, {who: [] for who in OTHER}
        self.line = {item: [] for item in range(ITEMS)}
        self.heard, self.query, self.page = {}, {}, dict.fromkeys(OTHER, ())

    def open(self, who):
        model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(), nn.Linear(4, 2))
        session = LabellingSession(
            TensorDataset(torch.zeros(ITEMS, 2)), model, CLASSES, journal=self.path, annotator=who, query_size=SIZE
        )
        session._journal.clock = lambda: datetime(2030, 1, 1, tzinfo=UTC) + timedelta(minutes=self.minutes)
        return session

    @initialize()
    def begin(self):
        self.sessions = {who: self.open(who) for who in sorted(OTHER)}

    def teardown(self):
        for session in getattr(self, "sessions", {}).values():
            session.close()
        shutil.rmtree(self.folder)

    # the model

    def fact(self, who):
        self.clock += max(0.0, self.minutes - self.last)
        self.last = self.minutes
        self.heard[who] = self.clock

    def is_live(self, who):
        now = self.clock + max(0.0, self.minutes - self.last)
        return who in self.heard and now - self.heard[who] < CLAIM - 1e-6

    def claims(self, who, since=0):
        """What somebody was asked after that query and holds still."""
        number, items = self.query.get(who, (0, ()))
        live = number > since and self.is_live(who)
        return {item for item in items if item not in self.words[who]} if live else set()

    def waiting(self, who):
        number, items = self.query.get(who, (0, ()))
        taken = self.claims(OTHER[who], since=number)
        return [item for item in items if not self.spoken(item) and item not in taken]

    def spoken(self, item):
        return [who for who in self.line[item] if item in self.words[who]]

    def speak(self, who, item, again=False):
        """Somebody answers, or gives again what they took back; a place that nobody fills by then is lost."""
        self.line[item] = [one for one in self.line[item] if item in self.words[one] or (again and one == who)]
        if who not in self.line[item]:
            self.line[item].append(who)

    # what people do

    @rule(who=person)
    def ask(self, who):
        waiting, before = self.waiting(who), self.query.get(who)
        held = self.claims(OTHER[who])
        free = [item for item in range(ITEMS) if not self.spoken(item) and item not in held]
        items = self.sessions[who].ask().items
        if waiting:
            assert [item for item in items if item in waiting] == waiting
            assert set(items) <= set(before[1])
        elif free or before is None or before[1]:
            assert len(items) == min(SIZE, len(free))
            assert set(items) <= set(free)
            self.number += 1
            self.query[who] = self.number, items
            self.fact(who)
        else:
            assert items == ()
        self.page[who] = tuple(dict.fromkeys([*self.page[who], *items]))  # a page may be old

    @rule(who=person, place=st.integers(0, ITEMS), value=st.integers(0, 1))
    def answer(self, who, place, value):
        page = [item for item in self.page[who] if item not in self.words[who]]
        if not page:
            return
        item = page[place % len(page)]
        self.sessions[who].label(item, value)
        self.speak(who, item)
        self.words[who][item] = CLASSES[value]
        self.done[who].append((item, CLASSES[value]))
        self.undone[who].clear()
        self.fact(who)

    @rule(who=person)
    def undo(self, who):
        item = self.sessions[who].undo()
        assert (item is None) == (not self.done[who])
        if item is not None:
            told = self.done[who].pop()
            assert told[0] == item
            del self.words[who][item]
            self.undone[who].append(told)
            self.fact(who)

    @rule(who=person)
    def redo(self, who):
        item = self.sessions[who].redo()
        assert (item is None) == (not self.undone[who])
        if item is not None:
            told = self.undone[who].pop()
            assert told[0] == item
            self.speak(who, item, again=True)
            self.words[who][item] = told[1]
            self.done[who].append(told)
            self.fact(who)

    @rule(who=person)
    def release(self, who):
        self.sessions[who].release()
        self.query.pop(who, None)
        self.fact(who)

    @rule(who=person)
    def take_over(self, who):
        if OTHER[who] in self.heard:
            self.sessions[who].take_over(OTHER[who])
            self.query.pop(OTHER[who], None)
            self.fact(who)

    @rule(minutes=st.sampled_from([1.0, 4.0, 11.0, -30.0, 2000.0]))
    def wait_or_set_the_clock(self, minutes):
        self.minutes += minutes

    @rule(who=person)
    def start_anew(self, who):
        self.sessions[who].close()
        self.sessions[who] = self.open(who)
        self.page[who] = ()

    @invariant()
    def the_first_who_spoke_stands_and_nobody_is_forgotten(self):
        if hasattr(self, "sessions"):
            stand = {item: self.words[self.spoken(item)[0]][item] for item in range(ITEMS) if self.spoken(item)}
            said = {
                item: {who: self.words[who][item] for who in self.spoken(item)} for item in self.line if item in stand
            }
            for who, session in self.sessions.items():
                assert session.labels == stand
                assert session.ratings() == said
                assert session.answers(range(ITEMS)) == {
                    item: CLASSES.index(self.words[who].get(item, label)) for item, label in stand.items()
                }

    @invariant()
    def who_holds_what_is_told(self):
        if hasattr(self, "sessions"):
            for who, told in self.sessions["ann"].people.items():
                assert told["active"] == self.is_live(who)
                assert told["n_claimed"] == (len(self.waiting(who)) if self.is_live(who) else 0)

    @invariant()
    def the_journal_is_sound_and_folds_to_the_same(self):
        if hasattr(self, "sessions"):
            journal = Journal(self.path)
            state = fold(journal.events(), self.sessions["ann"]._index_of)
            assert journal.verify() == state.seq
            assert state == resume(journal, self.sessions["ann"]._index_of) == self.sessions["ann"]._state
            journal.close()


Asking.TestCase.settings = settings(
    max_examples=20,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
TestAsking = pytest.mark.slow(Asking.TestCase)

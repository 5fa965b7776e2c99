"""All that people do to a session, in any order, with restarts and a second person, against a plain model of it."""

import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import nn
from torch.utils.data import TensorDataset

from baal_widgets.journal import Journal, fold
from baal_widgets.session import LabellingSession

MINE, THEIRS = range(8), range(8, 12)  # so that it is plain what an undo of either must give
POOL = TensorDataset(torch.zeros(12, 2))

mine = st.sampled_from(MINE)
answers = st.integers(0, 1) | st.sampled_from(["skip", "unsure"])


class Person:
    """One person's answers, `{item: class index or reason}`, with what can be taken back and given again."""

    def __init__(self):
        self.answers, self.done, self.undone = {}, [], []

    def answer(self, told):
        self.done.append(dict(self.answers))
        self.undone.clear()
        self.answers |= told

    def step(self, source, goal):
        if source:
            goal.append(dict(self.answers))
            self.answers = source.pop()


class Labelling(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "labels.db"
        self.me, self.you = Person(), Person()
        self.classes, self.flags, self.notes, self.count = ["cat", "dog"], set(), {}, 0
        self.last = None

    def open(self, annotator):
        model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(), nn.Linear(4, len(self.classes)))
        return LabellingSession(POOL, model, self.classes, journal=self.path, annotator=annotator, query_size=4)

    @initialize()
    def begin(self):
        self.session, self.other = self.open("me"), self.open("you")

    def teardown(self):
        if hasattr(self, "session"):
            self.session.close()
            self.other.close()
        shutil.rmtree(self.folder)

    def give(self, session, item, value, op_id=None, group=None):
        if value in ("skip", "unsure"):
            session.skip(item, why=value, op_id=op_id, group=group)
        else:
            session.label(item, value, op_id=op_id, group=group)

    @rule(item=mine, value=answers)
    def answer(self, item, value):
        self.count += 1
        self.give(self.session, item, value, op_id=f"op-{self.count}")
        self.me.answer({item: value})
        self.last = item, value, f"op-{self.count}"

    @rule(items=st.sets(mine, min_size=2), value=answers)
    def answer_several_in_one_gesture(self, items, value):
        self.count += 1
        for item in sorted(items):
            self.give(self.session, item, value, group=f"group-{self.count}")
        self.me.answer(dict.fromkeys(items, value))

    @precondition(lambda self: self.last)
    @rule()
    def say_the_last_once_more(self):
        item, value, op_id = self.last  # a message that came twice
        self.give(self.session, item, value, op_id=op_id)

    @rule(item=st.sampled_from(THEIRS), value=answers)
    def let_the_other_answer(self, item, value):
        self.give(self.other, item, value)
        self.you.answer({item: value})

    @rule()
    def undo(self):
        self.session.undo()
        self.me.step(self.me.done, self.me.undone)

    @rule()
    def redo(self):
        self.session.redo()
        self.me.step(self.me.undone, self.me.done)

    @rule()
    def let_the_other_undo(self):
        self.other.undo()
        self.you.step(self.you.done, self.you.undone)

    @rule(n=st.integers(1, 10))
    def undo_n_times_and_come_back(self, n):
        n = min(n, len(self.me.done))
        now = self.told()
        for _ in range(n):
            self.session.undo()
        before = self.me.done[-n] if n else self.me.answers
        assert self.told()[0] == self.named(before | self.you.answers)
        for _ in range(n):
            self.session.redo()
        assert self.told() == now
        if n:
            self.last = None

    @rule(item=mine, on=st.booleans())
    def flag(self, item, on):
        self.session.flag(item, on)
        (self.flags.add if on else self.flags.discard)(item)

    @rule(item=mine, text=st.sampled_from(["", "blurred", "'; DROP TABLE events; --", "ü😀\n"]))
    def note(self, item, text):
        self.session.note(item, text)
        self.notes.pop(item, None)
        self.notes |= {item: text} if text else {}

    @precondition(lambda self: len(self.classes) < 4)
    @rule()
    def add_class(self):
        self.count += 1
        self.classes.append(f"class {self.count}")
        self.other.add_class(self.classes[-1])

    @rule(which=st.integers(0, 1))
    def rename_class(self, which):
        self.count += 1
        new = f"name {self.count}"
        self.session.rename_class(self.classes[which], new)
        self.classes[which] = new

    @precondition(lambda self: len(self.classes) > 2)
    @rule(which=st.integers(0, 3), into=st.integers(0, 3))
    def merge_classes(self, which, into):
        old, kept = self.classes[which % len(self.classes)], self.classes[into % len(self.classes)]
        if old == kept:
            return
        self.other.merge_classes(old, kept)
        place, goal = self.classes.index(old), self.classes.index(kept)
        self.classes.remove(old)

        def now(value):
            if not isinstance(value, int):
                return value
            value = goal if value == place else value
            return value - (value > place)

        for person in (self.me, self.you):
            person.answers = {item: now(value) for item, value in person.answers.items()}
            for past in (*person.done, *person.undone):
                past.update({item: now(value) for item, value in past.items()})
        self.last = None

    @rule()
    def start_anew(self):
        self.session.close()
        self.session = self.open("me")

    def named(self, answers):
        return {item: self.classes[value] if isinstance(value, int) else value for item, value in answers.items()}

    def told(self):
        """What the session says: every answer by name or reason, flags and notes."""
        session = self.session
        reasons = {item: "unsure" if item in session.unsure else "skip" for item in session.skipped}
        return {**session.labels, **reasons}, session.flagged, session.notes

    @invariant()
    def the_session_says_what_was_said(self):
        if hasattr(self, "session"):
            assert self.told() == (self.named(self.me.answers | self.you.answers), self.flags, self.notes)
            assert self.session.classes == self.classes

    @invariant()
    def the_journal_is_sound_and_folds_to_the_same(self):
        if hasattr(self, "session"):
            journal = Journal(self.path)
            state = fold(journal.events())
            assert journal.verify() == state.seq
            journal.close()
            assert state.labels == self.session.labels


Labelling.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
TestLabelling = pytest.mark.slow(Labelling.TestCase)

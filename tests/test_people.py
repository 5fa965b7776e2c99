"""Several people on one journal: what each of them says, and where they do not agree."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from torch import nn
from torch.utils.data import TensorDataset

from baal_widgets import LabellingSession
from baal_widgets.consensus import dawid_skene, majority_vote
from baal_widgets.journal import fold
from baal_widgets.metrics import cohen_kappa, krippendorff_alpha

CLASSES = ["cat", "dog", "bird"]


def open_session(path, annotator, **options):
    model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(), nn.Linear(4, len(CLASSES)))
    data = TensorDataset(torch.zeros(30, 2))
    return LabellingSession(data, model, CLASSES, journal=path, annotator=annotator, query_size=4, **options)


@pytest.fixture
def people(tmp_path):
    made = {name: open_session(tmp_path / "labels.db", name) for name in ("ann", "bob", "eve")}
    yield made
    for session in made.values():
        session.close()


def test_each_person_keeps_their_own_last_word(people):
    ann, bob, eve = people.values()
    ann.label(0, "cat")
    bob.label(0, "dog")  # what holds now
    eve.label(0, "bird")
    eve.undo()
    ann.label(1, "cat")
    ann.label(1, "dog")
    bob.skip(1)
    ann.label(2, "bird")
    bob.label(2, "bird")
    assert ann.ratings() == {0: {"ann": "cat", "bob": "dog"}, 1: {"ann": "dog"}, 2: {"ann": "bird", "bob": "bird"}}
    (contested,) = eve.disagreements()
    assert (contested.item, contested.said) == (0, {"ann": "cat", "bob": "dog"})
    assert ann.labels[0] == "dog"


def test_a_class_has_its_present_name_in_what_everybody_said(people):
    ann, bob, _ = people.values()
    ann.label(0, "cat")
    bob.rename_class("cat", "tiger")
    bob.label(0, "tiger")
    assert ann.ratings() == {0: {"ann": "tiger", "bob": "tiger"}}
    assert ann.disagreements() == []


def test_labels_that_came_with_the_data_and_undone_ones_are_nobodys(people):
    ann, bob, _ = people.values()
    ann.label(3, "cat", group="g")
    ann.label(4, "cat", group="g")
    ann.undo()
    assert bob.ratings() == {}
    ann.redo()
    assert bob.ratings() == {3: {"ann": "cat"}, 4: {"ann": "cat"}}


def test_what_they_say_goes_into_agreement_and_consensus(people):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 30)
    for session, skill in zip(people.values(), (0.95, 0.9, 0.3), strict=True):
        for item in range(30):
            session.label(item, int(truth[item] if rng.random() < skill else rng.integers(0, 3)))
    ratings = people["ann"].ratings()
    said = {name: [ratings[item][name] for item in range(30)] for name in people}
    assert cohen_kappa(ratings, ("ann", "bob")) == pytest.approx(cohen_kappa_score(said["ann"], said["bob"]))
    assert 0 < krippendorff_alpha(ratings) < 0.9
    right = {item: CLASSES[truth[item]] for item in range(30)}
    found = dawid_skene(ratings, CLASSES)
    votes = majority_vote(ratings)
    assert sum(found.labels[item] == right[item] for item in right) >= 27
    assert sum(found.labels[item] == right[item] for item in right) >= sum(votes[i].label == right[i] for i in right)
    contested = people["bob"].disagreements()
    assert {one.item for one in contested} == {item for item, told in ratings.items() if len(set(told.values())) > 1}


def test_with_several_labels_an_answer_is_one_rating(tmp_path):
    with open_session(tmp_path / "labels.db", "ann", multi_label=True) as session:
        session.label(0, ["dog", "cat"])
        session.label(1, [])
        assert session.ratings() == {0: {"ann": ("cat", "dog")}, 1: {"ann": ()}}


def test_of_two_who_begin_a_journal_at_once_the_first_one_does(tmp_path, monkeypatch):
    path, opening = tmp_path / "labels.db", LabellingSession._opening

    def opening_late(self):
        if self.annotator == "slow":
            with open_session(path, "fast") as fast:
                fast.add_class("cow")
                fast.label(0, "cow")
        return opening(self)

    monkeypatch.setattr(LabellingSession, "_opening", opening_late)
    with open_session(path, "slow") as slow, open_session(path, "fast") as fast:
        assert slow.labels == fast.labels == {0: "cow"}
        assert slow.store == fast.store


def test_a_closed_session_says_so(tmp_path):
    session = open_session(None, "ann")
    session.close()
    with pytest.raises(RuntimeError, match="closed"):
        session.ratings()


def settled(session):
    return {one.item: one.settled for one in session.disagreements()}


def test_a_second_look_settles_what_people_disagree_on_until_somebody_contradicts_it(people):
    ann, bob, eve = people.values()
    ann.label(0, "cat")
    bob.label(0, "dog")
    assert settled(ann) == {0: None}
    eve.review(0, "dog")
    assert settled(ann) == {0: "dog"}
    assert ann.disagreements(open_only=True) == []
    bob.label(0, "dog")  # of the same mind
    assert settled(ann) == {0: "dog"}
    ann.skip(0)  # who says nothing contradicts nothing
    ann.label(0, "bird")
    assert settled(bob) == {0: None}
    assert [one.said for one in bob.disagreements(open_only=True)] == [{"ann": "bird", "bob": "dog", "eve": "dog"}]
    bob.review(0, "bird")
    assert settled(bob) == {0: "bird"}
    bob.undo()
    assert settled(bob) == {0: None}
    bob.redo()
    eve.label(0, "bird")
    assert settled(bob) == {}


def test_a_settlement_that_is_kept_taken_back_or_changed_counts_as_it_is_now(people):
    ann, bob, eve = people.values()
    ann.label(0, "cat")
    bob.label(0, "dog")
    bob.review(0)  # keeps it, in sight of the other
    assert settled(ann) == {0: "dog"}
    assert ann.ratings() == ann.ratings(reviews=False) == {0: {"ann": "cat", "bob": "dog"}}
    eve.review(0, "cat")
    assert settled(ann) == {0: "cat"}
    eve.review(0, "bird")
    assert settled(ann) == {0: "bird"}
    assert ann.ratings(reviews=False) == {0: {"ann": "cat", "bob": "dog"}}
    bob.rename_class("bird", "crow")
    assert settled(ann) == {0: "crow"}
    eve.undo()
    eve.undo()
    assert settled(ann) == {0: "dog"}


def test_what_somebody_set_aside_can_be_settled_by_a_label_alone(people):
    ann, bob, eve = people.values()
    ann.label(0, "cat")
    bob.label(0, "dog")
    eve.skip(0)
    with pytest.raises(ValueError, match="no label to look at again"):
        eve.review(0)
    eve.review(0, "cat")
    assert (settled(ann), ann.labels) == ({0: "cat"}, {0: "cat"})
    eve.undo()
    assert (settled(ann), ann.skipped) == ({0: None}, {0})


moves = st.tuples(
    st.sampled_from(["ann", "bob"]),
    st.sampled_from(["label", "label", "skip", "review", "several", "undo", "redo", "rename"]),
    st.integers(0, 3),
    st.integers(0, 2),
)


@given(st.lists(moves, max_size=30))
@settings(max_examples=40, deadline=None)
def test_what_people_say_is_what_each_of_their_facts_alone_amount_to(steps):
    with open_session(None, "ann") as session:
        for count, (who, kind, item, value) in enumerate(steps):
            session.annotator = who
            match kind:
                case "skip":
                    session.skip(item)
                case "review" if item in session.labels:
                    session.review(item, value)
                case "several":
                    for one in {item, value}:
                        session.label(one, value, group=str(count))
                case "undo" | "redo":
                    getattr(session, kind)()
                case "rename":
                    session.rename_class(session.classes[value], f"name {count}")
                case _:
                    session.label(item, value)
        facts = session._journal.events()
        told = {}
        for person in ("ann", "bob"):
            own = fold(fact for fact in facts if fact.kind.startswith(("opened", "class")) or fact.annotator == person)
            for item, value in own.labels.items():
                told.setdefault(item, {})[person] = value
        assert session.ratings() == told
        assert {one.item for one in session.disagreements()} == {
            i for i, said in told.items() if len(set(said.values())) > 1
        }
        assert set(session.annotators) == {change.after.annotator for change in session._state.done}

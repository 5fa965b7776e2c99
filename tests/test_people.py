"""Several people on one journal: what each of them says, and where they do not agree."""

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score
from torch import nn
from torch.utils.data import TensorDataset

from baal_widgets import LabellingSession
from baal_widgets.consensus import dawid_skene, majority_vote
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

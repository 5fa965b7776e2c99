"""Whose question an item is: two people are never asked the same, and work that lies there goes to the next."""

from datetime import UTC, datetime, timedelta

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from baal_widgets import LabellingSession, Training
from baal_widgets.journal import Draft, Journal, fold

CLASSES = ["cat", "dog"]
QUICK = Training(min_steps=2, max_steps=2, window=1)


class Clock:
    """What time it is for everybody, in minutes from noon."""

    def __init__(self):
        self.minutes = 0.0

    def __call__(self):
        return datetime(2030, 1, 1, 12, tzinfo=UTC) + timedelta(minutes=self.minutes)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sit_down(tmp_path, clock):
    """Opens a session of somebody on the one journal."""
    opened = []

    def sit_down(name, n_items=40, **options):
        generator = torch.Generator().manual_seed(0)
        model = nn.Sequential(nn.Dropout(0.3), nn.Linear(4, 2))
        told = {"query_size": 4, "training": QUICK, "iterations": 2, "journal": tmp_path / "labels.db", **options}
        data = TensorDataset(torch.rand(n_items, 4, generator=generator))
        session = LabellingSession(data, model, CLASSES, annotator=name, **told)
        session._journal.clock = clock
        opened.append(session)
        return session

    yield sit_down
    for session in opened:
        session.close()


def answer_all(session, label="cat"):
    items = session._open_items()
    for item in items:
        session.label(item, label)
    return items


def test_two_people_are_asked_different_items_in_the_order_of_one_ranking(sit_down):
    ann, bob = sit_down("ann"), sit_down("bob")
    first, second = ann.ask(), bob.ask()
    assert not {*first.items, *first.ahead} & {*second.items, *second.ahead}
    assert ann.ask().items == first.items  # the same until answered, whoever asks meanwhile
    for _ in range(3):
        answer_all(ann)
        ann.ask()
    assert not set(ann.ask().items) & set(second.items)
    assert set(bob._open_items()) == set(second.items)
    assert not set(ann.upcoming()) & {*second.items, *second.ahead}


def test_what_one_has_ahead_is_asked_of_others_only_when_nothing_else_is_left(sit_down):
    ann, bob, eve = (sit_down(name, n_items=16) for name in ("ann", "bob", "eve"))
    first, second = ann.ask(), bob.ask()
    assert {*first.items, *first.ahead, *second.items, *second.ahead} == set(range(16))
    third = eve.ask()
    assert len(third.items) == 4
    assert set(third.items) <= {*first.ahead, *second.ahead}
    assert set(eve.upcoming()) == set()
    taken = set(third.items) & set(first.ahead)
    assert taken
    assert ann.ask().items == first.items
    assert not set(ann.upcoming()) & taken
    # ann's screen has turned to what was ahead of her before it could hear of that
    item = min(taken)
    eve.label(item, "dog")
    ann.label(item, "cat")
    assert eve.labels[item] == "dog"
    assert eve.ratings()[item] == {"ann": "cat", "eve": "dog"}


def test_a_pool_is_divided_to_its_end_and_nobody_is_asked_anything_twice(sit_down):
    people, said = [sit_down(name, n_items=42) for name in ("ann", "bob", "eve")], []
    while any(session.ask().items for session in people):
        for session in people:
            session.ask()
            said += answer_all(session)
    assert sorted(said) == list(range(42))
    assert [session.progress["n_pool"] for session in people] == [0, 0, 0]
    written = people[0]._journal.events()[-1].seq
    assert [session.ask().items for session in people] == [(), (), ()]
    assert people[0]._journal.events()[-1].seq == written  # that nothing is left is written once


def test_claims_lapse_after_a_time_without_any_fact_of_their_owner(sit_down, clock):
    ann, bob = sit_down("ann", n_items=8), sit_down("bob", n_items=8)
    first = ann.ask().items
    assert len(bob.ask().items) == 4
    answer_all(bob)
    clock.minutes = 9.9
    assert bob.ask().items == ()
    ann.flag(0)  # anything that she does renews them
    clock.minutes = 19.8
    assert bob.ask().items == ()
    clock.minutes = 19.91
    assert set(bob.ask().items) == set(first)
    assert bob.people["bob"]["n_claimed"] == 4
    assert ann.ask().items == ()  # hers no longer: bob was asked since


def test_who_comes_back_goes_on_with_what_nobody_has_taken(sit_down, clock):
    ann, bob = sit_down("ann", n_items=8), sit_down("bob", n_items=8, query_size=2)
    first = ann.ask().items
    clock.minutes = 60
    assert ann.ask().items == first
    taken = set(bob.ask().items) & set(first)
    assert taken
    assert ann.ask().items == ann._open_items() == tuple(item for item in first if item not in taken)


@pytest.mark.parametrize("way", ["lapse", "take over", "release"])
def test_a_late_answer_replaces_nothing_and_is_kept(sit_down, clock, way):
    ann, bob = sit_down("ann", n_items=4), sit_down("bob", n_items=4)
    first = ann.ask().items
    ann.label(first[0], "cat")
    if way == "lapse":
        clock.minutes = 11
    elif way == "take over":
        bob.take_over("ann")
    else:
        ann.release()
    assert bob.ask().items == first[1:]
    answer_all(bob, "dog")
    for item in first[1:]:
        ann.label(item, "cat")
    assert ann.labels == bob.labels == {first[0]: "cat", **dict.fromkeys(first[1:], "dog")}
    assert {told.item for told in ann.disagreements()} == set(first[1:])
    assert ann.answers(first) == dict.fromkeys(first, 0)  # her screen shows what she has said
    assert [item for item, _ in ann.recent(9)] == [*reversed(first[1:]), first[0]]
    ann.label(first[1], "dog")  # she changes her opinion: still no more than that
    assert ann.labels[first[1]] == "dog"
    assert len(bob.disagreements()) == 2
    for _ in range(4):
        ann.undo()
    assert ann.disagreements() == []
    assert ann.answers(first) == {first[0]: 0, **dict.fromkeys(first[1:], 1)}
    ann.redo()
    assert ann.answers(first[1:2]) == {first[1]: 0}
    assert ann.labels[first[1]] == "dog"


def test_an_opinion_stands_once_the_answer_it_stood_beside_is_taken_back(sit_down):
    ann, bob = sit_down("ann", n_items=4), sit_down("bob", n_items=4)
    first = ann.ask().items
    bob.take_over("ann")
    bob.ask()
    bob.label(first[0], "dog")
    ann.label(first[0], "cat")
    bob.undo()
    assert bob.labels == {first[0]: "cat"}
    bob.redo()
    assert bob.labels == {first[0]: "dog"}
    bob.undo()
    ann.undo()
    assert ann.labels == {}
    assert first[0] in bob.ask().items
    assert first[0] in bob._open_items()
    ann.label(first[0], "cat")
    bob.redo()  # it was taken back when ann answered: late by now
    assert bob.labels == {first[0]: "cat"}


def test_a_decision_replaces_what_somebody_else_has_said(sit_down):
    ann, bob = sit_down("ann"), sit_down("bob")
    first = ann.ask().items
    ann.label(first[0], "cat")
    bob.label(first[0], "dog")  # never asked of him: he has looked for it
    assert ann.labels[first[0]] == "dog"
    bob.take_over("ann")
    bob.ask()
    bob.label(first[1], "cat")
    ann.review(first[1], "dog")
    assert bob.labels[first[1]] == "dog"


def test_with_overlap_every_item_is_answered_by_that_many_people(sit_down):
    people = [sit_down(name, n_items=20, overlap=2) for name in ("ann", "bob", "eve")]
    assert people[0].ask().items == people[1].ask().items
    assert not set(people[2].ask().items) & set(people[0].ask().items)
    item = people[0].ask().items[0]
    people[0].label(item, "cat")
    assert people[0].answers([item]) == {item: 0}
    assert people[1].answers([item]) == {}  # it waits for bob's own, which hers must not sway
    for _ in range(20):
        for session, label in zip(people, ("cat", "dog", "cat"), strict=True):
            session.ask()
            answer_all(session, label)
    ratings = people[0].ratings()
    assert set(ratings) == set(range(20))
    assert {len(said) for said in ratings.values()} == {2}
    assert all(session.ask().items == () for session in people)
    events = people[0]._journal.events()
    first = {}
    for event in events:
        if event.kind == "label":
            first.setdefault(event.item, event.value)
    assert people[0].labels == first  # what was said second is an opinion


def test_labels_that_came_with_the_data_need_no_second_opinion(sit_down):
    ann = sit_down("ann", overlap=2)
    ann.simulate([0, 1] * 20, rounds=2)
    labelled = set(ann.labels)
    assert len(labelled) == 8
    bob = sit_down("bob", overlap=2)
    assert not set(bob.ask().items) & labelled
    item = min(labelled)
    ann.label(item, "dog")  # a person corrects what no person has said
    assert ann.labels[item] == "dog"


def test_a_lesson_asks_anew_whoever_ran_it_and_leaves_others_what_they_hold(sit_down):
    ann, bob = sit_down("ann"), sit_down("bob")
    ann.ask()
    theirs = bob.ask()
    answer_all(ann)
    round_ = ann.learn()
    assert not set(round_.query.items) & set(theirs.items)
    assert ann.ask() == round_.query
    assert bob.ask().items == theirs.items
    answer_all(bob)
    assert bob.ask().round == 1  # and goes on with the new ranking
    assert not set(bob.ask().items) & set(ann.ask().items)
    assert all(score is not None for score in bob.ask().scores)


def test_work_of_somebody_who_left_comes_first_and_in_its_order(sit_down):
    ann, bob = sit_down("ann"), sit_down("bob")
    ann.ask()
    answer_all(ann)
    left = ann.learn().query.items
    bob.ask()
    answer_all(bob)
    bob.take_over("ann")
    assert bob.ask().items == left


def test_people_are_told_with_what_they_did_and_hold(sit_down, clock):
    ann, bob = sit_down("ann"), sit_down("bob")
    ann.ask()
    for item in ann._open_items()[:3]:
        clock.minutes += 0.05
        ann.label(item, "cat")
    clock.minutes = 8
    bob.ask()
    bob.skip(bob._open_items()[0])
    told = ann.people
    assert list(told) == ["ann", "bob"]
    assert (told["ann"]["n_labelled"], told["ann"]["n_claimed"], told["ann"]["active"]) == (3, 1, True)
    assert (told["bob"]["n_labelled"], told["bob"]["n_claimed"]) == (0, 3)
    assert told["ann"]["last_seen"] == "2030-01-01T12:00:09.000000+00:00"
    clock.minutes = 12
    told = bob.people
    assert (told["ann"]["active"], told["ann"]["n_claimed"]) == (False, 0)
    assert (told["bob"]["active"], told["bob"]["n_claimed"]) == (True, 3)


def test_taking_over_from_nobody_writes_nothing_and_says_who_there_is(sit_down):
    ann = sit_down("ann")
    before = ann._journal.events()
    with pytest.raises(ValueError, match="'bob'.*ann"):
        ann.take_over("bob")
    assert ann._journal.events() == before


def test_closing_keeps_a_claim_and_opening_goes_on_with_it(sit_down):
    ann, bob = sit_down("ann"), sit_down("bob")
    first = ann.ask()
    ann.label(first.items[0], "cat")
    ann.close()
    assert not set(bob.ask().items) & set(first.items)
    again = sit_down("ann")
    assert again.ask().items == first.items
    assert again._open_items() == first.items[1:]


def test_a_clock_that_jumps_gives_work_out_early_at_most(sit_down, clock):
    ann, bob, eve = (sit_down(name, n_items=12) for name in ("ann", "bob", "eve"))
    first, second = ann.ask().items, bob.ask().items
    clock.minutes = -24 * 60
    assert eve.ask().items
    ann.label(first[0], "cat")
    assert bob.ask().items == second
    clock.minutes = 24 * 60
    ann.label(first[1], "cat")  # everybody else's claims lapse at this
    answer_all(eve)
    assert ann.people["ann"]["n_claimed"] == 2
    assert eve.people["bob"]["n_claimed"] == 0
    clock.minutes = 1  # back: what has lapsed stays so, what is held does not live for a day
    assert set(eve.ask().items) == set(second)
    assert bob.ask().items == ()
    clock.minutes = 5
    eve.flag(0)
    assert ann.people["ann"]["n_claimed"] == 2
    clock.minutes = 11.5
    assert eve.people["ann"]["n_claimed"] == 0
    assert eve.labels == bob.labels
    ann._journal.verify()


def test_a_journal_whose_queries_were_everybodys_opens_and_goes_on(sit_down, tmp_path):
    journal = Journal(tmp_path / "labels.db")
    settings = {"classes": CLASSES, "heuristic": "bald", "query_size": 4, "seed": 0, "n_items": 40}
    asked = {"items": [3, 1], "keys": ["3", "1"], "scores": [0.5, 0.25], "number": 7}
    reserve = {"reserve_items": [5, 6], "reserve_keys": ["5", "6"], "reserve_scores": [0.2, 0.1]}
    journal.append(
        Draft("opened", annotator="ann", payload=settings),
        Draft("asked", annotator="model", payload={**asked, **reserve}),
        Draft("label", item=3, key="3", value="cat", annotator="ann"),
        Draft("label", item=3, key="3", value="dog", annotator="bob"),
    )
    journal.close()
    ann, bob = sit_down("ann"), sit_down("bob")
    assert ann.labels == {3: "dog"}  # replaced, as it was then
    assert ann.ask().items == bob.ask().items == (3, 1)
    assert ann.upcoming() == (5, 6)
    ann.label(1, "cat")
    first = ann.ask()
    assert (first.number, first.items[:2]) == (8, (5, 6))
    assert not set(bob.ask().items) & set(first.items)
    state = fold(ann._journal.events())
    assert [event.payload.get("for") for event in ann._journal.events(kinds=["asked"])] == [None, "ann", "bob"]
    assert state.asked.of("eve") == state.asked.by[""]


@pytest.mark.parametrize("told", [{"overlap": 0}, {"overlap": 1.5}, {"claim_minutes": 0}, {"claim_minutes": "long"}])
def test_rules_for_several_people_are_checked(sit_down, told):
    with pytest.raises(ValueError, match=next(iter(told))):
        sit_down("ann", **told)


def test_the_rules_are_those_that_the_journal_was_begun_with(sit_down, tmp_path):
    sit_down("ann", overlap=3, claim_minutes=2.5).close()
    data = TensorDataset(torch.rand(40, 4))
    with LabellingSession.open(tmp_path / "labels.db", data, nn.Sequential(nn.Dropout(), nn.Linear(4, 2))) as again:
        assert (again.overlap, again.claim_minutes) == (3, 2.5)

import contextlib
import random
import sqlite3
from dataclasses import fields

import pytest
import torch
from sqlalchemy.exc import OperationalError
from torch import nn
from torch.utils.data import TensorDataset

from baal_widgets import LabellingSession
from baal_widgets.journal import Draft, Journal, State, checkpoint, fold, resume

ITEMS = 30
INDEX = {f"{item}.png": item for item in range(ITEMS)}


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 1)
    monkeypatch.setattr(checkpoint, "CHUNK", 7)


def drafts(n, seed=0):
    """Facts of every kind, by two people."""
    rng = random.Random(seed)
    yield Draft("opened", payload={"classes": ["cat", "dog"]})
    for place in range(n):
        item = rng.randrange(ITEMS)
        told = {"item": item, "key": f"{item}.png", "annotator": rng.choice(["me", "you"])}
        kind = rng.choices(
            [
                *("label", "skip", "undo", "redo", "flag", "note", "repeat", "asked", "released", "measured"),
                *("rename", "merge"),
            ],
            [40, 5, 12, 6, 2, 2, 3, 5, 1, 2, 1, 1],
        )[0]
        if kind in ("undo", "redo"):
            yield Draft(kind, payload={"target": rng.randrange(1, place + 2)}, **told)
        elif kind == "asked":
            payload = {"number": place, "repeats": [3], "repeat_keys": ["3.png"]}
            for part in ("", "reserve_", "held_"):
                items = rng.sample(range(ITEMS), 6)
                keys, scores = [f"{item}.png" for item in items], [rng.choice([0.5, None]) for _ in items]
                payload |= {f"{part}items": items, f"{part}keys": keys, f"{part}scores": scores}
            whose = rng.choice([{"for": "me"}, {"for": "you"}, {"repeats_for": "me"}])  # the last as it once was
            yield Draft(kind, annotator="model", payload={**payload, **whose})
        elif kind == "released":
            yield Draft(kind, payload={"of": rng.choice(["me", "you"])}, annotator="me")
        elif kind == "measured":
            yield Draft(kind, payload={"round": place, "seq": rng.randrange(place + 1), "loss": 0.25})
            if place % 2:
                yield Draft("said", payload={"keys": ["1.png", "2.png"], "said": [[0], [place]]})
        elif kind == "rename":
            yield Draft("class_added", value=f"class {place}")
            yield Draft("class_renamed", payload={"old": f"class {place}", "new": f"name {place}"})
        elif kind == "merge":
            yield Draft("class_added", value=f"class {place}")
            yield Draft("label", value=f"class {place}", **told)
            yield Draft("class_merged", payload={"old": f"class {place}", "into": rng.choice(["cat", "dog"])})
        else:
            payload = rng.choice([{}, {"group": f"g{place // 4}"}, {"why": "unsure"}, {"review": "kept"}])
            value = None if kind == "skip" else rng.choice(["cat", "dog"])
            yield Draft(kind, value=value, payload=payload if kind in ("label", "skip") else {}, **told)


def test_the_facts_hold_opinions_and_claims():
    journal = Journal()
    journal.append(*drafts(500, 100))
    state = fold(journal.events(), INDEX)
    assert state.opinions
    assert state.asked.waiting
    assert any(change.after.beside and change.before for change in state.done)
    journal.close()


def same(one, other):
    for field in fields(State):
        assert getattr(one, field.name) == getattr(other, field.name), field.name


@pytest.mark.parametrize("seed", range(20))
def test_a_state_resumed_is_the_state_folded(tmp_path, seed):
    check_resumed(tmp_path / "labels.db", seed)


def test_a_state_is_resumed_from_any_place(place):
    check_resumed(place, 100)


def check_resumed(path, seed):
    told = list(drafts(150, seed))
    for start in (0, 60, 120):
        journal = Journal(path)
        journal.append(*told[start : start + 60])
        same(resume(journal, INDEX), fold(journal.events(), INDEX))
        journal.close()
    journal = Journal(path)
    state, whole = resume(journal, INDEX), fold(journal.events(), INDEX)
    for event in journal.append(*[Draft("undo", payload={"target": seq}) for seq in range(180, 1, -1)]):
        state.apply(event, INDEX)
        whole.apply(event, INDEX)
        assert state.next_to_undo("me") == whole.next_to_undo("me")
    same(state, whole)


def test_only_what_came_after_a_checkpoint_is_read(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "labels.db")
    journal.append(*drafts(100))
    seq = resume(journal, INDEX).seq
    journal.append(Draft("label", item=1, key="1.png", value="cat"))
    read = []
    events = journal.events
    monkeypatch.setattr(journal, "events", lambda *told: read.extend(events(*told)) or events(*told))
    state = resume(journal, INDEX)
    assert {event.seq for event in read} == {seq + 1}
    assert state.labels[1] == "cat"


def test_a_checkpoint_for_other_keys_is_not_used(tmp_path):
    journal = Journal(tmp_path / "labels.db")
    journal.append(*drafts(100))
    resume(journal, INDEX)
    moved = {key: item + 1 for key, item in INDEX.items()}
    same(resume(journal, moved), fold(journal.events(), moved))
    same(resume(journal), fold(journal.events()))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE checkpoints SET data = x'00'",
        "UPDATE checkpoints SET data = substr(data, 1, 20) || x'ff' || substr(data, 22)",
        "UPDATE checkpoints SET seq = 50",
        "UPDATE checkpoints SET hash = 'no'",
        "DELETE FROM checkpoints WHERE part > 0",
        "DELETE FROM events WHERE seq > 60",
        "DROP TABLE checkpoints",
    ],
)
def test_a_checkpoint_that_does_not_fit_changes_nothing(tmp_path, statement):
    path = tmp_path / "labels.db"
    journal = Journal(path)
    journal.append(*drafts(100))
    resume(journal, INDEX)
    journal.close()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
    journal = Journal(path, create=False)
    same(resume(journal, INDEX), fold(journal.events(), INDEX))
    journal.close()


def test_a_checkpoint_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "labels.db")
    journal.append(*drafts(100))

    def full(*_):
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    monkeypatch.setattr(journal, "write_checkpoint", full)
    same(resume(journal, INDEX), fold(journal.events(), INDEX))


def test_a_checkpoint_is_no_fact(tmp_path):
    journal = Journal(tmp_path / "labels.db")
    journal.append(*drafts(100))
    before = journal.events()
    resume(journal, INDEX)
    assert journal.events() == before
    assert journal.verify() == len(before)


def test_many_drafts_cost_one_search_for_known_ids_and_one_insert(tmp_path):
    from sqlalchemy import event

    journal, said = Journal(tmp_path / "labels.db"), []
    event.listen(journal._engine, "before_cursor_execute", lambda *told: said.append(told[2].split()[0]))
    some = list(drafts(1000))
    first = journal.append(*some, some[3])
    assert said == ["BEGIN", "SELECT", "SELECT", "INSERT"]
    assert first[-1] == first[3]
    assert journal.append(*some) == first[:-1]
    assert len(journal.events()) == len(some)


def make_model():
    return nn.Sequential(nn.Linear(2, 4), nn.Dropout(), nn.Linear(4, 2))


def test_a_session_that_ends_leaves_a_checkpoint_of_what_it_did(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 5)
    told = {"classes": ["cat", "dog"], "journal": tmp_path / "labels.db"}
    session = LabellingSession(TensorDataset(torch.zeros(20, 2)), make_model(), **told)
    for item in range(3):
        session.label(item, "cat")
    session.close()
    journal = Journal(told["journal"])
    assert journal.checkpointed() == 0  # too few to be worth it
    session = LabellingSession(TensorDataset(torch.zeros(20, 2)), make_model(), **told)
    for item in range(3, 10):
        session.label(item, "dog")
    session.undo()
    session.close()
    session.close()
    facts = journal.events()
    assert journal.checkpointed() == len(facts) > 10
    index_of = {str(item): item for item in range(20)}
    monkeypatch.setattr(State, "apply", lambda *_: pytest.fail("a fact was folded that the checkpoint knows"))
    kept = resume(journal, index_of)
    journal.close()
    monkeypatch.undo()
    same(kept, fold(facts, index_of))

"""Two classes that become one: in labels, in what the model learns and says, and between processes."""

import json

import numpy as np
import pytest

from baal_widgets import Labeller
from baal_widgets.insight import Dispute
from baal_widgets.journal import Draft, Journal, fold
from baal_widgets.merging import joined, still_disputed
from tests.test_session_answers import CLASSES, ORACLE, TEST, make_model, make_session, reopened, told_of
from tests.widgets.test_labeller import Page


def taught(path=None, **options):
    session = make_session(path, test_set=TEST, **options)
    for item in range(30):
        session.label(item, ORACLE[item])
    return session


def test_every_label_that_ever_was_the_class_is_the_other(tmp_path):
    session = make_session(tmp_path / "labels.db")
    session.label(1, "low")
    session.label(1, "high")
    session.label(2, "low")
    session.label(3, "middle")
    session.undo()
    session.undo()
    session.merge_classes("low", "middle", op_id="m")
    session.merge_classes("low", "middle", op_id="m")
    assert session.classes == ["middle", "high"]
    assert session.outputs == ["middle", "middle", "high"]
    assert session.labels == {1: "high"}
    session.redo()
    session.redo()
    assert session.labels == {1: "high", 2: "middle", 3: "middle"}
    for _ in range(3):
        session.undo()
    assert session.labels == {1: "middle"}
    assert session.progress["per_class"] == {"middle": 1, "high": 0}
    with pytest.raises(ValueError, match="No class 'low'"):
        session.label(5, "low")
    before = told_of(session)
    session.close()
    with reopened(tmp_path / "labels.db") as again:
        assert told_of(again) == before
    make_session(tmp_path / "labels.db", classes=CLASSES).close()  # as it was begun


@pytest.mark.parametrize(("old", "into"), [("low", "low"), ("low", "huge"), ("huge", "low"), ("", "low")])
def test_what_cannot_be_merged_is_refused_and_writes_nothing(old, into):
    session = make_session()
    before = session._journal.events()
    with pytest.raises(ValueError, match=r"No class|Expected two"):
        session.merge_classes(old, into)
    with pytest.raises(TypeError):
        session.merge_classes(0, "low")
    session.merge_classes("low", "middle")
    with pytest.raises(ValueError, match="three or more"):
        session.merge_classes("high", "middle")
    assert len(session._journal.events()) == len(before) + 1


def test_an_item_that_had_both_classes_has_the_one_once():
    session = make_session(multi_label=True)
    for item, names in enumerate([["low", "high"], ["low"], ["middle", "high"], [], ["low", "middle", "high"]]):
        session.label(item, names)
    session.merge_classes("high", "low")
    assert session.labels == {0: ("low",), 1: ("low",), 2: ("low", "middle"), 3: (), 4: ("low", "middle")}
    assert session.progress["per_class"] == {"low": 4, "middle": 2}
    rows = [session.dataset[place][1].tolist() for place in range(5)]
    assert rows == [[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 0]]
    session.learn()
    assert len(session.explain(9).probabilities) == 2


def test_another_process_that_says_the_old_name_means_the_new_one(tmp_path):
    one, other = (make_session(tmp_path / "labels.db") for _ in range(2))
    other.label(0, "high")
    one.merge_classes("low", "middle")
    other._journal.append(Draft("label", item=2, key="2", value="low"))  # by one who did not know yet
    other._journal.append(Draft("class_merged", payload={"old": "low", "into": "high"}))  # the same
    one.rename_class("middle", "normal")
    other._journal.append(Draft("label", item=3, key="3", value="low"))
    assert one.labels == other.labels == {0: "high", 2: "normal", 3: "normal"}
    assert one.classes == ["normal", "high"]


def test_of_two_who_merge_a_class_at_once_one_is_told_that_it_is_gone(tmp_path, monkeypatch):
    one, other = (make_session(tmp_path / "labels.db", classes=[*CLASSES, "huge"]) for _ in range(2))
    catch_up, first = one._catch_up, []

    def late():
        told = catch_up()
        if not first:
            first.append(other.merge_classes("low", "middle"))
        return told

    monkeypatch.setattr(one, "_catch_up", late)
    with pytest.raises(ValueError, match="No class 'low'"):
        one.merge_classes("low", "high")
    assert one.classes == other.classes == ["middle", "high", "huge"]


def test_a_reader_that_does_not_know_of_merging_goes_on():
    events = make_session()._journal
    events.append(Draft("class_merged_by_a_newer_version", payload={"old": "low", "into": "middle"}))
    assert fold(events.events()).classes == CLASSES


def test_numbers_of_the_others_stay_for_the_model_and_the_dataset():
    session = taught()
    numbers = dict(zip(sorted(session.labels), (session.dataset[n][1] for n in range(30)), strict=True))
    session.learn()
    session.merge_classes("low", "middle")
    now = dict(zip(sorted(session.labels), (session.dataset[n][1] for n in range(30)), strict=True))
    assert now == {item: 1 if number == 0 else number for item, number in numbers.items()}
    assert session.progress["model_behind_by"] == sum(number == 0 for number in numbers.values()) > 0
    session.learn()
    assert session.model[-1].out_features == 3
    assert session.progress["model_behind_by"] == 0
    assert len(session.history[-1]["per_class"]) == 2
    index = session.add_class("low")
    assert (index, session.outputs) == (2, ["middle", "middle", "high", "low"])
    session.label(50, "low")
    session.label(51, 2)
    session.learn()
    assert session.model[-1].out_features == 4
    assert session.dataset[30][1] == session.dataset[31][1] == 3


def test_what_the_model_said_of_either_counts_for_the_one_that_is_left():
    session = taught()
    session.learn()
    said = {item: session.explain(item) for item in (40, 41, 42)}
    session.merge_classes("low", "high")
    for item, before in said.items():
        low, middle, high = before.probabilities
        now = session.explain(item)
        assert now.probabilities == pytest.approx((middle, low + high))
        assert now.votes == tuple({0: 1, 1: 0, 2: 1}[vote] for vote in before.votes)
        assert session.guess(item) == (np.argmax(now.probabilities), pytest.approx(max(now.probabilities)))
        assert {near.item: session.classes[near.label] for near in now.neighbours} == {
            near.item: session.labels[near.item] for near in before.neighbours
        }


def test_a_model_of_merged_classes_is_measured_by_them():
    session, high = taught(), float((TEST.tensors[1] == 2).float().mean())
    session.merge_classes("low", "middle")
    session.learn()
    row = session.history[-1]
    recall_of_both, recall_of_high = row["per_class"]
    assert row["accuracy"] == pytest.approx((1 - high) * recall_of_both + high * recall_of_high, abs=1e-3)
    assert recall_of_both > 0.8


def test_a_dispute_between_classes_that_are_one_is_none():
    disputes = [Dispute(0, 0, 1, 0.9), Dispute(1, 0, 2, 0.8), Dispute(2, 2, 1, 0.7)]
    assert still_disputed(disputes, [0, 0, 1]) == (Dispute(1, 0, 1, 0.8), Dispute(2, 1, 0, 0.7))


def test_probabilities_still_sum_to_one():
    told = np.random.default_rng(0).dirichlet(np.ones(5), size=7)
    both = joined(told, [2, 0, 1, 0, 2])
    assert both.sum(axis=-1) == pytest.approx(np.ones(7))
    assert both[:, 0] == pytest.approx(told[:, 1] + told[:, 3])
    assert joined(told, [2, 0, 1, 0, 2], multi_label=True)[:, 2].tolist() == told[:, [0, 4]].max(axis=1).tolist()


def test_what_several_people_said_is_merged_too(tmp_path):
    ann, bob = (make_session(tmp_path / "labels.db", annotator=name) for name in ("ann", "bob"))
    for item, (hers, his) in enumerate([("low", "middle"), ("low", "high"), ("middle", "middle")]):
        ann.label(item, hers)
        bob.label(item, his)
    assert [one.item for one in ann.disagreements()] == [0, 1]
    bob.merge_classes("low", "middle")
    assert ann.ratings()[0] == {"ann": "middle", "bob": "middle"}
    assert [one.item for one in ann.disagreements()] == [1]


def test_a_file_from_before_is_understood_and_one_from_after_says_the_new_name(tmp_path):
    session = taught()
    before = session.export(tmp_path / "before.csv")
    session.merge_classes("low", "middle")
    rows = [json.loads(line) for line in session.export(tmp_path / "after.jsonl").read_text().splitlines()]
    assert {row["label"] for row in rows} == {"middle", "high"}
    plan = session.import_labels(before, overwrite=True)
    assert (len(plan.same), len(plan.changed), plan.unknown_classes) == (30, 0, {})


def test_the_labels_from_before_can_be_had_again(tmp_path):
    session = taught(tmp_path / "labels.db")
    before = session.labels
    session.merge_classes("low", "middle")
    session.add_class("low")
    events = Journal(tmp_path / "labels.db").events()
    n = next(place for place, event in enumerate(events) if event.kind == "class_merged")
    for item, name in fold(events[:n]).labels.items():
        if name == "low":
            session.label(item, name)
    assert session.labels == before


def test_a_model_that_was_made_for_all_classes_goes_on_after_reopening(tmp_path):
    session = taught(tmp_path / "labels.db")
    session.merge_classes("low", "middle")
    session.learn()
    rows = session.history
    session.close()
    with reopened(tmp_path / "labels.db", test_set=TEST) as again:
        again.learn()
        assert again.model[-1].out_features == 3
        assert len(again.explain(40).probabilities) == 2
        assert again.history[-1]["round"] == len(rows) + 1
    make_session(tmp_path / "labels.db", classes=["middle", "high"], model=make_model(2)).learn()  # grows the third


def test_the_page_keeps_its_numbers_when_classes_are_merged():
    session = taught()
    session.learn()
    page = Page(Labeller(session, keys={"low": "z"}))
    page.do("merge", value=0, text="middle")
    view = page.view()
    assert view["classes"] == ["", "middle", "high"]
    assert view["keys"]["classes"] == ["", "z", "1"]
    assert view["counts"] == [0, *session.progress["per_class"].values()]
    card = view["page"][0]
    assert page.do("label", card, 0)["view"]["answers"][str(card)] == 1  # pressed before the page knew
    assert page.do("label", card, 2)["view"]["answers"][str(card)] == 2
    assert session.labels[card] == "high"
    why = page.say(kind="why", card=40)["why"]
    assert why["probabilities"][0] == 0
    assert sum(why["probabilities"]) == pytest.approx(1, abs=1e-3)
    assert set(why["votes"]) | {near["value"] for near in why["neighbours"]} <= {1, 2}
    assert page.do("rename", value=2, text="top")["view"]["classes"] == ["", "middle", "top"]
    assert page.do("merge", value=1, text="top")["errors"]
    assert {pair[1] for pair in view["recent"]} <= {1, 2, -1}

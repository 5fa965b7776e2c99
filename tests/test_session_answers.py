"""What people do beside labelling: groups, flags, notes, classes of their own, repeats and second looks."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from torch import nn
from torch.utils.data import TensorDataset

from baal_widgets.consistency import consistency
from baal_widgets.journal import Draft, Journal, fold
from baal_widgets.metrics import wilson_interval
from baal_widgets.pace import per_minute
from baal_widgets.session import LabellingSession
from baal_widgets.training import Training

CLASSES = ["low", "middle", "high"]
QUICK = Training(batch_size=16, lr=1e-2, min_steps=10, max_steps=20, window=10)


def make_data(n, seed):
    x = torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (n, 4)).astype(np.float32))
    return TensorDataset(x, torch.bucketize(x.sum(1), torch.tensor([-0.7, 0.7])))


def make_model(n=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, n))


POOL, TEST = make_data(60, 1), make_data(50, 2)
ORACLE = POOL.tensors[1].tolist()


def make_session(journal=None, **options):
    told = {"classes": CLASSES, "query_size": 6, "training": QUICK, "iterations": 5, **options}
    return LabellingSession(told.pop("dataset", POOL), told.pop("model", make_model()), journal=journal, **told)


def reopened(path, **options):
    return LabellingSession.open(path, POOL, make_model(), **options)


def told_of(session):
    """Everything that must survive a restart."""
    return (
        session.classes,
        session.query,
        session.labels,
        session.skipped,
        session.unsure,
        session.flagged,
        session.notes,
        session.repeated,
        session.consistency,
        session.recent(100),
        session.progress,
    )


def with_insight(session, *disputes, **told):
    """As after a lesson that disputes these labels."""
    session._insight = SimpleNamespace(disputes=disputes, **told)


def dispute(item, label, guess=0, confidence=0.9):
    return SimpleNamespace(item=item, label=label, guess=guess, confidence=confidence)


# Setting aside, and how an answer was given


def test_unsure_is_set_aside_and_listed_apart():
    session = make_session()
    session.skip(1)
    session.skip(2, why="unsure")
    assert session.skipped == {1, 2}
    assert session.unsure == {2}
    assert session.answers([1, 2, 3]) == {1: -1, 2: -2}
    assert (session.progress["n_skipped"], session.progress["n_unsure"]) == (2, 1)
    session.undo()
    assert (session.skipped, session.unsure) == ({1}, set())
    session.redo()
    session.label(2, "low")
    assert (session.skipped, session.unsure) == ({1}, set())
    with pytest.raises(ValueError, match="unsure"):
        session.skip(3, why="bored")


@pytest.mark.parametrize(
    "about",
    [
        {"via": "key", "ms": 1200, "guess": "hidden", "view": "card"},
        {"via": "bulk", "ms": 0.5},
        {"ms": 1e9, "guess": "shown", "view": "grid"},
        {},
    ],
)
def test_how_an_answer_was_given_is_in_the_journal(about):
    session = make_session()
    session.label(1, "low", about=about)
    session.skip(2, about=about)
    for event in session._journal.events()[-2:]:
        assert event.payload.get("about", {}) == about


@pytest.mark.parametrize(
    "about",
    [
        {"via": "mind"},
        {"via": ["key"]},
        {"ms": -1},
        {"ms": 2e9},
        {"ms": float("nan")},
        {"ms": True},
        {"ms": "5"},
        {"guess": True},
        {"view": "list"},
        {"mood": "good"},
        {1: 2},
        "key",
    ],
)
def test_what_is_said_about_an_answer_is_checked(about):
    session = make_session()
    before = session._journal.events()
    for answer in (lambda: session.label(1, "low", about=about), lambda: session.skip(1, about=about)):
        with pytest.raises(ValueError, match="Expected"):
            answer()
    assert session._journal.events() == before


@pytest.mark.parametrize("group", ["", "g" * 81, 5])
def test_a_group_is_a_short_text(group):
    with pytest.raises(ValueError, match="group"):
        make_session().label(1, "low", group=group)


# Undo by gesture


def test_a_group_is_taken_back_and_put_back_at_once():
    session = make_session()
    session.label(9, "high")
    for item in (3, 1, 2):
        session.label(item, "low", group="g")
    assert session.undo(op_id="u") == 3
    assert session.labels == {9: "high"}
    assert [event.op_id for event in session._journal.events()[-3:]] == ["u", "u.1", "u.2"]
    assert session.undo(op_id="u") is None  # sent again
    assert session.labels == {9: "high"}
    assert session.redo() == 3
    assert session.labels == {9: "high", 3: "low", 1: "low", 2: "low"}
    assert session.undo() == 3
    assert session.undo() == 9
    assert session.undo() is None
    assert session.redo() == 9
    assert session.redo() == 3
    assert session.redo() is None


def test_ids_of_a_group_stay_short_enough_for_any_database():
    session = make_session()
    for item in range(3):
        session.label(item, "low", group="g")
    session.undo(op_id="u" * 80)
    ids = [event.op_id for event in session._journal.events()[-3:]]
    assert ids[0] == "u" * 80
    assert len(set(ids)) == 3
    assert max(map(len, ids)) <= 80


gestures = st.lists(
    st.one_of(
        st.tuples(
            st.just("label"), st.lists(st.integers(0, 7), min_size=1, max_size=3, unique=True), st.integers(0, 2)
        ),
        st.tuples(st.just("undo"), st.none(), st.none()),
        st.tuples(st.just("redo"), st.none(), st.none()),
    ),
    max_size=25,
)


@given(gestures)
@settings(max_examples=25, deadline=None)
def test_undo_and_redo_go_gesture_by_gesture(told):
    session, past, future, now = make_session(), [], [], {}
    for number, (op, items, label) in enumerate(told):
        if op == "label":
            past.append(now)
            future.clear()
            now = {**now, **dict.fromkeys(items, CLASSES[label])}
            for item in items:
                session.label(item, label, group=f"g{number}")
        else:
            source, goal = (past, future) if op == "undo" else (future, past)
            moved = getattr(session, op)()
            assert (moved is None) == (not source)
            if source:
                goal.append(now)
                now = source.pop()
        assert session.labels == now


def test_recent_answers_come_newest_first_and_stand():
    session = make_session()
    for item in range(4):
        session.label(item, "low")
    session.skip(0, why="unsure")
    session.undo()
    session.label(1, "high")
    session.undo()
    session.undo()
    assert [item for item, _ in session.recent(10)] == [2, 1, 0]
    session.label(0, "middle")
    assert [(item, answer.value) for item, answer in session.recent(2)] == [(0, "middle"), (2, "low")]


def test_recent_answers_are_ones_own(tmp_path):
    ann, bob = (make_session(tmp_path / "labels.db", annotator=name) for name in ("ann", "bob"))
    ann.label(1, "low")
    ann.label(2, "low")
    bob.label(2, "high")
    ann.labels  # noqa: B018  to see what bob has written
    assert [item for item, _ in ann.recent(5)] == [1]
    assert [item for item, _ in bob.recent(5)] == [2]


# Flags and notes


def test_flags_and_notes_are_kept_and_not_undone(tmp_path):
    session = make_session(tmp_path / "labels.db")
    session.label(1, "low")
    session.flag(1)
    session.flag(2)
    session.flag(2, False)
    session.note(3, "a <b>note</b> 猫")
    session.note(4, "gone")
    session.note(4, "")
    assert session.undo() == 1
    assert session.undo() is None
    assert (session.flagged, session.notes) == ({1}, {3: "a <b>note</b> 猫"})
    assert session.progress["n_flagged"] == 1
    session.close()
    with reopened(tmp_path / "labels.db") as again:
        assert (again.flagged, again.notes) == ({1}, {3: "a <b>note</b> 猫"})


@pytest.mark.parametrize("text", ["x" * 10_001, None, 5])
def test_a_note_is_a_text_that_is_not_too_long(text):
    session = make_session()
    with pytest.raises(ValueError, match="10,000"):
        session.note(1, text)
    session.note(1, "x" * 10_000)
    with pytest.raises(TypeError, match="flag"):
        session.flag(1, "yes")
    with pytest.raises(IndexError):
        session.flag(60)


# Classes that come later


def test_a_class_that_is_added_comes_last():
    session = make_session()
    session.label(1, "high")
    assert session.add_class("huge", op_id="a") == 3
    assert session.add_class("huge", op_id="a") == 3
    assert session.classes == [*CLASSES, "huge"]
    session.label(2, 3)
    assert session.answers([1, 2]) == {1: 2, 2: 3}
    assert session.progress["per_class"] == {"low": 0, "middle": 0, "high": 1, "huge": 1}
    for name, error in {
        "huge": ValueError,
        "": ValueError,
        " ": ValueError,
        "x" * 201: ValueError,
        5: TypeError,
    }.items():
        with pytest.raises(error):
            session.add_class(name)
    assert len(session.classes) == 4


def test_the_model_learns_a_class_that_was_added(tmp_path):
    session = make_session(tmp_path / "labels.db", test_set=TEST)
    session.simulate(ORACLE, rounds=1)
    session.add_class("huge")
    for item in session.ask().items:
        session.label(item, "huge")
    session.learn()
    assert session.model[-1].out_features == 4
    session.close()
    for options in ({}, {"classes": [*CLASSES, "huge"]}):
        with reopened(tmp_path / "labels.db", **options) as again:
            assert again.classes == [*CLASSES, "huge"]
            again.learn()
            assert again.model[-1].out_features == 4
    with LabellingSession.open(tmp_path / "labels.db", POOL, make_model(4), test_set=TEST) as again:
        again.learn()
        assert again.model[-1].out_features == 4


def test_a_class_may_be_added_while_the_model_learns():
    session = make_session(training=Training(min_steps=300, max_steps=300))
    for item in session.ask().items:
        session.label(item, ORACLE[item])
    job = session.learn(wait=False)
    session.add_class("huge")
    job.result(60)
    session.label(session.ask().items[0], "huge")
    session.learn()
    assert session.model[-1].out_features == 4


def test_a_model_that_cannot_have_another_output_leaves_the_classes_alone():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 3))
            self.dropout = nn.Dropout(0.5)

        def forward(self, x):
            return self.dropout(x) @ self.weight

    session = make_session(model=Odd())
    before = session._journal.events()
    with pytest.raises(ValueError):  # noqa: PT011  the learner says which
        session.add_class("huge")
    assert session.classes == CLASSES
    assert session._journal.events() == before


def test_a_class_that_is_renamed_is_renamed_in_every_label(tmp_path):
    session = make_session(tmp_path / "labels.db")
    session.label(1, "low")
    session.label(1, "high")
    session.label(2, "low")
    session.undo()
    session.rename_class("low", "small", op_id="r")
    session.rename_class("low", "small", op_id="r")
    assert session.classes == ["small", "middle", "high"]
    assert session.labels == {1: "high"}
    assert session.redo() == 2
    assert session.labels == {1: "high", 2: "small"}
    session.undo()
    session.undo()
    assert session.labels == {1: "small"}
    assert session.progress["per_class"] == {"small": 1, "middle": 0, "high": 0}
    for old, new in (("low", "tiny"), ("small", "high"), ("small", "small"), ("small", "")):
        with pytest.raises(ValueError):  # noqa: PT011
            session.rename_class(old, new)
    before = told_of(session)
    session.close()
    with reopened(tmp_path / "labels.db") as again:
        assert told_of(again) == before
    make_session(tmp_path / "labels.db", classes=CLASSES).close()  # as it was begun
    make_session(tmp_path / "labels.db", classes=["small", "middle", "high"]).close()  # as they are now
    with pytest.raises(ValueError, match="was begun with the classes"):
        make_session(tmp_path / "labels.db", classes=["small", "middle", "huge"])


def test_classes_of_another_process_are_known_here(tmp_path):
    one, other = (make_session(tmp_path / "labels.db") for _ in range(2))
    one.add_class("huge")
    other.label(1, "huge")
    one.rename_class("low", "small")
    other._journal.append(Draft("label", item=2, key="2", value="low"))  # by one who did not know yet
    assert one.labels == other.labels == {1: "huge", 2: "small"}
    assert one.classes == other.classes == ["small", "middle", "high", "huge"]


def test_two_processes_that_add_or_rename_the_same_agree(tmp_path):
    path = tmp_path / "labels.db"
    one = make_session(path)
    journal = Journal(path)
    journal.append(Draft("class_added", value="huge"), Draft("class_added", value="huge"))
    journal.append(*(Draft("class_renamed", payload={"old": "low", "new": new}) for new in ("small", "small", "tiny")))
    journal.append(Draft("label", item=0, key="0", value="low"))
    assert one.labels == {0: "tiny"}
    assert one.classes == ["tiny", "middle", "high", "huge"]


# Blind repeats


def answer_all(session, labels=None):
    for item in session.ask().items:
        session.label(item, ORACLE[item] if labels is None else labels[item])


def test_repeats_are_of_what_this_person_labelled_a_query_ago():
    session = make_session(repeats=0.5)
    asked = []
    for _ in range(4):
        query = session.ask()
        assert not set(query.repeats) & set(asked[-6:])
        assert set(query.repeats) <= set(asked[:-6])
        assert len(query.repeats) == (3 if len(asked) >= 12 else 0)
        asked += query.items
        answer_all(session)


def test_repeats_do_not_hold_up_the_query_and_change_no_label(tmp_path):
    session = make_session(tmp_path / "labels.db", repeats=0.5)
    answer_all(session)
    answer_all(session)
    query, before = session.ask(), session.labels
    first, second, third = query.repeats
    session.repeat(first, ORACLE[first], op_id="a")
    session.repeat(first, ORACLE[first], op_id="a")
    session.repeat(second, (ORACLE[second] + 1) % 3, about={"via": "key"})
    assert session.labels == before
    assert set(session.repeated) == {first, second}
    told = session.consistency
    assert (told["n"], told["same"], told["rate"]) == (2, 1, 0.5)
    assert told["interval"] == wilson_interval(0.5, 2)
    state = told_of(session)
    session.close()
    with reopened(tmp_path / "labels.db") as again:
        assert again.repeats == 0.5
        assert told_of(again) == state
        answer_all(again)
        assert again.ask().number == query.number + 1  # the third repeat is not waited for
        assert again.repeated == {}
        assert again.consistency == told
        again.repeat(second, ORACLE[second])  # late, and the latest counts
        assert again.consistency["same"] == 2


def test_repeats_are_the_same_after_a_restart(tmp_path):
    runs = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.db"
        make_session(path, repeats=0.5).close()
        repeats = []
        for _ in range(4):
            with reopened(path, query_size=6) as session:
                repeats.append(session.ask().repeats)
                answer_all(session)
        runs.append(repeats)
    assert runs[0] == runs[1]
    assert runs[0][-1]


def test_a_repeat_of_anothers_label_says_nothing_of_ones_own_consistency(tmp_path):
    ann, bob = (make_session(tmp_path / "labels.db", annotator=name) for name in ("ann", "bob"))
    ann.label(1, "low")
    bob.repeat(1, "high")
    assert ann.consistency["n"] == bob.consistency["n"] == 0
    assert bob.consistency["rate"] is None


def test_repeats_are_asked_of_the_one_who_labelled(tmp_path):
    ann, bob = (make_session(tmp_path / "labels.db", annotator=name, repeats=0.5) for name in ("ann", "bob"))
    answer_all(ann)
    answer_all(ann)
    assert ann.ask().repeats
    assert not set(bob.ask().items) & set(ann.ask().items)
    assert bob.ask().repeats == bob.query.repeats == ()


@pytest.mark.parametrize("repeats", [-0.1, 0.6, True, "half", float("nan")])
def test_at_most_half_a_query_is_repeated(repeats):
    with pytest.raises(ValueError, match="repeats"):
        make_session(repeats=repeats)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1))
def test_consistency_is_cohens_kappa(pairs):
    told = consistency(pairs)
    one, other = zip(*pairs, strict=True)
    if len({*one, *other}) == 1:
        assert told["kappa"] is None
    else:
        assert told["kappa"] == pytest.approx(cohen_kappa_score(one, other))
    assert told["interval"][0] <= told["rate"] <= told["interval"][1]


# Looking again


def test_what_was_looked_at_again_is_no_longer_disputed():
    session = make_session()
    for item in range(5):
        session.label(item, "low")
    claims = [dispute(item, 0, 2) for item in range(5)]
    with_insight(session, *claims)
    assert session.disputes == tuple(claims)
    session.review(0, op_id="a")
    session.review(1, "high", op_id="b")
    session.label(2, "middle")
    session.skip(3)
    assert session.disputes == (claims[4],)
    assert session.labels == {0: "low", 1: "high", 2: "middle", 4: "low"}
    reviews = [e.payload["review"] for e in session._journal.events() if "review" in e.payload]
    assert reviews == ["kept", "changed"]
    for _ in range(2):
        session.undo()
    assert session.disputes == (claims[2], claims[3], claims[4])
    session.undo()
    session.undo()
    assert session.disputes == tuple(claims)
    assert session.labels == dict.fromkeys(range(5), "low")


def test_a_label_that_is_kept_leaves_the_model_up_to_date():
    session = make_session()
    answer_all(session)
    session.learn()
    items = sorted(session.labels)
    session.review(items[0])
    assert session.progress["model_behind_by"] == 0
    session.undo()
    assert session.progress["model_behind_by"] == 0
    session.review(items[1], (ORACLE[items[1]] + 1) % 3)
    assert session.progress["model_behind_by"] == 1


def test_only_a_label_can_be_looked_at_again():
    session = make_session()
    session.skip(1)
    for item in (0, 1):
        with pytest.raises(ValueError, match="no label"):
            session.review(item)
    session.label(0, "low")
    session.review(0, "low", op_id="a")
    session.undo()
    session.undo()
    session.review(0, op_id="a")  # sent again
    assert session.labels == {}


def test_before_a_lesson_the_model_knows_nothing():
    session = make_session()
    assert (session.explain(1), session.guess(1), session.disputes) == (None, None, ())
    with pytest.raises(IndexError):
        session.explain(60)
    with_insight(session, explain=lambda item: ("why", item), guess=lambda item: (item, 0.5))
    assert session.explain(1) == ("why", 1)
    assert session.guess(np.int64(2)) == (2, 0.5)


def test_after_a_lesson_the_model_says_what_it_knows():
    session = make_session()
    answer_all(session)
    query = session.learn().query
    told = session.explain(query.items[0])
    assert (told.rank, told.score) == (1, pytest.approx(query.scores[0]))
    assert session.guess(query.items[0])[0] in range(3)


# Progress


def brute(session):
    """Progress, counted anew from every answer."""
    labels, rows = session.labels, session.history
    learned = rows[-1]["seq"] if rows else 0
    return {
        "n_labelled": len(labels),
        "n_skipped": len(session.skipped),
        "n_unsure": len(session.unsure),
        "per_class": {name: sum(label == name for label in labels.values()) for name in session.classes},
        "model_behind_by": sum(session._state.answers[item].seq > learned for item in labels),
    }


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("label"), st.integers(0, 5), st.integers(0, 2)),
            st.tuples(st.just("review"), st.integers(0, 5), st.sampled_from([None, 0, 1])),
            st.tuples(st.just("skip"), st.integers(0, 5)),
            st.tuples(st.just("undo")),
            st.tuples(st.just("redo")),
            st.tuples(st.just("rename"), st.integers(0, 2)),
            st.tuples(st.just("merge"), st.integers(0, 3), st.integers(0, 3)),
            st.tuples(st.just("learned")),
        ),
        max_size=25,
    )
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_running_counts_are_what_counting_gives(told):
    session = make_session()
    for number, (op, *args) in enumerate(told):
        if op == "rename":
            session.rename_class(session.classes[args[0]], f"name {number}")
        elif op == "merge":
            session.add_class(f"more {number}")
            old, into = (session.classes[place] for place in args)
            if old != into:
                session.merge_classes(old, into)
        elif op == "learned":
            session._write(Draft("measured", payload={"seq": session._state.seq, "round": session.round + 1}))
        elif op != "review" or args[0] in session.labels:
            getattr(session, op)(*args)
        progress = session.progress
        assert {name: progress[name] for name in brute(session)} == brute(session)
        assert session._state.reviewed == {i for i, a in session._state.answers.items() if a.review}
    assert fold(session._journal.events()) == session._state


def test_a_budget_and_a_pace_give_the_time_that_is_left():
    session = make_session(budget=30)
    assert [session.progress[name] for name in ("budget", "per_minute", "minutes_left")] == [30, None, None]
    for item in range(10):
        session.label(item, "low")
    times = session._state.times["me"]
    for place in range(len(times)):
        times[place] = (f"2024-01-01T12:00:{2 * place:02}+00:00", None)
    assert [session.progress[name] for name in ("per_minute", "minutes_left")] == [30, pytest.approx(20 / 30)]
    with pytest.raises(ValueError, match="budget"):
        make_session(budget=0)


def at(*seconds):
    return [(f"2024-01-01T12:{s // 60:02}:{s % 60:02}+00:00", None) for s in seconds]


def test_breaks_do_not_slow_the_pace():
    assert per_minute(at(0, 2, 4, 6, 500, 502, 504)) == 30
    assert per_minute(at(0, 2, 4, 6, 500, 502)) is None  # too few to tell
    assert per_minute(at(0, 0, 0, 0, 0, 0, 0, 0)) is None
    assert per_minute([]) is None


def test_answers_of_one_gesture_share_its_time():
    rows = [row for n in range(6) for row in [(f"2024-01-01T12:00:{6 * n:02}+00:00", f"g{n}")] * 3]
    assert per_minute(rows) == 30


# Journals from before, and to come


def test_a_journal_without_the_new_facts_opens_as_before(tmp_path):
    journal = Journal(tmp_path / "labels.db")
    journal.append(
        Draft("opened", payload={"classes": CLASSES, "heuristic": "bald", "query_size": 6, "seed": 0, "n_items": 60}),
        Draft(
            "asked",
            payload={
                "number": 0,
                **{"items": [1, 2], "keys": ["1", "2"], "scores": [None, None]},
                **{"reserve_items": [3], "reserve_keys": ["3"], "reserve_scores": [None]},
            },
        ),
        Draft("label", item=1, key="1", value="low", annotator="me"),
        Draft("skip", item=2, key="2", annotator="me"),
        Draft("of a later version", item=2, key="2", value="x", payload={"what": 1}),
    )
    journal.close()
    with reopened(tmp_path / "labels.db") as session:
        assert (session.labels, session.skipped, session.unsure) == ({1: "low"}, {2}, set())
        assert session.query.repeats == ()
        assert session.undo() == 2
        assert session.repeats == 0
        assert session.budget is None


# Several labels an item


def multi(journal=None, **options):
    return make_session(journal, multi_label=True, **options)


def test_an_item_may_have_several_labels_or_none(tmp_path):
    session = multi(tmp_path / "labels.db")
    session.label(1, ["high", "low"])
    session.label(2, ())
    session.label(3, [2, 2, "middle"])
    session.label(4, {0})
    assert session.labels == {1: ("low", "high"), 2: (), 3: ("middle", "high"), 4: ("low",)}
    assert session.progress["per_class"] == {"low": 2, "middle": 1, "high": 2}
    assert session.progress["n_labelled"] == 4
    assert session.answers([1, 2, 9]) == {1: [0, 2], 2: []}
    assert json.loads(session._journal.events()[1].value) == ["low", "high"]
    assert session.dataset.get_raw(3)[1].tolist() == [0, 1, 1]
    for wrong, error in {"low": TypeError, 1: TypeError, ("lowest",): ValueError, (3,): ValueError}.items():
        with pytest.raises(error):
            session.label(1, wrong)
    session.review(1, ["low"])
    session.undo()
    assert session.labels[1] == ("low", "high")
    session.rename_class("low", 'a "b", c')
    assert session.labels[1] == ('a "b", c', "high")
    assert session.names_in(session.recent(1)[0][1].value) == ('a "b", c',)
    before = told_of(session)
    session.close()
    with reopened(tmp_path / "labels.db") as again:
        assert again.multi_label
        assert told_of(again) == before
        assert again.dataset.get_raw(3)[1].tolist() == [0, 1, 1]
        lines = again.export(tmp_path / "labels.csv").read_text().splitlines()
        assert lines[2].startswith("2,2,[],me,0,")
    with pytest.raises(ValueError, match="multi_label"):
        make_session(tmp_path / "labels.db", classes=['a "b", c', "middle", "high"])


def test_rows_of_several_labels_grow_with_the_classes():
    session = multi()
    session.label(1, ["low"])
    session._journal.append(Draft("class_added", value="huge"))
    session.label(2, ["huge"])
    assert session.dataset.get_raw(1)[1].tolist() == [1, 0, 0, 0]
    assert session.dataset.get_raw(2)[1].tolist() == [0, 0, 0, 1]


def test_several_labels_are_learned(tmp_path):
    x = POOL.tensors[0]
    session = multi(test_set=TensorDataset(x, (x[:, :3] > 0).float()))
    history = session.simulate([np.flatnonzero(row > 0).tolist() for row in x[:, :3]], rounds=2)
    assert history[-1]["n_labelled"] == 12
    assert 0 <= history[-1]["accuracy"] <= 1
    assert len(session.ask().items) == 6
    session.add_class("huge")
    session.label(session.ask().items[0], ["huge", "low"])

from hypothesis import given
from hypothesis import strategies as st

from baal_widgets.journal import Event, State, fold

ITEMS, CLASSES = 6, ["cat", "dog", None]

operations = st.lists(
    st.one_of(
        st.tuples(st.just("answer"), st.integers(0, ITEMS - 1), st.sampled_from(CLASSES)),
        st.tuples(st.just("undo"), st.none(), st.none()),
        st.tuples(st.just("redo"), st.none(), st.none()),
    ),
    max_size=60,
)


def event(seq, kind, item=None, value=None, **payload):
    return Event(seq, str(seq), kind, item, None if item is None else str(item), value, "me", 0, None, "", payload, "")


def answer(seq, item, value):
    return event(seq, "skip" if value is None else "label", item, value)


def carry_out(told):
    """The events that these operations of a person write, and the answers a person would expect after each."""
    events, state, past, future, now = [], State(), [], [], {}
    for op, item, value in told:
        seq = len(events) + 1
        if op == "answer":
            events.append(answer(seq, item, value))
            past.append(dict(now))
            future.clear()
            now[item] = value
        else:
            change = state.last_done("me") if op == "undo" else state.last_undone("me")
            source, goal = (past, future) if op == "undo" else (future, past)
            assert (change is None) == (not source)
            if change is None:
                continue
            events.append(event(seq, op, target=change.seq))
            goal.append(now)
            now = source.pop()
        state.apply(events[-1])
        assert {i: a.value for i, a in state.answers.items()} == now
    return events, state


@given(operations)
def test_undo_and_redo_do_what_a_person_expects(told):
    carry_out(told)


@given(operations)
def test_replaying_the_journal_gives_the_same_state(told):
    events, state = carry_out(told)
    assert fold(events) == state


@given(operations)
def test_undoing_everything_leaves_nothing(told):
    events, state = carry_out(told)
    while (change := state.last_done("me")) is not None:
        events.append(event(len(events) + 1, "undo", target=change.seq))
        state.apply(events[-1])
    assert state.answers == {}


def test_imported_labels_are_not_undone():
    state = fold([event(1, "import", 0, "cat"), answer(2, 1, "dog")])
    state.apply(event(3, "undo", target=2))
    assert state.labels == {0: "cat"}
    assert state.last_done("me") is None


def test_an_undo_that_was_overtaken_changes_nothing():
    state = fold([answer(1, 0, "cat"), event(2, "undo", target=1), event(3, "undo", target=1)])
    assert state.answers == {}
    assert len(state.undone) == 1


def test_facts_of_kinds_that_are_not_known_change_nothing():
    told = [answer(1, 0, "cat"), answer(2, 1, None)]
    state = fold([*told, event(3, "invented", 1, "dog", what="ever"), event(4, "flag", 9), event(5, "note", 9, "")])
    assert {item: one.value for item, one in state.answers.items()} == {0: "cat", 1: None}
    assert (state.done, state.seq) == (fold(told).done, 5)


def test_a_class_keeps_its_answers_under_its_new_name():
    opened = event(1, "opened", classes=["cat", "dog"])
    told = [opened, answer(2, 0, "cat"), event(3, "class_renamed", old="cat", new="lynx"), answer(4, 1, "cat")]
    state = fold([*told, event(5, "class_added", None, "cat"), answer(6, 2, "cat")])
    assert state.labels == {0: "lynx", 1: "lynx", 2: "cat"}
    assert state.classes == ["lynx", "dog", "cat"]
    assert state.counts == {"lynx": 2, "cat": 1}


def test_keys_find_items_that_have_moved():
    state = fold([answer(1, 0, "cat"), answer(2, 5, "dog")], index_of={"0": 7})
    assert state.labels == {7: "cat"}
    assert state.unknown == {"5"}


def test_labels_after_counts_what_a_model_has_not_seen():
    state = fold([answer(1, 0, "cat"), answer(2, 1, "dog"), answer(3, 2, None), answer(4, 0, "dog")])
    assert [state.labels_after(seq) for seq in (0, 1, 2, 4)] == [2, 2, 1, 0]

"""What the page tells is checked before anything is done with it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baal_widgets.widgets.messages import Op, check_cards, check_id, parse_op

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_an_operation_is_read_as_it_was_meant():
    raw = {"id": "x", "op": "label", "card": 3, "value": [2, 0], "group": "g", "about": {"ms": 3}, "at": 1, "n": 2}
    assert parse_op(raw) == Op("x", "label", 3, (2, 0), group="g", about={"ms": 3})
    assert parse_op({"id": "y", "op": "undo", "card": 5}) == Op("y", "undo")
    assert parse_op({"id": "z", "op": "note", "card": 0, "text": "<b>"}).text == "<b>"


@pytest.mark.parametrize(
    "raw",
    [
        None,
        "label",
        [],
        {},
        {"id": "x", "op": "__init__"},
        {"id": "", "op": "undo"},
        {"id": "x" * 81, "op": "undo"},
        {"id": 5, "op": "undo"},
        {"id": "x", "op": "skip"},
        {"id": "x", "op": "skip", "card": True},
        {"id": "x", "op": "skip", "card": -1},
        {"id": "x", "op": "skip", "card": 1.0},
        {"id": "x", "op": "label", "card": 1},
        {"id": "x", "op": "label", "card": 1, "value": "cat"},
        {"id": "x", "op": "label", "card": 1, "value": [0, -1]},
        {"id": "x", "op": "rename", "value": [0], "text": "a"},
        {"id": "x", "op": "merge", "value": [0], "text": "a"},
        {"id": "x", "op": "merge", "value": 0},
        {"id": "x", "op": "merge", "text": "a"},
        {"id": "x", "op": "note", "card": 1, "text": "a" * 10_001},
        {"id": "x", "op": "note", "card": 1, "text": None},
        {"id": "x", "op": "flag", "card": 1, "on": "yes"},
        {"id": "x", "op": "skip", "card": 1, "group": 7},
    ],
)
def test_what_makes_no_sense_is_refused_and_quoted_briefly(raw):
    with pytest.raises((TypeError, ValueError)) as refused:
        parse_op(raw)
    assert len(str(refused.value)) < 250


@given(st.dictionaries(st.sampled_from(["id", "op", "card", "value", "text", "on", "group", "about"]), json_values))
@settings(max_examples=300)
def test_anything_is_either_an_operation_or_refused(raw):
    try:
        op = parse_op(raw)
    except (TypeError, ValueError):
        return
    assert op.card is None or (type(op.card) is int and op.card >= 0)


def test_ids_and_cards_are_checked():
    assert check_id("a") == "a"
    assert check_cards([0, 5]) == [0, 5]
    for bad in (None, 5, [1, -1], ["0"], [0] * 2_001, [False]):
        with pytest.raises(TypeError):
            check_cards(bad)

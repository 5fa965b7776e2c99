"""The grid without a browser: it is handed the messages that hands would send."""

import io
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sqlalchemy.exc import OperationalError

from baal_widgets import LabelGrid

IMAGES = [np.full((8, 6, 3), value, np.uint8) for value in (0, 100, 200)]
CLASSES = ["cat", "dog"]


class Page:
    """What a browser sees of a grid."""

    def __init__(self, grid):
        self.grid, self.heard, self.count = grid, [], 0
        grid.send = lambda content, buffers=None: self.heard.append((content, buffers or []))

    def say(self, **message):
        self.grid._handle_custom_msg(message, [])
        return self.heard[-1][0]

    def do(self, op, card=None, value=None, op_id=None, **more):
        self.count += 1
        told = {"id": op_id or str(self.count), "op": op, "card": card, "value": value, **more}
        return self.say(kind="ops", ops=[told])


@pytest.fixture
def told():
    return []


@pytest.fixture
def page(told):
    return Page(LabelGrid(IMAGES, CLASSES, on_label=lambda place, name: told.append((place, name))))


def test_an_answer_is_kept_told_and_acknowledged(page, told):
    reply = page.do("label", 1, 0, op_id="x")
    assert reply["done"] == ["x"]
    assert reply["view"]["answers"] == {"1": 0}
    assert reply["view"]["counts"] == [1, 0]
    assert page.grid.labels == {1: "cat"}
    assert told == [(1, "cat")]


def test_an_answer_that_comes_twice_counts_once(page, told):
    page.do("label", 1, 0, op_id="x")
    page.do("label", 2, 1, op_id="y")
    assert page.do("label", 1, 1, op_id="x")["done"] == ["x"]
    assert page.grid.labels == {1: "cat", 2: "dog"}
    assert len(told) == 2


def test_undo_and_redo_say_where_to_look(page, told):
    page.do("label", 1, 0)
    page.do("skip", 2)
    assert page.do("undo")["focus"] == 2
    assert page.do("undo")["view"]["answers"] == {}
    assert page.do("redo")["focus"] == 1
    assert told == [(1, "cat"), (2, None), (2, None), (1, None), (1, "cat")]
    assert page.do("undo")["view"]["canUndo"] is False
    assert page.do("undo")["focus"] is None


def test_pictures_travel_as_bytes_that_show_the_image(page):
    page.say(kind="pictures", cards=[2, 0])
    content, buffers = page.heard[-1]
    assert (content["cards"], content["types"]) == ([2, 0], ["image/png", "image/png"])
    first, second = buffers[0][: content["sizes"][0]], buffers[0][content["sizes"][0] :]
    assert [Image.open(io.BytesIO(data)).getpixel((0, 0)) for data in (first, second)] == [(200,) * 3, (0,) * 3]


def test_a_picture_that_cannot_be_read_is_told_with_the_reason():
    class Disk(list):
        def __getitem__(self, place):
            raise OSError(f"{place}.png is truncated")

    page = Page(LabelGrid(Disk([0, 0]), CLASSES))
    page.say(kind="pictures", cards=[1])
    content, buffers = page.heard[-1]
    assert (content["reasons"], content["sizes"], buffers) == (["1.png is truncated"], [0], [b""])


def test_no_image_and_no_label_is_in_the_widgets_state(page):
    page.do("label", 1, 0)
    state = page.grid.get_state()
    assert "cat" not in str({name: value for name, value in state.items() if name not in ("_esm", "_css")})
    assert not [name for name, value in state.items() if isinstance(value, bytes)]


def test_what_is_answered_in_one_gesture_is_taken_back_in_one(page, told):
    page.do("label", 0, 1)
    ops = [{"id": f"g{i}", "op": "label", "card": i, "value": 0, "group": "g"} for i in (1, 2)]
    page.say(kind="ops", ops=ops)
    assert page.grid.labels == {0: "dog", 1: "cat", 2: "cat"}
    page.do("undo", op_id="u")
    assert page.grid.labels == {0: "dog"}
    page.do("undo", op_id="u")  # the same once more
    assert page.grid.labels == {0: "dog"}
    page.do("redo")
    assert page.grid.labels == {0: "dog", 1: "cat", 2: "cat"}


def test_flags_and_notes_are_no_answers(page, told):
    page.do("flag", 1)
    view = page.do("note", 2, text="<b>sleeve</b>")["view"]
    assert view["marks"] == {"1": {"flag": True, "note": ""}, "2": {"flag": False, "note": "<b>sleeve</b>"}}
    page.do("flag", 1, on=False)
    assert page.do("note", 2, text="")["view"]["marks"] == {}
    assert (view["answers"], view["canUndo"], told) == ({}, False, [])


def test_classes_are_added_and_renamed_with_what_was_said(page):
    page.do("label", 0, 1)
    page.do("class", text="cow")
    view = page.do("rename", value=1, text="hound")["view"]
    assert (view["classes"], view["answers"], view["counts"]) == (["cat", "hound", "cow"], {"0": 1}, [0, 1, 0])
    assert view["keys"]["classes"] == ["1", "2", "3"]
    page.do("undo")
    assert page.do("redo")["view"]["answers"] == {"0": 1}
    assert page.grid.labels == {0: "hound"}


def test_a_class_that_is_merged_leaves_the_numbers_of_the_others(told):
    grid = LabelGrid(IMAGES, ["cat", "dog", "cow"], on_label=lambda *one: told.append(one), keys={"dog": "z"})
    page = Page(grid)
    page.do("label", 0, 1)
    page.do("label", 1, 2)
    view = page.do("merge", value=1, text="cat")["view"]
    assert (view["classes"], view["answers"], view["counts"]) == (["cat", "", "cow"], {"0": 0, "1": 2}, [1, 0, 1])
    assert view["keys"]["classes"] == ["z", "", "1"]
    page.do("label", 2, 1)  # pressed before the page knew
    page.do("label", 1, 2)
    assert grid.labels == {0: "cat", 1: "cow", 2: "cat"}
    assert page.do("rename", value=2, text="calf")["view"]["classes"] == ["cat", "", "calf"]
    assert page.do("merge", value=2, text="cat")["errors"]  # one would be left
    assert page.do("class", text="dog")["view"]["classes"] == ["cat", "", "calf", "dog"]
    assert page.do("merge", value=2, text="fish")["errors"]


def test_with_several_labels_an_answer_is_a_set_of_classes(told):
    grid = LabelGrid(IMAGES, CLASSES, on_label=lambda place, names: told.append((place, names)), multi_label=True)
    page = Page(grid)
    page.do("label", 0, [1, 0])
    view = page.do("label", 1, [])["view"]
    assert grid.labels == {0: ("cat", "dog"), 1: ()}
    assert (view["answers"], view["counts"]) == ({"0": [0, 1], "1": []}, [1, 1])
    assert told == [(0, ("cat", "dog")), (1, ())]
    assert page.do("label", 2, 1)["errors"]


def test_what_is_set_aside_says_why(page):
    page.do("skip", 0)
    view = page.do("unsure", 1)["view"]
    assert view["answers"] == {"0": -1, "1": -2}
    assert view["recent"] == [[1, -2], [0, -1]]


def test_an_error_of_the_callback_is_shown_and_the_answer_kept():
    def fail(place, name):
        raise RuntimeError("the disk of the callback is full")

    page = Page(LabelGrid(IMAGES, CLASSES, on_label=fail))
    reply = page.do("label", 0, 1, op_id="x")
    assert reply["done"] == ["x"]
    assert reply["errors"] == ["RuntimeError: the disk of the callback is full"]
    assert page.grid.labels == {0: "dog"}


def test_what_could_not_be_saved_is_not_acknowledged_and_may_come_again(page, monkeypatch):
    append = page.grid.deck._journal.append

    def full(*_):
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    monkeypatch.setattr(page.grid.deck._journal, "append", full)
    ops = [{"id": str(i), "op": "label", "card": i, "value": 0} for i in range(2)]
    reply = page.say(kind="ops", ops=ops)
    assert (reply["done"], reply["held"]) == ([], ["0", "1"])
    assert "disk is full" in reply["errors"][0]
    assert reply["view"]["answers"] == {}
    monkeypatch.setattr(page.grid.deck._journal, "append", append)
    assert page.say(kind="ops", ops=ops)["done"] == ["0", "1"]


@pytest.mark.parametrize(
    "message",
    [
        None,
        [],
        "label",
        {},
        {"kind": "nothing"},
        {"kind": "ops"},
        {"kind": "ops", "ops": 3},
        {"kind": "ops", "ops": [{}]},
        {"kind": "ops", "ops": [{"id": "a", "op": "__class__"}]},
        {"kind": "ops", "ops": [{"id": "a", "op": "label", "card": 3, "value": 0}]},
        {"kind": "ops", "ops": [{"id": "a", "op": "label", "card": -1, "value": 0}]},
        {"kind": "ops", "ops": [{"id": "a", "op": "label", "card": True, "value": 0}]},
        {"kind": "ops", "ops": [{"id": "a", "op": "label", "card": "0", "value": 0}]},
        {"kind": "ops", "ops": [{"id": "a", "op": "label", "card": 0, "value": 2}]},
        {"kind": "ops", "ops": [{"id": "a", "op": "label", "card": 0, "value": None}]},
        {"kind": "ops", "ops": [{"id": "a", "op": "label", "card": 0}]},
        {"kind": "ops", "ops": [{"id": "a", "op": "skip"}]},
        {"kind": "pictures", "cards": [3]},
        {"kind": "pictures", "cards": [0, 99]},
        {"kind": "pictures", "cards": ["../../etc/passwd"]},
        {"kind": "pictures", "cards": [0] * 9_999},
        {"kind": "turn", "id": "a", "cards": [3]},
        {"kind": "turn", "cards": [0]},
        {"kind": "why"},
        {"kind": "ops", "ops": [{"id": "a", "op": "keep", "card": 0}]},
        {"kind": "ops", "ops": [{"id": "a", "op": "note", "card": 0, "text": "a" * 10_001}]},
        {"kind": "ops", "ops": [{"id": "a", "op": "class", "text": "cat"}]},
        {"kind": "ops", "ops": [{"id": "a", "op": "rename", "value": 5, "text": "cow"}]},
        {"kind": "do", "do": "learn"},
    ],
)
def test_a_message_that_makes_no_sense_is_answered_with_an_error_and_changes_nothing(page, message):
    page.grid._handle_custom_msg(message, [])
    assert page.heard[-1][0]["errors"]
    assert page.grid.labels == {}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["kind", "ops", "cards", "do", "dark", "id", "card", "large", "n", "on"]), json_values
    )
)
@settings(max_examples=200, deadline=None)
def test_no_message_of_any_kind_gets_through_to_the_kernel_as_an_exception(message):
    page = Page(LabelGrid(IMAGES, CLASSES))
    page.grid._handle_custom_msg(message, [])
    assert page.heard


def test_threads_that_answer_at_once_lose_nothing():
    page = Page(LabelGrid([IMAGES[0]] * 400, CLASSES))

    def answer(start):
        for item in range(start, 400, 4):
            ops = [{"id": f"{item}", "op": "label", "card": item, "value": item % 2}]
            page.grid._handle_custom_msg({"kind": "ops", "ops": ops}, [])

    threads = [threading.Thread(target=answer, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert page.grid.labels == {item: CLASSES[item % 2] for item in range(400)}
    sizes = [len(content["view"]["answers"]) for content, _ in page.heard]
    assert sizes == sorted(sizes)  # no older view is sent after a newer one


def test_its_text_is_the_same_each_time():
    assert repr(LabelGrid(IMAGES, CLASSES)) == "LabelGrid(3 images, 0 labelled). Run this cell to label."


def test_class_names_must_be_two_different_ones():
    with pytest.raises(ValueError, match="two or more"):
        LabelGrid(IMAGES, ["cat"])

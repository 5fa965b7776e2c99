import pytest
from hypothesis import given
from hypothesis import strategies as st

from baal_widgets.widgets.keymap import COMMANDS, FOR_CLASSES, keymap

CLASSES = [f"class {i}" for i in range(40)]


def used(keys):
    return [key for key in (*keys["classes"], *keys["commands"].values()) if key]


def test_digits_come_first_then_letters_that_no_command_needs():
    keys = keymap(CLASSES)
    assert keys["classes"][:12] == [*"1234567890", "a", "b"]
    assert keys["classes"][24:] == [""] * 16
    assert keys["commands"] == COMMANDS
    assert not set(FOR_CLASSES) & set(COMMANDS.values())


def test_keys_of_ones_own_win_and_what_they_take_is_replaced_or_goes_without():
    keys = keymap(["cat", "dog", "cow"], {"cat": "S", "undo": "2"})
    assert keys["classes"] == ["s", "1", "3"]
    assert keys["commands"]["skip"] == ""
    assert keys["commands"]["undo"] == "2"


def test_a_class_added_later_leaves_the_keys_of_the_others():
    assert keymap(CLASSES[:5])["classes"] == keymap(CLASSES[:9])["classes"][:5]


@given(st.dictionaries(st.sampled_from([*CLASSES[:12], *COMMANDS]), st.characters(min_codepoint=33, max_codepoint=300)))
def test_no_key_is_given_to_two(own):
    try:
        keys = keymap(CLASSES[:12], own)
    except ValueError:
        return
    assert len(set(used(keys))) == len(used(keys))


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"mouse": "m"}, "neither a class"),
        ({"cat": "ab"}, "one character"),
        ({"cat": " "}, "one character"),
        ({"cat": "x", "dog": "X"}, "two of its names"),
    ],
)
def test_keys_that_cannot_be_are_refused(own, told):
    with pytest.raises(ValueError, match=told):
        keymap(["cat", "dog"], own)

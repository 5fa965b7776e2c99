import io

import pytest
from PIL import Image

from baal_widgets.widgets.thumbnails import LARGE, SIDE, Thumbnails, encode


def opened(thumbnail):
    return Image.open(io.BytesIO(thumbnail.data))


def test_small_pictures_are_sent_as_they_are():
    picture = Image.effect_noise((90, 40), 80).convert("RGB")
    sent = encode(picture)
    assert (sent.type, sent.whole) == ("image/png", True)
    assert opened(sent).convert("RGB").tobytes() == picture.tobytes()


@pytest.mark.parametrize(("side", "most"), [(SIDE, 60_000), (LARGE, 900_000)])
def test_large_pictures_are_sent_small_and_said_to_be(side, most):
    sent = encode(Image.effect_noise((3000, 2000), 50), side)
    assert (sent.type, sent.whole) == ("image/jpeg", False)
    assert max(opened(sent).size) == side
    assert len(sent.data) < most


def test_each_picture_is_encoded_once():
    asked = []

    def picture(card, side):
        asked.append((card, side))
        return Image.new("RGB", (8, 8), (card, 0, 0))

    thumbnails = Thumbnails(picture)
    first, again = thumbnails.of([1, 2, 3]), thumbnails.of([3, 1])
    assert again == [first[2], first[0]]
    assert sorted(asked) == [(card, SIDE) for card in (1, 2, 3)]


def test_a_picture_that_cannot_be_had_is_a_reason_and_is_tried_again():
    there = {1: Image.new("RGB", (8, 8))}

    def picture(card, side):
        if card not in there:
            raise ValueError(f"<b>{card}.png</b> is gone")
        return there[card]

    thumbnails = Thumbnails(picture)
    assert [one.reason for one in thumbnails.of([1, 2])] == ["", "<b>2.png</b> is gone"]
    there[2] = there[1]
    assert thumbnails.of([2])[0].reason == ""


def test_what_is_kept_has_an_end(monkeypatch):
    monkeypatch.setattr("baal_widgets.widgets.thumbnails.KEPT_BYTES", 2_000)
    thumbnails = Thumbnails(lambda card, side: Image.effect_noise((60, 60), 90))
    thumbnails.of(range(20))
    assert thumbnails._size <= 2_000
    assert len(thumbnails.of(range(20))) == 20


def test_whatever_a_dataset_comes_up_with_the_other_pictures_are_fine():
    def picture(card, _side):
        if card == 1:
            raise IndexError("list index out of range")
        return Image.new("RGB", (4, 4))

    made = Thumbnails(picture).of([0, 1, 2])
    assert [one.reason for one in made] == ["", "list index out of range", ""]


def test_pictures_that_are_prepared_are_made_once():
    made = []
    thumbnails = Thumbnails(lambda card, side: made.append((card, side)) or Image.new("RGB", (4, 4)))
    thumbnails.prepare(range(5))
    thumbnails.prepare(range(5))
    assert [one.type for one in thumbnails.of([3, 4, 5])] == ["image/png"] * 3
    thumbnails.of(range(6))
    thumbnails.of([5], LARGE)
    assert sorted(made) == sorted([*[(card, SIDE) for card in range(6)], (5, LARGE)])

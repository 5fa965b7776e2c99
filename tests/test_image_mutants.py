"""Two thousand damaged images: each is shown or refused with a reason, soon and in little memory."""

import pytest

from baal_widgets.images import open_image
from benchmarks.damaged_images import run, sound


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Truncated File Read")
def test_two_thousand_mutants_are_shown_or_refused_with_a_reason():
    found = run(2_000)
    assert found["shown"] + found["refused with a reason"] == 2_000
    assert found["shown"] > 100
    assert found["longest, s"] < 2
    assert found["memory grown by, MB"] < 64


def test_the_pictures_that_are_damaged_are_sound_at_first(tmp_path):
    for name, data in sound().items():
        (tmp_path / "image").write_bytes(data)
        size = open_image(tmp_path / "image").size
        assert size == ((48, 64) if "turned" in name else (64, 48)), name

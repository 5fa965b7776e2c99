import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from baal_widgets.images import find_images, open_image, to_image


def save(path, mode="RGB", size=(20, 10), **options):
    Image.new(mode, size, options.pop("color", 0)).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_every_allowed_format_is_read_as_rgb(tmp_path, suffix):
    image = open_image(save(tmp_path / f"a.{suffix}"))
    assert (image.mode, image.size) == ("RGB", (20, 10))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_every_kind_of_pixel_is_read_as_rgb(tmp_path, mode):
    suffix = "tiff" if mode == "CMYK" else "png"
    assert open_image(save(tmp_path / f"a.{suffix}", mode)).mode == "RGB"


def test_sixteen_bits_keep_their_contrast(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(1, -1).repeat(4, 0)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    seen = np.asarray(open_image(tmp_path / "a.png"))[0, :, 0]
    assert np.abs(seen.astype(int) - np.arange(256)).max() <= 1


def test_what_is_transparent_is_white(tmp_path):
    save(tmp_path / "a.png", "RGBA", color=(255, 0, 0, 0))
    assert open_image(tmp_path / "a.png").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "a.jpg", size=(20, 10), exif=exif)
    assert open_image(tmp_path / "a.jpg").size == ((10, 20) if orientation > 4 else (20, 10))


def test_a_side_shrinks_but_never_enlarges(tmp_path):
    path = save(tmp_path / "a.jpg", size=(400, 200))
    assert open_image(path, side=100).size == (100, 50)
    assert open_image(path, side=1000).size == (400, 200)


def test_a_damaged_file_is_named_and_so_is_what_is_wrong(tmp_path):
    whole = save(tmp_path / "a.png", size=(200, 200)).read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"b\.png cannot be read as an image"):
        open_image(tmp_path / "b.png")


@pytest.mark.parametrize(
    "content", [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.4", b"%!PS-Adobe-3.0 EPSF"]
)
def test_what_is_no_image_is_refused_whatever_it_is_called(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match="is no image"):
        open_image(tmp_path / "a.png")


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    Image.new("1", (15_000, 15_000)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="cannot be read"):
        open_image(tmp_path / "a.png")


def test_a_folder_gives_its_images_sorted_and_says_which_are_none(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("b/2.png", "b/1.png", "a.JPG", ".hidden/c.png"):
        save(tmp_path / name, format="PNG")
    (tmp_path / "broken.png").write_bytes(b"no")
    (tmp_path / "notes.txt").write_text("no image, and not called one")
    good, bad = find_images(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in good] == ["a.JPG", "b/1.png", "b/2.png"]
    assert [path.name for path in bad] == ["broken.png"]


def test_links_that_lead_out_and_pipes_are_left_alone(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    save(inside / "a.png")
    save(outside / "b.png")
    (inside / "b.png").symlink_to(outside / "b.png")
    os.mkfifo(inside / "c.png")
    good, bad = find_images(inside)
    assert ([path.name for path in good], bad) == (["a.png"], {})


def test_a_folder_without_images_is_an_error_that_says_so(tmp_path):
    with pytest.raises(ValueError, match="holds no image"):
        find_images(tmp_path)
    with pytest.raises(NotADirectoryError):
        find_images(tmp_path / "nowhere")


@given(st.sampled_from([(8, 6), (8, 6, 3), (8, 6, 4), (1, 8, 6), (3, 8, 6)]), st.booleans())
def test_arrays_and_tensors_of_every_layout_become_pictures(shape, tensor):
    array = np.random.default_rng(0).random(shape, dtype=np.float32)
    image = to_image(torch.from_numpy(array) if tensor else array)
    assert (image.mode, image.size) == ("RGB", (6, 8))


def test_floats_from_zero_to_one_and_bytes_show_the_same():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert to_image(values) == to_image(values.astype(np.float32) / 255)


def test_normalised_inputs_show_their_whole_range():
    seen = np.asarray(to_image(torch.linspace(-2, 2, 16).reshape(4, 4)))
    assert (seen.min(), seen.max()) == (0, 255)


def test_what_is_no_picture_is_refused():
    with pytest.raises(ValueError, match=r"shaped \(3,\)"):
        to_image(np.zeros(3))

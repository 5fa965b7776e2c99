"""Pictures in: one decoder for the model and for the person, and the files of a folder that it can read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
MAX_PIXELS = 80_000_000  # below the size at which Pillow itself begins to warn


def open_image(path: str | os.PathLike[str], side: int | None = None) -> Image.Image:
    """The picture in a file, upright (EXIF), as RGB, over white where it is transparent.

    `side` shrinks it so that neither side is longer, never enlarges it. Raises `ValueError` that names the file
    when it is no picture of a known format, is damaged, or has over 80 million pixels.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:  # reads the header alone
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"it has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
            if side is not None:
                image.draft("RGB", (side, side))
            picture = _rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise ValueError(f"{os.fspath(path)} is no image ({', '.join(FORMATS)} can be read).") from None
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow raises seven kinds on damaged files
        raise ValueError(f"{os.fspath(path)} cannot be read as an image: {error}.") from error
    if side is not None:
        picture.thumbnail((side, side))
    return picture


def find_images(folder: str | os.PathLike[str]) -> tuple[list[Path], dict[Path, str]]:
    """The readable images below a folder, sorted by name, and a reason for each file that looks like one but
    is not. Decodes every file once. Hidden files and links that lead out of the folder are left alone.
    """
    root, candidates = image_files(folder)
    good, bad = [], {}
    for path in _progress(candidates, "Checking images"):
        try:
            path.name.encode()  # the journal holds text, and some old file names are none
            open_image(path, side=64)
        except (ValueError, OSError) as error:
            bad[path] = str(error)
        else:
            good.append(path)
    if not good:
        raise ValueError(
            f"{root} holds no image that can be read ({', '.join(sorted(SUFFIXES))})"
            + (f"; {len(bad)} files were refused, the first: {next(iter(bad.values()))}" if bad else ".")
        )
    return good, bad


def image_files(folder: str | os.PathLike[str]) -> tuple[Path, list[Path]]:
    """A folder, and the files below it that look like images by their names, none of which is opened."""
    root = Path(folder).expanduser().resolve()
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is no folder. Give the folder that holds the images to label.")
    return root, [path for path in _walk(root) if path.suffix.lower() in SUFFIXES]


def to_image(value: Any) -> Image.Image:
    """A picture of what a dataset holds: a PIL image, or an array or tensor [H, W], [H, W, C] or [C, H, W].

    Integers are taken as 0 to 255, floats as 0 to 1; floats beyond that (normalised inputs) are stretched so
    that the whole range is visible.
    """
    if isinstance(value, Image.Image):
        return _rgb(value)
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ValueError(
            f"Expected an image [height, width], [height, width, channel] or [channel, height, width], "
            f"got an array shaped {array.shape}."
        )
    return _rgb(Image.fromarray(_bytes(array)))


def _bytes(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if np.issubdtype(array.dtype, np.integer):
        return array.clip(0, 255).astype(np.uint8)
    array = np.nan_to_num(array.astype(np.float32))
    low, high = float(array.min(initial=0)), float(array.max(initial=1))
    return np.rint((array - low) / (high - low) * 255).astype(np.uint8)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image.copy()
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        array = np.asarray(image, dtype=np.float32)
        return Image.fromarray(np.rint((array - array.min()) / max(np.ptp(array), 1) * 255).astype(np.uint8)).convert(
            "RGB"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _walk(root: Path) -> list[Path]:
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder, name) for name in sorted(files) if not name.startswith(".")]
    return [path for path in found if path.is_file() and path.resolve().is_relative_to(root)]


def _progress(paths: list[Path], title: str) -> Iterable[Path]:
    from tqdm import tqdm

    shown: Iterable[Path] = tqdm(paths, title, disable=True if len(paths) < 500 else None, leave=False)
    return shown

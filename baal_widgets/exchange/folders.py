"""Labels as a folder of images with a sub-folder for each class, as torchvision's `ImageFolder` reads it."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from baal_widgets.exchange.places import Names, json_text, read_json, safe_name
from baal_widgets.exchange.rows import COLUMNS, Labelled, Pictures, Whole, record, row_of, short
from baal_widgets.images import SUFFIXES

MAPPING = "mapping.json"


def write_folders(rows: Sequence[Labelled], folder: Path, whole: Whole) -> None:
    """A copy of each image in the sub-folder of its class, and `mapping.json`, which tells what the names were.

    Folders and files are named by what is harmless in the names of classes and keys. A class without images has a
    folder too, so that its index stays. Raises `ValueError` where an item has several classes.
    """
    pictures = pictures_of(whole, "imagefolder")
    for row in rows:
        if isinstance(row.label, tuple):
            raise ValueError(
                f"A folder for each class holds items of one class, {row.name} may have several. Export to "
                "format='huggingface', or to a table."
            )
    given = Names()
    folders = {name: given.safe(name) for name in whole.names(rows)}
    for place in folders.values():
        (folder / place).mkdir()
    files = []
    for number, row in enumerate(rows):
        assert isinstance(row.label, str)
        name = f"{number:06d}-{safe_name(Path(row.key or str(row.item)).stem)}"
        name = copy_picture(pictures, row, folder / folders[row.label], name)
        files.append({"file": name, **record(row)})
    classes = [{"folder": place, "name": name} for name, place in folders.items()]
    (folder / MAPPING).write_text(json_text({"classes": classes, "files": files}, indent=1) + "\n", encoding="utf-8")


def read_folders(folder: Path) -> list[Labelled]:
    """A row for each image in a sub-folder. Where somebody has moved one to another sub-folder, that is its label now.

    Without a `mapping.json` a sub-folder's name is the class, and the path of the image within it the key. No image is
    opened.
    """
    told = read_json(folder / MAPPING) if (folder / MAPPING).is_file() else {}
    if not isinstance(told, Mapping):
        raise ValueError(f"{MAPPING}: expected an object with classes and files, got {short(told)}.")
    classes = {_same(_text(one, "folder")): _text(one, "name") for one in _list(told, "classes")}
    known = {_same(_text(one, "file")): one for one in _list(told, "files")}
    order = {name: place for place, name in enumerate(known)}
    found = sorted(_images(folder), key=lambda path: (order.get(_same(path.name), len(order)), path.as_posix()))
    rows = []
    for path in found:
        label = classes.get(_same(path.parts[0]), path.parts[0])
        row = dict(known.get(_same(path.name), {"key": path.relative_to(path.parts[0]).as_posix()}))
        if row.get("label") != label:
            row |= {"label": label, "annotator": "", "round": 0}
        rows.append(row_of({name: row.get(name) for name in COLUMNS}, f"{folder.name}/{path.as_posix()}"))
    return rows


def pictures_of(whole: Whole, format_: str) -> Pictures:
    """The images to write; `ValueError` where there are none."""
    if whole.pictures is None:
        raise ValueError(
            f"The format {format_!r} holds the images too, and a journal has none. Open the session with its dataset: "
            f"session.export(path, {format_!r})."
        )
    return whole.pictures


def copy_picture(pictures: Pictures, row: Labelled, folder: Path, name: str) -> str:
    """Write the image of a row to a folder: the bytes of its file, or as PNG where the dataset has no files.

    `name` comes without the suffix, and is given back with it.
    """
    if row.item is None:
        raise ValueError(f"Expected the index of {row.name} in the dataset, to find its image.")
    source = None if pictures.files is None else pictures.files[row.item]
    suffix = "" if source is None else source.suffix.lower()
    if source is None or suffix not in SUFFIXES:
        place = folder / f"{name}.png"
        with place.open("xb") as file:
            pictures.picture(row.item).save(file, "PNG")
        return place.name
    place = folder / f"{name}{suffix}"
    with source.open("rb") as original, place.open("xb") as file:
        shutil.copyfileobj(original, file)
    return place.name


def _images(folder: Path) -> list[Path]:
    """The images in sub-folders, as paths within the folder; hidden ones and links to other folders left out."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if Path(place) != folder:
            found += [Path(place, name) for name in files if not name.startswith(".")]
    return [path.relative_to(folder) for path in found if path.suffix.lower() in SUFFIXES]


def _same(name: str) -> str:
    return unicodedata.normalize("NFC", name)  # some file systems take names apart


def _list(told: Mapping[str, Any], name: str) -> list[Any]:
    value = told.get(name, [])
    if not isinstance(value, list):
        raise ValueError(f"{MAPPING}: expected {name} to be a list, got {short(value)}.")
    return value


def _text(told: Any, name: str) -> str:
    if not isinstance(told, Mapping) or not isinstance(told.get(name), str):
        raise ValueError(f"{MAPPING}: expected an object with the text {name}, got {short(told)}.")
    return str(told[name])

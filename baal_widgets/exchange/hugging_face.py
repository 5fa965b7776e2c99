"""Labels and images as `datasets.load_dataset("imagefolder", data_dir=...)` of Hugging Face reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from baal_widgets.exchange.folders import copy_picture, pictures_of
from baal_widgets.exchange.places import json_text
from baal_widgets.exchange.rows import Labelled, Whole, record, row_of, short
from baal_widgets.exchange.tables import lines_of

METADATA = "metadata.jsonl"
SPLIT = "train"


def write_hugging_face(rows: Sequence[Labelled], folder: Path, whole: Whole) -> None:
    """The images in `train/`, named by numbers, and beside them `metadata.jsonl`: a row for each, with its label.

    The label is a text, or a list of texts where items have several classes. Names of files say nothing, since the
    library would take `test` in one for a split. Raises `ValueError` where some items have several and some one.
    """
    pictures = pictures_of(whole, "huggingface")
    if len({isinstance(row.label, tuple) for row in rows}) > 1:
        raise ValueError("Expected each label to be a class name, or each to be several, got both. Export a table.")
    if not rows:
        raise ValueError("There is no label to export, and a dataset without rows cannot be loaded. Label an item.")
    place = folder / SPLIT
    place.mkdir()
    with (place / METADATA).open("x", encoding="utf-8", newline="\n") as file:
        for number, row in enumerate(rows):
            name = copy_picture(pictures, row, place, f"{number:06d}")
            file.write(json_text({"file_name": name, **record(row)}) + "\n")


def read_hugging_face(folder: Path) -> list[Labelled]:
    """The rows of `metadata.jsonl`, in the folder or in its `train`. Without `key` an image is known by its path."""
    path = metadata_in(folder)
    if path is None:
        raise ValueError(f"{folder.name}: expected {METADATA} in it or in its {SPLIT}, got neither.")
    rows = []
    for told, where in lines_of(path):
        if isinstance(told, Mapping) and told.get("key") is None and told.get("item") is None:
            if not isinstance(told.get("file_name"), str):
                raise ValueError(f"{where}: expected file_name, the path of an image, got {short(told)}.")
            told = {**told, "key": told["file_name"]}
        rows.append(row_of(told, where))
    return rows


def metadata_in(folder: Path) -> Path | None:
    """Where the rows of such a folder are, if it is one."""
    return next((path for path in (folder / METADATA, folder / SPLIT / METADATA) if path.is_file()), None)

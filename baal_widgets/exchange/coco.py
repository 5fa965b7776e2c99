"""Labels in the file format of COCO, for classification: images, categories, and annotations without a box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from baal_widgets.exchange.places import json_text, read_json
from baal_widgets.exchange.rows import Labelled, Pictures, Whole, about, row_of, short
from baal_widgets.images import FORMATS


def write_coco(rows: Sequence[Labelled], path: Path, whole: Whole) -> None:
    """An annotation for each class of an item. Width and height are there where the images are at hand.

    What COCO has no field for (`item`, `key`, `annotator`, `round`, `sha256`, and `multi_label`, so that none of the
    classes is a label too) stands beside the fields of an image, where readers of COCO leave it alone.
    """
    categories = {name: number for number, name in enumerate(whole.names(rows), 1)}
    images, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    for number, row in enumerate(rows, 1):
        image = {"id": number, "file_name": row.key or f"item-{row.item}"}
        if whole.pictures is not None and row.item is not None:
            image |= _size(whole.pictures, row.item)
        told = {"item": row.item, "key": row.key, **about(row)}
        images.append({**image, **told, "multi_label": isinstance(row.label, tuple)})
        for name in row.names:
            annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": categories[name]}
            annotations.append({**annotation, "iscrowd": 0})
    everything = {
        "info": {"description": "Labels of images, without boxes"},
        "licenses": [],
        "categories": [{"id": number, "name": name, "supercategory": ""} for name, number in categories.items()],
        "images": images,
        "annotations": annotations,
    }
    with path.open("x", encoding="utf-8") as file:
        file.write(json_text(everything) + "\n")


def read_coco(path: Path) -> list[Labelled]:
    """A row for each image that has an annotation: its categories, in order. Boxes and outlines are left alone.

    An image of a file that this package did not write is known by its `file_name`; it has several classes where it has
    annotations of more than one.
    """
    told, file = read_json(path), path.name
    if not isinstance(told, Mapping):
        raise ValueError(f"{file}: expected an object with images, categories and annotations, got {short(told)}.")
    names = {_id(one, place, "id"): _id(one, place, "name") for place, one in _all(told, "categories", file)}
    images = _all(told, "images", file)
    found: dict[int | str, list[Any]] = {_id(one, place, "id"): [] for place, one in images}
    if len(found) < len(images) or len(names) < len(told["categories"]):
        raise ValueError(f"{file}: expected an id of its own for each image and each category, got one of them twice.")
    for place, annotation in _all(told, "annotations", file):
        number, category = _id(annotation, place, "image_id"), _id(annotation, place, "category_id")
        if number not in found or category not in names:
            what, got = ("an image", number) if number not in found else ("a category", category)
            raise ValueError(f"{place}: expected the id of {what} of this file, got {short(got)}.")
        found[number].append(names[category])
    rows = []
    for place, image in images:
        several, labels = image.get("multi_label"), found[_id(image, place, "id")]
        if several is None:
            labels = list(dict.fromkeys(labels)) if all(isinstance(name, str) for name in labels) else labels
            several = len(labels) > 1
        if not labels and not several:
            continue
        if len(labels) > 1 and not several:
            raise ValueError(f"{place}: expected one annotation, since multi_label is false, got {len(labels)}.")
        key = {} if "item" in image or "key" in image else {"key": image.get("file_name")}
        rows.append(row_of({**image, **key, "label": labels if several else labels[0]}, place))
    return rows


def _size(pictures: Pictures, item: int) -> dict[str, int]:
    """The size in pixels; nothing for items that are no images."""
    try:
        if pictures.files is not None:
            with Image.open(pictures.files[item], formats=FORMATS) as image:  # the header alone
                return {"width": image.width, "height": image.height}
        width, height = pictures.picture(item).size
    except (ValueError, OSError):  # the labels of a file that is gone are worth having
        return {}
    return {"width": width, "height": height}


def _all(told: Mapping[str, Any], name: str, file: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The objects of a list, and what to call each in an error."""
    rows = told.get(name)
    if not isinstance(rows, list):
        raise ValueError(f"{file}: expected {name} to be a list, got {short(rows)}.")
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(f"{file}, {name}[{place}]: expected an object, got {short(row)}.")
    return [(f"{file}, {name}[{place}]", row) for place, row in enumerate(rows)]


def _id(row: Mapping[str, Any], place: str, name: str) -> int | str:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"{place}: expected {name} to be a number or a text, got {short(value)}.")
    return value

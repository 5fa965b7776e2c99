"""Labels as tasks with annotations, in the JSON that Label Studio imports and exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from baal_widgets.exchange.places import json_text, read_json
from baal_widgets.exchange.rows import Labelled, Whole, about, row_of, short

CONTROL, IMAGE = "label", "image"
LOCAL = "/data/local-files/?d="


def write_label_studio(rows: Sequence[Labelled], path: Path, _whole: Whole, *, image_prefix: str = "") -> None:
    """A task for each item, with one annotation of `Choices` named `label` on an `Image` named `image`.

    A project for them has the configuration `<View><Image name="image" value="$image"/><Choices name="label"
    toName="image">...</Choices></View>`. `image_prefix` goes before each key to make the address of an image, such as
    `/data/local-files/?d=`. What Label Studio has no field for stands in the task's `data`.
    """
    tasks = []
    for row in rows:
        address = f"{image_prefix}{quote(row.name) if image_prefix else row.name}"
        told = {"item": row.item, "key": row.key, **about(row)}
        data = {"image": address, **told, "multi_label": isinstance(row.label, tuple)}
        choice = {"from_name": CONTROL, "to_name": IMAGE, "type": "choices", "value": {"choices": list(row.names)}}
        tasks.append({"data": data, "annotations": [{"result": [choice]}]})
    with path.open("x", encoding="utf-8") as file:
        file.write(json_text(tasks) + "\n")


def read_label_studio(path: Path) -> list[Labelled]:
    """A row for each annotation with choices that was not cancelled; the predictions of models are left alone.

    A task that this package did not write is known by the address of its image, less the part that serves local files.
    It has several classes where more than one was chosen. Raises `ValueError` where an annotation answers several
    questions.
    """
    told = read_json(path)
    if not isinstance(told, list):
        raise ValueError(
            f"{path.name}: expected a list of tasks, as Label Studio's export named JSON, got {short(told)}."
        )
    rows = list[Labelled]()
    for number, task in enumerate(told):
        where = f"{path.name}, task {number}"
        data, annotations = _field(task, "data", Mapping, where), _field(task, "annotations", list, where)
        for annotation in annotations:
            result = _field(annotation, "result", list, where)
            if annotation.get("was_cancelled") is True:
                continue
            choices = [one for one in result if isinstance(one, Mapping) and one.get("type") == "choices"]
            if len(choices) > 1:
                asked = short([one.get("from_name") for one in choices])
                raise ValueError(f"{where}: expected the answer to one question, got those to {asked}.")
            for choice in choices:
                names = _field(_field(choice, "value", Mapping, where), "choices", list, where)
                rows.append(_row(data, names, annotation.get("completed_by"), where))
    return rows


def _row(data: Mapping[str, Any], names: list[Any], by: Any, where: str) -> Labelled:
    several = data.get("multi_label", len(names) != 1)
    if not several and len(names) != 1:
        raise ValueError(f"{where}: expected one choice, since multi_label is false, got {len(names)}.")
    ours = "multi_label" in data  # others have items and keys that mean something else
    known = data if ours and ("key" in data or "item" in data) else {"key": _key_in(data, where)}
    return row_of(
        {
            "item": known.get("item"),
            "key": known.get("key"),
            "label": names if several else names[0],
            "annotator": data.get("annotator") if by is None else _person(by),
            "round": data.get("round"),
            "sha256": data.get("sha256") if ours else None,
        },
        where,
    )


def _key_in(data: Mapping[str, Any], where: str) -> str:
    address = data.get(IMAGE)
    if not isinstance(address, str):
        raise ValueError(f"{where}: expected data to hold key, item or image, got only {short(list(data))}.")
    return unquote(address.removeprefix(LOCAL)) if address.startswith(LOCAL) else address


def _person(by: Any) -> str:
    """An annotator, whom Label Studio knows by number, by address or as an object with either."""
    if isinstance(by, Mapping):
        by = by.get("email") or by.get("id") or ""
    return str(by)


def _field(told: Any, name: str, kind: type, where: str) -> Any:
    value = told.get(name) if isinstance(told, Mapping) else None
    if not isinstance(value, kind):
        what = "a list" if kind is list else "an object"
        raise ValueError(f"{where}: expected {name} to be {what}, got {short(value)}.")
    return value

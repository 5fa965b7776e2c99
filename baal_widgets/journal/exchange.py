"""Labels out of the house: a table with a row an item."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

COLUMNS = ("item", "key", "label", "annotator", "round")


def write_labels(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> Path:
    """Write rows of labels in the format that the suffix names, and return the path.

    The file appears whole or not at all. Raises `ValueError` for a suffix it does not know.
    """
    target = Path(path).expanduser()
    write = _FORMATS.get(target.suffix.lower())
    if write is None:
        raise ValueError(f"Cannot write {target.name}: labels go to a file named {' or '.join(sorted(_FORMATS))}.")
    part = target.with_name(target.name + ".part")
    with part.open("w", encoding="utf-8", newline="") as file:
        write(rows, file)
    return part.replace(target)


def _csv(rows: Sequence[Mapping[str, Any]], file: TextIO) -> None:
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    for row in rows:
        label = row["label"]
        writer.writerow({**row, "label": label if isinstance(label, str) else json.dumps(label, ensure_ascii=False)})


def _jsonl(rows: Sequence[Mapping[str, Any]], file: TextIO) -> None:
    for row in rows:
        file.write(json.dumps({name: row[name] for name in COLUMNS}, ensure_ascii=False) + "\n")


_FORMATS = {".csv": _csv, ".jsonl": _jsonl}

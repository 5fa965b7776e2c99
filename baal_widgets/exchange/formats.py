"""The formats that labels are written in and read from, and how a path tells which."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baal_widgets.exchange.baal_state import read_baal_state, write_baal_state
from baal_widgets.exchange.coco import read_coco, write_coco
from baal_widgets.exchange.folders import MAPPING, read_folders, write_folders
from baal_widgets.exchange.hugging_face import metadata_in, read_hugging_face, write_hugging_face
from baal_widgets.exchange.label_studio import read_label_studio, write_label_studio
from baal_widgets.exchange.places import new_file, new_folder
from baal_widgets.exchange.rows import Labelled, Whole, check_rows
from baal_widgets.exchange.tables import (
    read_csv,
    read_jsonl,
    read_parquet,
    write_csv,
    write_jsonl,
    write_parquet,
)


@dataclass(frozen=True)
class Format:
    """How labels are written and read, by which suffix a file of it is known (`""` for a folder), and its options."""

    write: Callable[..., None]
    read: Callable[[Path], list[Labelled]]
    suffix: str
    options: frozenset[str] = frozenset()


FORMATS = {
    "csv": Format(write_csv, read_csv, ".csv", frozenset({"spreadsheet_safe"})),
    "jsonl": Format(write_jsonl, read_jsonl, ".jsonl"),
    "parquet": Format(write_parquet, read_parquet, ".parquet"),
    "baal": Format(write_baal_state, read_baal_state, ".npz"),
    "coco": Format(write_coco, read_coco, ".coco.json"),
    "label-studio": Format(write_label_studio, read_label_studio, ".label-studio.json", frozenset({"image_prefix"})),
    "imagefolder": Format(write_folders, read_folders, ""),
    "huggingface": Format(write_hugging_face, read_hugging_face, ""),
}


def write_labels(
    rows: Iterable[Labelled],
    path: str | os.PathLike[str],
    format: str | None = None,  # noqa: A002 (what everybody calls it)
    *,
    whole: Whole | None = None,
    **options: Any,
) -> Path:
    """Write labels in a format, or in the one that the path's suffix names, and return the path.

    The suffixes are `.csv`, `.jsonl`, `.parquet`, `.npz` (Baal's state), `.coco.json` and `.label-studio.json`; a path
    without one is a folder of images. What is written appears whole or not at all: a file in the place of one that was
    there, a folder only where there was none. `whole` is the dataset around the labels, whose images some formats hold.
    Options: `spreadsheet_safe` of `csv`, `image_prefix` of `label-studio`. Raises `ValueError` for a format it does not
    know, that cannot hold these labels or does not have the option.
    """
    target = Path(path).expanduser()
    name = format_of(target, format)
    wanted = FORMATS[name]
    if unknown := sorted(options.keys() - wanted.options):
        raise ValueError(
            f"The format {name!r} has no option {', '.join(unknown)}, only {sorted(wanted.options) or 'none'}."
        )
    checked = check_rows(rows)
    with new_file(target) if wanted.suffix else new_folder(target) as place:
        wanted.write(checked, place, whole or Whole(), **options)
    return target


def read_labels(path: str | os.PathLike[str], format: str | None = None) -> list[Labelled]:  # noqa: A002
    """The labels in a file or folder, in the format that is given or that the path's suffix tells.

    What is read is data and nothing else: no pickle, no code, no image. Raises `FileNotFoundError`, and `ValueError`
    that names the file, the line or place in it, and what was expected there.
    """
    source = Path(path).expanduser()
    if not source.exists():
        raise FileNotFoundError(f"No file or folder of labels at {source}.")
    wanted = FORMATS[format_of(source, format)]
    if source.is_dir() == bool(wanted.suffix):
        raise ValueError(f"Expected {source} to be a {'file' if wanted.suffix else 'folder'}, it is the other.")
    return wanted.read(source)


def format_of(path: Path, said: str | None = None) -> str:
    """The name of the format that is said, or that a path is meant for. Raises `ValueError` where there is none."""
    if said is not None:
        return _named(said)
    if path.is_dir():
        return "huggingface" if not (path / MAPPING).is_file() and metadata_in(path) else "imagefolder"
    found = [name for name, one in FORMATS.items() if one.suffix and path.name.lower().endswith(one.suffix)]
    if not found and (path.suffix or path.is_file()):
        suffixes = [one.suffix for one in FORMATS.values() if one.suffix]
        raise ValueError(
            f"Cannot tell the format of {path.name}: labels are in a file named {', '.join(suffixes[:-1])} or "
            f"{suffixes[-1]}, or in a folder. Else say format=, one of {', '.join(FORMATS)}."
        )
    return found[0] if found else "imagefolder"


def _named(format_: str) -> str:
    if format_ not in FORMATS:
        raise ValueError(f"Expected a format, one of {', '.join(FORMATS)}, got {format_!r}.")
    return format_

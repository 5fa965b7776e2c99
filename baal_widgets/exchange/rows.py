"""A label on its way in or out, and what else a format may want to know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

COLUMNS = ("item", "key", "label", "annotator", "round", "sha256")
HEX = frozenset("0123456789abcdef")
LARGEST = 2**63 - 1  # of a whole number: what a database and a Parquet column can hold

Label = str | tuple[str, ...]


@dataclass(frozen=True)
class Labelled:
    """What is said of an item: the class it is of, or a tuple of the classes it has, `()` for none of them.

    `item` is its index in the whole dataset, `key` the name that stays when files are added: a path relative to the
    folder. One of the two may be unknown. `sha256` tells what the item held when it was labelled, the hash of a file's
    bytes in hexadecimal, where that is known. `label` is `None` where a file has a row for the item but no label yet.
    Raises `ValueError` that names the field which is not so.
    """

    item: int | None
    key: str | None
    label: Label | None
    annotator: str = ""
    round: int = 0
    sha256: str | None = None

    def __post_init__(self) -> None:
        if self.item is None and self.key is None:
            raise ValueError("Expected an item's index or its key, got neither.")
        for name, number in (("item", self.item), ("round", self.round)):
            if number is not None and not _is_whole(number):
                raise ValueError(f"Expected {name} to be a whole number from 0 on, got {short(number)}.")
        if self.key is not None and not _is_text(self.key, 1):
            raise ValueError(f"Expected key to be a text, not empty, got {short(self.key)}.")
        if not _is_text(self.annotator):
            raise ValueError(f"Expected annotator to be a text, got {short(self.annotator)}.")
        if self.sha256 is not None and not _is_hash(self.sha256):
            raise ValueError(f"Expected sha256 to be 64 hexadecimal digits, got {short(self.sha256)}.")
        names = self.label if isinstance(self.label, tuple) else (self.label,) if self.label is not None else ()
        for name in names:
            if not _is_text(name, 1):
                raise ValueError(
                    f"Expected label to be a class name or several, none of them empty, got {short(name)}."
                )

    @property
    def name(self) -> str:
        """What to call the item before a person."""
        return f"item {self.item}" if self.key is None else self.key

    @property
    def names(self) -> tuple[str, ...]:
        """The classes of the item: one, or where it may have several any number."""
        return self.label if isinstance(self.label, tuple) else () if self.label is None else (self.label,)

    def renamed(self, name_of: Callable[[str], str]) -> Labelled:
        """The same with other names for the classes; itself where they are the same."""
        names = tuple(dict.fromkeys(map(name_of, self.names)))
        if names == self.names:
            return self
        return replace(self, label=names if isinstance(self.label, tuple) else names[0])


class Pictures(Protocol):
    """The images of a dataset: those of files as they lie there, any as what a person sees."""

    @property
    def files(self) -> Sequence[Path] | None: ...

    def picture(self, item: int, side: int | None = None) -> Image.Image: ...


@dataclass(frozen=True)
class Whole:
    """The dataset around the labels: its classes in order, its length, its images, and numpy's random state."""

    classes: tuple[str, ...] = ()
    n_items: int | None = None
    pictures: Pictures | None = None
    random_state: Mapping[str, Any] | None = None

    def names(self, rows: Iterable[Labelled]) -> list[str]:
        """The classes in their order, then whatever else the rows name."""
        return list(dict.fromkeys([*self.classes, *(name for row in rows for name in row.names)]))


def record(row: Labelled) -> dict[str, Any]:
    """A row in types that JSON knows: several classes are a list."""
    label = list(row.label) if isinstance(row.label, tuple) else row.label
    return {"item": row.item, "key": row.key, "label": label, **about(row)}


def about(row: Labelled) -> dict[str, Any]:
    """What a row tells beside the item's name and label."""
    return {"annotator": row.annotator, "round": row.round, "sha256": row.sha256}


def row_of(told: Any, where: str) -> Labelled:
    """The row that a record of a file tells, which `where` names. A field that is not there is unknown or empty.

    Raises `ValueError`, which begins with `where`.
    """
    if not isinstance(told, Mapping):
        raise ValueError(f"{where}: expected an object with {', '.join(COLUMNS)}, got {short(told)}.")
    if "label" not in told:
        raise ValueError(f"{where}: expected a label, got only {short(list(told))}.")
    label, key, annotator, hash_ = told["label"], told.get("key"), told.get("annotator"), told.get("sha256")
    if isinstance(label, Sequence) and not isinstance(label, (str, bytes)):
        label = tuple(label)
    try:
        return Labelled(
            item=_whole(told.get("item")),
            key=None if key == "" else key,
            label=None if label == "" else label,
            annotator="" if annotator is None else annotator,
            round=_whole(told.get("round")) or 0,
            sha256=(hash_.lower() if isinstance(hash_, str) else hash_) or None,
        )
    except ValueError as error:
        raise ValueError(f"{where}: {_begun_small(str(error))}") from None


def check_rows(rows: Iterable[Labelled]) -> list[Labelled]:
    """The rows, each of which must have a label."""
    checked = list(rows)
    for row in checked:
        if row.label is None:
            raise ValueError(f"Expected labelled items, got {row.name} without a label. Leave it out.")
    return checked


def short(value: Any) -> str:
    """A value in an error message, at most 80 characters."""
    told = repr(value[:80] if isinstance(value, (str, bytes)) else value)
    return told if len(told) <= 80 else f"{told[:77]}..."


def _whole(value: Any) -> Any:
    """A float that a table made of whole numbers, since some were missing, as a whole number again."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST


def _is_text(value: Any, shortest: int = 0) -> bool:
    if not isinstance(value, str) or len(value) < shortest:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half a character, which no file can hold
        return False
    return True


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= HEX


def _begun_small(text: str) -> str:
    return text[:1].lower() + text[1:]

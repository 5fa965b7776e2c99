"""Which item each row of a file of labels is about: by its path, and by what the item held."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Protocol

from baal_widgets.exchange.rows import Labelled


class Held(Protocol):
    """What an item holds."""

    @property
    def sha256(self) -> str: ...


Look = Callable[[Sequence[int]], Mapping[int, Held | None]]


@dataclass(frozen=True)
class Located:
    """The item of each row, `None` where there is none; `{row: item}` of those found by content; and the items that
    hold something else than their row says, which is nowhere."""

    items: tuple[int | None, ...]
    by_content: Mapping[int, int] = field(default_factory=dict)
    other_content: tuple[int, ...] = ()


def locate(rows: Sequence[Labelled], index_of: Mapping[str, int], by_number: bool, look: Look | None = None) -> Located:
    """Each row's item: that of its key, or of its number, while it holds what the row says or the row says nothing.

    Else it is an item that holds it and that no other row names rightly, one of the same file name first; where there
    is none, the one that the row names. Reads the items that rows with a hash name, and all others where some of them
    are not found by name.
    """
    n_items = 1 + max(index_of.values(), default=-1)
    named = [_named(row, index_of, by_number, n_items) for row in rows]
    if look is None or not any(row.sha256 for row in rows):
        return Located(tuple(named))
    now = dict(look(sorted({item for row, item in zip(rows, named, strict=True) if row.sha256 and item is not None})))
    told = {item: None if held is None else held.sha256 for item, held in now.items()}
    lost = [
        place
        for place, (row, item) in enumerate(zip(rows, named, strict=True))
        if row.sha256 and (item is None or told[item] not in (None, row.sha256))
    ]
    astray = set(lost)
    right = {item for place, item in enumerate(named) if item is not None and place not in astray}
    found = _by_content(rows, lost, right, index_of, told, look)
    items = tuple(found.get(place, item) for place, item in enumerate(named))
    other = [named[place] for place in lost if place not in found]
    return Located(items, found, tuple(dict.fromkeys(item for item in other if item is not None)))


def _by_content(
    rows: Sequence[Labelled],
    lost: Sequence[int],
    right: set[int],
    index_of: Mapping[str, int],
    told: dict[int, str | None],
    look: Look,
) -> dict[int, int]:
    """Items for rows that are lost; rows of one name and content are of one item."""
    paths = {item: path for path, item in index_of.items()}
    free = sorted(paths.keys() - right) if lost else []
    told |= {
        item: None if held is None else held.sha256
        for item, held in look([item for item in free if item not in told]).items()
    }
    wanted = dict.fromkeys((str(rows[place].sha256), rows[place].name) for place in lost)
    found: dict[tuple[str, str], int] = {}
    parts: tuple[Callable[[str], str], ...] = (lambda path: PurePosixPath(path).name, lambda path: "")
    for part in parts:
        left: dict[tuple[str | None, str], list[int]] = {}
        taken = set(found.values())
        for item in reversed(free):
            if item not in taken:
                left.setdefault((told[item], part(paths[item])), []).append(item)
        for one in wanted:
            if one not in found and (items := left.get((one[0], part(one[1])))):
                found[one] = items.pop()
    keyed = {place: (str(rows[place].sha256), rows[place].name) for place in lost}
    return {place: found[one] for place, one in keyed.items() if one in found}


def _named(row: Labelled, index_of: Mapping[str, int], by_number: bool, n_items: int) -> int | None:
    if row.key is not None:
        return index_of.get(row.key)
    return row.item if by_number and row.item is not None and row.item < n_items else None

"""What the page tells, checked: nothing that comes from a browser is to be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KINDS = ("label", "skip", "unsure", "keep", "undo", "redo", "flag", "note", "class", "rename", "merge")
ON_A_CARD = frozenset({"label", "skip", "unsure", "keep", "flag", "note"})
WITH_TEXT = frozenset({"note", "class", "rename", "merge"})
OF_A_CLASS = frozenset({"label", "rename", "merge"})
LONGEST_ID = 80
MOST_CARDS = 2_000
LONGEST_TEXT = 10_000


@dataclass(frozen=True)
class Op:
    """One thing that a hand did. `card` is what it was done to, `value` the number of a class or several.

    A class keeps its number when others are merged. Those that `merge` are `value` and, by its name, `text`.
    """

    id: str
    kind: str
    card: int | None = None
    value: int | tuple[int, ...] | None = None
    text: str = ""
    on: bool = True
    group: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


def parse_op(raw: object) -> Op:
    """An operation of the page. Raises `ValueError` or `TypeError` that says what came where it makes no sense."""
    if not isinstance(raw, Mapping):
        raise TypeError(f"Expected an operation of the page, got {_short(raw)}.")
    kind, card, value = raw.get("op"), raw.get("card"), raw.get("value")
    if kind not in KINDS:
        raise ValueError(f"Unknown operation {_short(kind)} from the page.")
    if kind in ON_A_CARD and not _is_index(card):
        raise TypeError(f"{kind!r} needs the number of an image, got {_short(card)}.")
    if kind in OF_A_CLASS:
        several = isinstance(value, list) and len(value) <= MOST_CARDS and all(map(_is_index, value))
        if not (_is_index(value) or (several and kind == "label")):
            raise TypeError(f"{kind!r} needs the index of a class, got {_short(value)}.")
    text, on, group, about = (
        raw.get("text", None if kind in WITH_TEXT else ""),
        raw.get("on", True),
        raw.get("group"),
        raw.get("about"),
    )
    if not isinstance(text, str) or len(text) > LONGEST_TEXT:
        raise ValueError(f"Expected a text of at most {LONGEST_TEXT:,} characters, got {_short(text)}.")
    if not isinstance(on, bool):
        raise TypeError(f"Expected true or false, got {_short(on)}.")
    return Op(
        check_id(raw.get("id")),
        kind,
        card if kind in ON_A_CARD else None,
        tuple(value) if isinstance(value, list) else value if _is_index(value) else None,
        text,
        on,
        None if group is None else check_id(group),
        about if isinstance(about, Mapping) else {},
    )


def check_id(value: object) -> str:
    """An id made by the page: a text of 1 to 80 characters."""
    if not isinstance(value, str) or not 1 <= len(value) <= LONGEST_ID:
        raise ValueError(f"Expected an id of 1 to {LONGEST_ID} characters, got {_short(value)}.")
    return value


def check_cards(value: object, n_cards: int | None = None) -> list[int]:
    """Card numbers sent by the page, at most 2,000, below `n_cards` where that is told."""
    if not isinstance(value, list) or len(value) > MOST_CARDS or not all(map(_is_index, value)):
        raise TypeError(f"Expected a list of at most {MOST_CARDS:,} images, got {_short(value)}.")
    if n_cards is not None and (beyond := [card for card in value if card >= n_cards]):
        raise IndexError(f"There is no image {_short(beyond[0])} among {n_cards}.")
    return value


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _short(value: object) -> str:
    told = repr(value)
    return told if len(told) <= 80 else f"{told[:77]}..."

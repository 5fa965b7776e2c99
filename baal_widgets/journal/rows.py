"""A fact as a row of plain values, as a line of text, and as a link of the hash chain."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from baal_widgets.journal.schema import events

Row = tuple[Any, ...]
"""The values of the columns of `events`, in order; the last is the hash."""

COLUMNS = tuple(column.name for column in events.columns)
WIDTH = len(COLUMNS)

_encode = json.JSONEncoder(ensure_ascii=True).encode


def text_of(row: Row) -> str:
    """Every column of a row but its hash, as JSON: what the hash is computed over."""
    return _encode(row[: WIDTH - 1])


def link(previous: str, text: str) -> str:
    """SHA-256 over the hash before and the text of a row, in hexadecimal."""
    return hashlib.sha256((previous + text).encode("ascii", "backslashreplace")).hexdigest()


def follows(previous: str, row: Row) -> bool:
    """Whether a row is as it was written after the row with the hash `previous`."""
    return bool(row[-1] == link(previous, text_of(row)))


def digest_of(part: int, seq: int, hash_: str, keys: str, data: bytes) -> str:
    """What a part of a checkpoint is known by."""
    return hashlib.sha256(f"{part} {seq} {hash_} {keys} ".encode() + data).hexdigest()


def line_of(text: str, hash_: str) -> str:
    """A whole row as one line of JSON, without its end: the list of its columns."""
    return f'{text[:-1]}, "{hash_}"]'


def row_of(line: bytes) -> Row | None:
    """The row that a line tells; `None` where it tells none."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    fits = isinstance(told, list) and len(told) == WIDTH and type(told[0]) is int and isinstance(told[-1], str)
    return tuple(told) if fits else None


def name_of(row: Row) -> str:
    """A row in words, for a message."""
    told = dict(zip(COLUMNS, row, strict=True))
    value = "" if told["value"] is None else f" as {told['value']!r}"
    return f"{told['kind']} of {told['key']!r}{value}, {told['time']}"

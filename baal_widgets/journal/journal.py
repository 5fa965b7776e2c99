"""An append-only list of facts on disk: what was asked, answered, taken back and measured."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from baal_widgets.journal.schema import connect, events


@dataclass(frozen=True)
class Draft:
    """A fact about to be written.

    `op_id` is made by whoever caused the fact (a browser, a script). Writing the same id again changes nothing,
    so a message that may or may not have arrived can always be sent once more.
    """

    kind: str
    item: int | None = None
    key: str | None = None
    value: str | None = None
    annotator: str = ""
    round: int = 0
    score: float | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)
    op_id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class Event:
    """A fact as written: a draft with its place in the order, its time (UTC) and its link in the hash chain."""

    seq: int
    op_id: str
    kind: str
    item: int | None
    key: str | None
    value: str | None
    annotator: str
    round: int
    score: float | None
    time: str
    payload: Mapping[str, Any]
    hash: str


class JournalDamagedError(RuntimeError):
    """The hash chain is broken: some row is not as it was written."""


class Journal:
    """Facts in a database, shared by threads and by processes.

    `place` is a path (SQLite file), a database URL, or `None` for memory. `append` returns after the commit:
    what it returned is on disk. An append costs a few milliseconds, most of them the flush of the disk.
    """

    def __init__(self, place: str | os.PathLike[str] | None = None, *, create: bool = True) -> None:
        self.place = None if place is None else os.fspath(place)
        self._engine = connect(place, create)
        self._lock = threading.RLock()

    def append(self, *drafts: Draft) -> list[Event]:
        """Write all drafts or none, in order. A known `op_id` is not written again: its first event returns."""
        with self._lock, self._engine.execution_options(writes=True).begin() as connection:
            last = connection.execute(select(events).order_by(events.c.seq.desc()).limit(1)).one_or_none()
            seq, chain = (0, "") if last is None else (last.seq, last.hash)
            written = []
            for draft in drafts:
                event = _find(connection, draft.op_id)
                if event is None:
                    row = _row(seq + 1, draft)
                    row["hash"] = chain_hash(chain, row)
                    connection.execute(insert(events).values(row))
                    seq, chain = row["seq"], row["hash"]
                    event = _event(row)
                written.append(event)
        return written

    def events(self, after: int = 0) -> list[Event]:
        """Every fact with a sequence number above `after`, in order."""
        with self._lock, self._engine.begin() as connection:
            rows = connection.execute(select(events).where(events.c.seq > after).order_by(events.c.seq))
            return [_event(row._mapping) for row in rows]

    def holds(self, op_id: str) -> bool:
        """Whether the operation of that id has been written."""
        with self._lock, self._engine.begin() as connection:
            return _find(connection, op_id) is not None

    def verify(self) -> int:
        """The number of facts, after checking every link of the chain. Reads the whole journal.

        Raises `JournalDamagedError` naming the first row that is missing or not as it was written.
        """
        chain = ""
        with self._lock, self._engine.begin() as connection:
            rows = connection.execute(select(events).order_by(events.c.seq)).all()
        for place, row in enumerate(rows, start=1):
            if row.seq != place:
                raise JournalDamagedError(f"Row {place} of the journal is missing: the next one is {row.seq}.")
            if chain_hash(chain, row._mapping) != row.hash:
                raise JournalDamagedError(
                    f"Row {place} of the journal ({row.kind} of {row.key!r}, {row.time}) is not as it was "
                    "written. Restore the file from a backup, or export the rows before it."
                )
            chain = row.hash
        return len(rows)

    def close(self) -> None:
        self._engine.dispose()


def chain_hash(previous: str, row: Mapping[Any, Any]) -> str:
    """SHA-256 over the hash before and every column of the row, in hexadecimal."""
    told = [row[column.name] for column in events.columns if column.name != "hash"]
    return hashlib.sha256((previous + json.dumps(told, ensure_ascii=True)).encode()).hexdigest()


def _row(seq: int, draft: Draft) -> dict[str, Any]:
    return {
        "seq": seq,
        "op_id": draft.op_id,
        "kind": draft.kind,
        "item": draft.item,
        "key": draft.key,
        "value": draft.value,
        "annotator": draft.annotator,
        "round": draft.round,
        "score": draft.score,
        "time": datetime.now(UTC).isoformat(timespec="microseconds"),
        "payload": json.dumps(draft.payload, allow_nan=False, sort_keys=True),
    }


def _event(row: Mapping[Any, Any]) -> Event:
    return Event(**{**row, "payload": json.loads(row["payload"])})


def _find(connection: Connection, op_id: str) -> Event | None:
    row = connection.execute(select(events).where(events.c.op_id == op_id)).one_or_none()
    return None if row is None else _event(row._mapping)

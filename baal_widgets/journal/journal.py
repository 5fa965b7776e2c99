"""An append-only list of facts on disk: what was asked, answered, taken back and measured."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

from sqlalchemy import Connection, delete, func, insert, inspect, select

from baal_widgets.journal.hashes import Hashes
from baal_widgets.journal.repair import differences, forgotten, read_database, read_lines
from baal_widgets.journal.rows import COLUMNS, Row, digest_of, line_of, link, text_of
from baal_widgets.journal.schema import checkpoints, connect, copy_of, events, file_of
from baal_widgets.journal.sidecar import Sidecar

IDS_AT_ONCE = 5000  # parameters of one SELECT: databases have limits
SHORTEST = 16  # digits of an anchor's hash
TOLD = 5  # differences in a message; all of them are in the error
ROWS_AT_ONCE = 20_000  # so that a long read keeps no writer waiting


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


class Event(NamedTuple):
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
    """Some row is not as it was written, or is gone. `differences` says each of them."""

    def __init__(self, differences: Sequence[str]) -> None:
        self.differences = tuple(differences)
        told = [
            *self.differences[:TOLD],
            *[f"And {len(self.differences) - TOLD} more."][: len(self.differences) > TOLD],
        ]
        super().__init__("\n".join([*told, "`baal-widgets repair FILE` makes a new file of what is intact."]))


class JournalMovedError(RuntimeError):
    """Somebody has written since."""


class Journal:
    """Facts in a database, shared by threads and by processes.

    `place` is a path (SQLite file), a database URL, or `None` for memory. `append` returns after the commit:
    what it returned is on disk. An append costs a few milliseconds, most of them the flush of the disk.

    Beside a SQLite file `labels.db` every fact is written once more to `labels.db.jsonl`, so that `verify` notices
    rows that are gone from the end, and `repair` can bring them back. With `create=False` nothing is made: where
    there is no copy there will be none.

    Facts carry the time of this machine, those in PostgreSQL that of the server, which all machines share. `clock` may
    be set to something else that tells the time (UTC).
    """

    def __init__(self, place: str | os.PathLike[str] | None = None, *, create: bool = True) -> None:
        self.place = None if place is None else os.fspath(place)
        self.clock: Callable[[], datetime] | None = None
        self._engine = connect(place, create)
        self._lock = threading.RLock()
        self._path = file_of(self._engine.url)
        copy = None if self._path is None else copy_of(self._path)
        self._copy = None if copy is None or not (create or copy.exists()) else Sidecar(copy)
        if self._copy is not None and create:
            self._copy.catch_up(self._rows)

    def append(self, *drafts: Draft, after: int | None = None) -> list[Event]:
        """Write all drafts or none, in order. A known `op_id` is not written again: its first event returns.

        With `after` they are written right after that fact or not at all: `JournalMovedError` where there is a later
        one. Costs one commit, and some 0.05 ms a draft. Raises `ValueError` for a draft that cannot be written as JSON.
        """
        if not drafts:
            return []
        with self._lock:
            with self._engine.execution_options(writes=True).begin() as connection:
                last = connection.execute(select(events).order_by(events.c.seq.desc()).limit(1)).one_or_none()
                start = (0, "") if last is None else (last.seq, last.hash)
                if after not in (None, start[0]):
                    raise JournalMovedError(f"The journal is at fact {start[0]} by now, no more at {after}.")
                told = _find(connection, [draft.op_id for draft in drafts])
                new = [draft for draft in drafts if draft.op_id not in told]
                fresh = _chained(start, new, self._time(connection)) if new else []
                if fresh:
                    connection.execute(insert(events), [dict(zip(COLUMNS, row, strict=True)) for row in fresh])
            if fresh and self._copy is not None:
                self._copy.add(start[1], fresh, self._rows)
        told |= {row[1]: _event(row) for row in fresh}
        return [told[draft.op_id] for draft in drafts]

    def events(self, after: int = 0, limit: int | None = None, kinds: Sequence[str] = ()) -> list[Event]:
        """Every fact with a sequence number above `after`, in order; at most `limit`, of some kinds only if told.

        Raises `JournalDamagedError` where the file cannot be read.
        """
        return list(map(_event, self._rows(after, limit, kinds)))

    def now(self) -> datetime:
        """The time by which facts are dated."""
        if self.clock is not None or self._engine.dialect.name != "postgresql":
            return self._time(None)
        with self._lock, self._engine.begin() as connection:
            return self._time(connection)

    def read_checkpoint(self, keys: str) -> list[bytes] | None:
        """The parts of a state folded for this order of keys; `None` unless every byte and the chain's hash fit."""
        with self._lock, self._engine.begin() as connection:
            if not inspect(connection).has_table(checkpoints.name):
                return None
            rows = connection.execute(select(checkpoints).order_by(checkpoints.c.part)).all()
            if not rows or any(
                row.keys != keys or row.digest != digest_of(row.part, row.seq, row.hash, row.keys, row.data)
                for row in rows
            ):
                return None
            stands = select(events.c.hash).where(events.c.seq == rows[0].seq)
            if connection.execute(stands).scalar_one_or_none() != rows[0].hash:
                return None
        return [row.data for row in rows]

    def checkpointed(self) -> int:
        """The fact up to which the last checkpoint tells; 0 where there is none."""
        with self._lock, self._engine.begin() as connection:
            if not inspect(connection).has_table(checkpoints.name):
                return 0
            return connection.execute(select(func.max(checkpoints.c.seq))).scalar_one() or 0

    def write_checkpoint(self, seq: int, hash_: str, keys: str, parts: Sequence[bytes]) -> None:
        """Keep a state folded up to a fact, in the place of the one before."""
        names = [column.name for column in checkpoints.columns]
        told = [
            (part, seq, hash_, keys, digest_of(part, seq, hash_, keys, data), data) for part, data in enumerate(parts)
        ]
        rows = [dict(zip(names, row, strict=True)) for row in told]
        with self._lock, self._engine.execution_options(writes=True).begin() as connection:
            checkpoints.create(connection, checkfirst=True)
            connection.execute(delete(checkpoints))
            connection.execute(insert(checkpoints), rows)

    @property
    def hashes(self) -> Hashes:
        """What the files of the dataset held when they were last read."""
        return Hashes(self._engine, self._lock)

    def holds(self, op_id: str) -> bool:
        """Whether the operation of that id has been written."""
        with self._lock, self._engine.begin() as connection:
            return op_id in _find(connection, [op_id])

    @property
    def anchor(self) -> str:
        """The place and the hash of the last fact, `SEQ:HASH`: written down elsewhere, it lets `verify` tell later that
        no fact up to it is gone or changed, even where somebody has rewritten the journal and the copy."""
        with self._lock, self._engine.begin() as connection:
            last = connection.execute(select(events).order_by(events.c.seq.desc()).limit(1)).one_or_none()
        return "0:" if last is None else f"{last.seq}:{last.hash}"

    def verify(self, anchor: str | None = None) -> int:
        """The number of facts, after checking every link of the chain and every line of the copy.

        With an earlier `anchor` it checks too that the journal still holds what it held then. Facts that are gone from
        the end of both, of which no anchor tells, are noticed only where a checkpoint knew of them.

        Reads all of both; a copy that is behind is caught up first. Raises `JournalDamagedError`, which says each
        difference: rows missing or not as they were written, in the database or in the copy.
        """
        wanted = None if anchor is None else _parsed(anchor)
        if self._copy is not None:
            self._copy.catch_up(self._rows, whole=True)
        path = None if self._copy is None else self._copy.path
        try:
            count = self._count_sound(path)
        except JournalDamagedError:
            count = None
        if count is not None:
            lost = [] if self._path is None else forgotten(self._path)
            if wanted is not None and not self._has(*wanted):
                lost.append(f"Fact {wanted[0]} is not the one that {anchor} tells: the journal was another then.")
            if lost:
                raise JournalDamagedError(lost)
            return count
        rows = self._rows() if self._path is None else read_database(self._path)
        found = differences(rows, None if path is None else read_lines(path))
        raise JournalDamagedError(found or ["The journal changed while it was read."])

    def close(self) -> None:
        self._engine.dispose()

    def _time(self, connection: Connection | None) -> datetime:
        if self.clock is not None:
            return self.clock()
        if connection is None or self._engine.dialect.name != "postgresql":
            return datetime.now(UTC)
        time: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return time.astimezone(UTC)

    def _has(self, seq: int, hash_: str) -> bool:
        with self._lock, self._engine.begin() as connection:
            found = connection.execute(select(events.c.hash).where(events.c.seq == seq)).scalar_one_or_none()
        return seq == 0 or (found is not None and found.startswith(hash_))

    def _count_sound(self, copy: Path | None) -> int | None:
        """How many rows there are; `None` at the first that is not as it was written or not as its line tells."""
        seq, chain = 0, ""
        file = None if copy is None or not copy.exists() else copy.open("rb")
        try:
            while rows := self._rows(seq, ROWS_AT_ONCE):
                for row in rows:
                    text = text_of(row)
                    hash_ = link(chain, text)
                    if row[0] != seq + 1 or hash_ != row[-1]:
                        return None
                    seq, chain = seq + 1, hash_
                    if file is not None:
                        line = file.readline()
                        if not line.endswith(b"\n"):  # behind, and cannot be caught up
                            file.close()
                            file = None
                        elif line != f"{line_of(text, hash_)}\n".encode("ascii"):
                            return None
                if file is not None and len(rows) < ROWS_AT_ONCE and file.peek(1) and not self._rows(seq, 1):
                    return None
            return seq if seq or file is None or not file.peek(1) else None
        finally:
            if file is not None:
                file.close()

    def _rows(self, after: int = 0, limit: int | None = None, kinds: Sequence[str] = ()) -> list[Row]:
        told = select(events).where(events.c.seq > after).order_by(events.c.seq).limit(limit)
        if kinds:
            told = told.where(events.c.kind.in_(kinds))
        with self._lock, self._engine.begin() as connection:
            cursor = connection.execute(told).cursor
            assert cursor is not None
            try:
                return cast(list[Row], cursor.fetchall())
            except sqlite3.Error as error:
                raise JournalDamagedError([f"The journal cannot be read: {error}."]) from error


def _parsed(anchor: str) -> tuple[int, str]:
    seq, _, hash_ = anchor.strip().partition(":")
    if not (seq.isascii() and seq.isdigit() and len(seq) < 19 and (len(hash_) >= SHORTEST or seq == "0")):
        raise ValueError(f"Expected an anchor, SEQ:HASH as `verify` prints it, got {anchor[:80]!r}.")
    return int(seq), hash_.lower()


def _chained(start: tuple[int, str], drafts: Iterable[Draft], time: datetime) -> list[Row]:
    """The rows of drafts of one time, each operation once, that follow a row with this place and hash."""
    (seq, chain), rows = start, []
    once: dict[str, Draft] = {}
    for draft in drafts:
        once.setdefault(draft.op_id, draft)
    for draft in once.values():
        seq += 1
        row = _row(seq, draft, time)
        chain = link(chain, text_of((*row, "")))
        rows.append((*row, chain))
    return rows


def _row(seq: int, draft: Draft, time: datetime) -> Row:
    """As the database gives it back: what is hashed must not change its type on the way."""
    score = None if draft.score is None or math.isnan(draft.score) else float(draft.score)
    payload = json.dumps(draft.payload, allow_nan=False, sort_keys=True) if draft.payload else "{}"
    item = None if draft.item is None else int(draft.item)
    told = (draft.op_id, draft.kind, item, draft.key, draft.value, draft.annotator, int(draft.round), score)
    return (seq, *told, time.isoformat(timespec="microseconds"), payload)


def _event(row: Row) -> Event:
    *plain, payload, hash_ = row
    return Event._make((*plain, {} if payload == "{}" else json.loads(payload), hash_))


def _find(connection: Connection, ids: Sequence[str]) -> dict[str, Event]:
    """The events of those operations that have been written."""
    found = {}
    for start in range(0, len(ids), IDS_AT_ONCE):
        some = select(events).where(events.c.op_id.in_(ids[start : start + IDS_AT_ONCE]))
        found.update({row.op_id: _event(tuple(row)) for row in connection.execute(some)})
    return found

"""What files held when they were last read: a cache in the journal's database, and never a fact."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping

from sqlalchemy import Engine, delete, insert, inspect, select

from baal_widgets.journal.schema import hashes

AT_ONCE = 500  # names in one statement: databases have limits


class Hashes:
    """By the SHA-256 of a file's path: a stamp, which changes when the file does, and the SHA-256 of its bytes."""

    def __init__(self, engine: Engine, lock: threading.RLock) -> None:
        self._engine, self._lock = engine, lock

    def read(self) -> dict[str, tuple[str, str]]:
        """All of them, less those of which a byte has changed."""
        with self._lock, self._engine.begin() as connection:
            if not inspect(connection).has_table(hashes.name):
                return {}
            rows = connection.execute(select(hashes)).all()
        return {
            row.file: (row.stamp, row.sha256) for row in rows if row.digest == _digest(row.file, row.stamp, row.sha256)
        }

    def write(self, told: Mapping[str, tuple[str, str]]) -> None:
        """Keep what was found, in the place of what was known of the same files. Costs one commit."""
        rows = [
            {"file": file, "stamp": stamp, "sha256": sha256, "digest": _digest(file, stamp, sha256)}
            for file, (stamp, sha256) in told.items()
        ]
        with self._lock, self._engine.execution_options(writes=True).begin() as connection:
            hashes.create(connection, checkfirst=True)
            for start in range(0, len(rows), AT_ONCE):
                some = rows[start : start + AT_ONCE]
                connection.execute(delete(hashes).where(hashes.c.file.in_([row["file"] for row in some])))
                connection.execute(insert(hashes), some)


def _digest(file: str, stamp: str, sha256: str) -> str:
    return hashlib.sha256(f"{file} {stamp} {sha256}".encode()).hexdigest()

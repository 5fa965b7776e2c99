"""The one table of the journal, and how to connect to the database that holds it.

Rows are only ever added. A row carries the hash of the row before it, so a changed byte anywhere breaks the
chain from there on, which SQLite's own integrity check would not notice.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Engine, Float, Integer, MetaData, String, Table, Text, create_engine, event, inspect
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import StaticPool

metadata = MetaData()

events = Table(
    "events",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("op_id", String(80), nullable=False, unique=True),
    Column("kind", String(20), nullable=False),
    Column("item", Integer),
    Column("key", Text),
    Column("value", Text),
    Column("annotator", Text, nullable=False),
    Column("round", Integer, nullable=False),
    Column("score", Float),
    Column("time", String(40), nullable=False),
    Column("payload", Text, nullable=False),
    Column("hash", String(64), nullable=False),
)


def connect(place: str | os.PathLike[str] | None, create: bool = True) -> Engine:
    """An engine for a path (SQLite), a database URL, or `None` (SQLite in memory), with its table made.

    SQLite runs with a rollback journal and `synchronous=EXTRA`: a commit that has returned survives a killed
    process and a power cut. A new file is readable by its owner only. With `create=False` a database without
    the table is refused (`ValueError`) and left as it is.
    """
    url = _url(place)
    if url.get_backend_name() != "sqlite":
        engine = create_engine(url)
    elif url.database in (None, "", ":memory:"):
        engine = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        _create_private(Path(str(url.database)))
        engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    if create:
        with engine.execution_options(writes=True).begin() as connection:
            metadata.create_all(connection)
    elif not inspect(engine).has_table(events.name):
        engine.dispose()
        raise ValueError(f"{place} is no journal of baal_widgets.")
    return engine


def _url(place: str | os.PathLike[str] | None) -> URL:
    if place is None:
        return make_url("sqlite://")
    text = os.fspath(place)
    if "://" in text:
        return make_url(text)
    return URL.create("sqlite", database=str(Path(text).expanduser().absolute()))


def _create_private(path: Path) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"No folder {path.parent} to keep the journal {path.name} in: create it first.")
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def _configure_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves: the driver's implicit one comes too late
    for pragma in ("busy_timeout=30000", "journal_mode=DELETE", "synchronous=EXTRA", "trusted_schema=OFF"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Any) -> None:
    # A writer takes the lock before it reads the last hash, so two processes cannot both extend one row.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

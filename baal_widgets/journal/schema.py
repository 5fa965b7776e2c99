"""The tables of the journal, and how to connect to the database that holds it.

Rows of `events` are only ever added. A row carries the hash of the row before it, so a changed byte anywhere breaks the
chain from there on, which SQLite's own integrity check would not notice.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    inspect,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import StaticPool

from baal_widgets.journal import migrations

WRITERS_LOCK = 0x6261616C  # by which writers of a PostgreSQL database know each other

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


checkpoints = Table(
    "checkpoints",
    metadata,
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("seq", Integer, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("keys", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("data", LargeBinary, nullable=False),
)
"""The folded state, in parts; see `checkpoint`. A cache: whoever does not know the table loses nothing."""

hashes = Table(
    "hashes",
    metadata,
    Column("file", String(64), primary_key=True),
    Column("stamp", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
)
"""What files held when they were last read; see `hashes`. A cache too."""


def connect(place: str | os.PathLike[str] | None, create: bool = True) -> Engine:
    """An engine for a path (SQLite), a database URL, or `None` (SQLite in memory), with its table made.

    SQLite runs with a rollback journal and `synchronous=EXTRA`: a commit that has returned survives a killed
    process and a power cut. A new file is readable by its owner only. With `create=False` a database without
    the table is refused (`ValueError`) and left as it is. One of an older version is brought up to date, one of a newer
    is refused.
    """
    url = _url(place)
    path = file_of(url)
    if url.get_backend_name() != "sqlite":
        engine = create_engine(url)
    elif path is None:
        engine = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        _create_private(path)
        engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    if engine.dialect.name == "postgresql":
        event.listen(engine, "begin", _begin_postgresql)
    try:
        _prepare(engine, place, path, create)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _prepare(engine: Engine, place: str | os.PathLike[str] | None, path: Path | None, create: bool) -> None:
    with engine.begin() as connection:  # most journals need no lock to be opened
        there, revision = inspect(connection).has_table(events.name), migrations.revision_of(connection)
    if not there and not create:
        raise ValueError(f"{place} is no journal of baal_widgets.")
    migrations.check_known(revision)
    if not create or revision == migrations.HEAD:
        return
    try:
        with engine.execution_options(writes=True).begin() as connection:
            if migrations.revision_of(connection) == migrations.HEAD:  # another process was there first
                return
            if inspect(connection).has_table(events.name):
                migrations.bring_up_to_date(connection, path)
            else:
                metadata.create_all(connection)
                migrations.mark_new(connection)
    except (OSError, OperationalError, sqlite3.OperationalError) as error:
        if not there or path is None or not _forbidden(error):
            raise
        raise PermissionError(
            f"{path.name} is a journal of an older version. baal_widgets needs to write to {path} to bring it up to "
            f"date, and to its folder for a copy of it as it is, but {getattr(error, 'orig', None) or error}. Make "
            "both writable, or open a copy of the file in a folder of your own."
        ) from error


def _forbidden(error: Exception) -> bool:
    """Whether a file or folder may only be read."""
    if isinstance(error, OSError):
        return error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    told = str(error)
    return "readonly database" in told or "unable to open database file" in told


def create_file(path: Path) -> None:
    """An empty journal in a new file, readable by its owner only."""
    connect(path).dispose()


def insert_rows(path: Path, rows: Sequence[tuple[Any, ...]]) -> None:
    """Rows as they are, all or none, into a SQLite file that has the table."""
    engine = connect(path)
    names = [column.name for column in events.columns]
    with engine.execution_options(writes=True).begin() as connection:
        connection.execute(insert(events), [dict(zip(names, row, strict=True)) for row in rows])
    engine.dispose()


def _url(place: str | os.PathLike[str] | None) -> URL:
    if place is None:
        return make_url("sqlite://")
    text = os.fspath(place)
    if "://" in text:
        return make_url(text)
    return URL.create("sqlite", database=str(Path(text).expanduser().absolute()))


def file_of(url: URL) -> Path | None:
    """The file of a SQLite database; `None` for memory and for other databases."""
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database))


def copy_of(path: Path) -> Path:
    """Where the second copy of a journal's file lies."""
    return path.with_name(f"{path.name}.jsonl")


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


def _begin_postgresql(connection: Any) -> None:
    # The same there: writers of this database wait for each other, until the end of their transaction.
    if connection.get_execution_options().get("writes", False):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITERS_LOCK})")  # a number of ours

"""Journals of older versions, brought to the tables of this one.

The revision that a database is of stands in a table of our own: others keep theirs in `alembic_version`. A new journal
is made of the present tables; an older one is taken through `versions/`, all of it in one transaction, after a copy of
its file was made and checked.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select, update

HEAD = "0003"  # the newest revision in versions/

VERSION_TABLE = "baal_widgets_version"

_alembic = threading.Lock()  # what it works on is one thing for the whole process
_revision = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32), primary_key=True))


def revision_of(connection: Connection) -> str | None:
    """The revision that a database says it is of; `None` where it says nothing."""
    if not inspect(connection).has_table(_revision.name):
        return None
    return connection.execute(select(_revision.c.version_num)).scalar_one_or_none()


def mark_new(connection: Connection) -> None:
    """Say that a database was just made of the present tables."""
    _revision.create(connection, checkfirst=True)
    if connection.execute(update(_revision).values(version_num=HEAD)).rowcount == 0:
        connection.execute(_revision.insert().values(version_num=HEAD))


def check_known(revision: str | None) -> None:
    """Raises `ValueError` for a revision that came after this version."""
    if revision is not None and revision > HEAD:
        raise ValueError(
            f"The journal is of revision {revision}, this version of baal_widgets knows those up to {HEAD}. It is left "
            "as it is: install a newer baal_widgets (pip install -U baal-widgets) to open it."
        )


def bring_up_to_date(connection: Connection, file: Path | None) -> None:
    """Take a database of an older revision to this one, within the transaction at hand, which has the writers' lock.

    Of a SQLite file there is a copy first, `labels.db.before-0003`. Costs half a second: most of it loads Alembic.
    """
    from alembic import command
    from alembic.config import Config

    if file is not None:
        back_up(file, file.with_name(f"{file.name}.before-{HEAD}"))
    told = Config(attributes={"connection": connection})
    told.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    told.set_main_option("path_separator", "os")
    with _alembic:
        command.upgrade(told, HEAD)


def back_up(file: Path, target: Path) -> None:
    """A copy of a SQLite file as of its last commit, readable by its owner only, checked against it."""
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600))
    reading = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
    with closing(reading) as source, closing(sqlite3.connect(part)) as copy:
        source.backup(copy)
        (sound,) = copy.execute("PRAGMA integrity_check").fetchone()
        told = "SELECT count(*), max(hash) FROM events"
        if sound != "ok" or source.execute(told).fetchone() != copy.execute(told).fetchone():
            raise OSError(f"The copy {part} is not what {file} holds: {sound}. The journal was left as it is.")
    part.replace(target)

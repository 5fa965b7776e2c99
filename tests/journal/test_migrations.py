"""Journals of older versions open in this one, whole or not at all; those of newer ones are left alone."""

import os
import shutil
import sqlite3
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from baal_widgets.journal import Draft, Journal, migrations
from baal_widgets.journal.schema import metadata
from tests.journal.test_faults import Failing


def written(place, n=20):
    journal = Journal(place)
    journal.append(*[Draft("label", item=item, key=str(item), value="cat", annotator="me") for item in range(n)])
    facts = journal.events()
    journal.close()
    return facts


def made_old(place):
    """Take from a journal what the first version of all did not have."""
    engine = create_engine(place)
    with engine.begin() as connection:
        for table in (migrations.VERSION_TABLE, "checkpoints"):
            connection.execute(text(f"DROP TABLE IF EXISTS {table}"))
    engine.dispose()


def revision(path):
    with closing(sqlite3.connect(path)) as connection, suppress(sqlite3.OperationalError):
        return connection.execute(f"SELECT version_num FROM {migrations.VERSION_TABLE}").fetchone()[0]


def facts_of(place):
    journal = Journal(place)
    assert journal.verify() == len(journal.events())
    facts = journal.events()
    journal.close()
    return facts


def test_an_old_journal_is_brought_up_to_date_after_a_copy_was_made(tmp_path):
    path = tmp_path / "labels.db"
    facts = written(path)
    made_old(f"sqlite:///{path}")
    old = path.read_bytes()
    assert facts_of(path) == facts
    assert revision(path) == migrations.HEAD
    copy = tmp_path / f"labels.db.before-{migrations.HEAD}"
    assert copy.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(copy)) as before, closing(sqlite3.connect(path)) as after:
        told = "SELECT * FROM events ORDER BY seq"
        assert before.execute(told).fetchall() == after.execute(told).fetchall()
    assert revision(copy) is None
    assert len(copy.read_bytes()) == len(old)
    copy.unlink()
    assert facts_of(path) == facts
    assert not copy.exists()  # once is enough


def test_an_old_journal_on_a_server_is_brought_up_to_date(postgresql):
    facts = written(postgresql)
    made_old(postgresql)
    assert facts_of(postgresql) == facts


def test_the_steps_lead_to_the_tables_that_a_new_journal_has(place):
    engine = create_engine(place) if "://" in str(place) else create_engine(f"sqlite:///{place}")
    with engine.begin() as connection:
        migrations.bring_up_to_date(connection, None)
        assert migrations.revision_of(connection) == migrations.HEAD
        known = MigrationContext.configure(
            connection, opts={"include_name": lambda name, *_: name != migrations.VERSION_TABLE}
        )
        assert compare_metadata(known, metadata) == []
    engine.dispose()
    assert ScriptDirectory(str(Path(migrations.__file__).parent)).get_heads() == [migrations.HEAD]
    assert written(place) == facts_of(place)


def test_whatever_call_fails_an_old_journal_is_old_or_new(tmp_path):
    old, path = tmp_path / "old.db", tmp_path / "labels.db"
    facts = written(old, 5)
    made_old(f"sqlite:///{old}")
    outcomes = set()
    for n in range(1, 200):
        for beside in tmp_path.glob("labels.db*"):
            beside.unlink()
        shutil.copy(old, path)
        shutil.copy(f"{old}.jsonl", f"{path}.jsonl")
        with Failing(n) as failing, suppress(SQLAlchemyError, sqlite3.OperationalError):
            Journal(path).close()
        outcomes.add(revision(path))
        assert facts_of(path) == facts
        if failing.calls < n:
            break
    assert outcomes == {None, migrations.HEAD}


def test_a_journal_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "labels.db"
    written(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '9999'")
    before = path.read_bytes()
    for create in (True, False):
        with pytest.raises(ValueError, match="newer baal_widgets"):
            Journal(path, create=create)
    assert path.read_bytes() == before


def test_an_old_journal_that_is_only_read_stays_old(tmp_path):
    path = tmp_path / "labels.db"
    facts = written(path)
    made_old(f"sqlite:///{path}")
    before = path.read_bytes()
    journal = Journal(path, create=False)
    assert journal.events() == facts
    journal.close()
    assert path.read_bytes() == before


def test_a_database_that_another_program_keeps_its_revision_in_is_shared(tmp_path):
    path = tmp_path / "shared.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('0002')")
    facts = written(path)
    assert facts_of(path) == facts
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM alembic_version").fetchall() == [("0002",)]


def test_threads_may_open_old_journals_at_once(tmp_path):
    paths = [tmp_path / f"{n}.db" for n in range(6)]
    for path in paths:
        written(path)
        made_old(f"sqlite:///{path}")
    with ThreadPoolExecutor(6) as threads:
        assert [len(facts) for facts in threads.map(facts_of, paths)] == [20] * 6
    assert {revision(path) for path in paths} == {migrations.HEAD}


def as_a_guest(act):
    """What `act` raises for somebody who is not the owner and no root, in words; "" for nothing."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            act()
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as pipe:
        return pipe.read()


@pytest.mark.parametrize(("of_file", "of_folder"), [(0o644, 0o777), (0o666, 0o755), (0o444, 0o555)])
def test_an_old_journal_that_may_not_be_written_says_what_is_needed(of_file, of_folder):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "labels.db"
        written(path)
        made_old(f"sqlite:///{path}")
        path.chmod(of_file if os.geteuid() == 0 else of_file & 0o555)
        path.parent.chmod(of_folder if os.geteuid() == 0 else of_folder & 0o555)
        before = path.read_bytes()
        told = as_a_guest(lambda: Journal(path))
        assert told.startswith("PermissionError: labels.db is a journal of an older version")
        assert f"needs to write to {path} to bring it up to date" in told
        assert path.read_bytes() == before
        assert as_a_guest(lambda: Journal(path, create=False)) == ""  # it can be read
        path.parent.chmod(0o700)

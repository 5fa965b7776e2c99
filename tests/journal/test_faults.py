"""Every database call fails once, and journals are damaged in every way: nothing in between, nothing unnoticed."""

import contextlib
import random
import shutil
import sqlite3

import pytest
import torch
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError
from torch.utils.data import TensorDataset

from baal_widgets import LabellingSession
from baal_widgets.journal import Draft, Journal, JournalDamagedError, fold, repair

LABELS = ["cat", "dog", "bird"]
ROWS = 60


class Failing:
    """The n-th call to any database fails; a commit fails before it is done or, with `late`, after."""

    def __init__(self, n, late=False):
        self.n, self.late, self.calls = n, late, 0

    def _call(self):
        self.calls += 1
        return self.calls == self.n

    def do_connect(self, *_):
        if self._call():
            raise sqlite3.OperationalError("unable to open database file")

    def before_cursor_execute(self, *_):
        if self._call():
            raise sqlite3.OperationalError("disk I/O error")

    def commit(self, connection):
        if self._call():
            if self.late:
                connection.connection.driver_connection.execute("COMMIT")
            raise sqlite3.OperationalError("database or disk is full")

    def __enter__(self):
        for name in ("do_connect", "before_cursor_execute", "commit"):
            event.listen(Engine, name, getattr(self, name))
        return self

    def __exit__(self, *_):
        for name in ("do_connect", "before_cursor_execute", "commit"):
            event.remove(Engine, name, getattr(self, name))


def answer(item, value="cat", **more):
    return Draft("label", item=item, key=str(item), value=value, annotator="me", **more)


OPERATIONS = {
    "one": [answer(9, "dog", op_id="a")],
    "several": [answer(item, "dog", op_id=f"a{item}") for item in range(5)],
    "undo": [Draft("undo", item=2, key="2", annotator="me", payload={"target": 4}, op_id="a")],
    "measured": [
        Draft("measured", annotator="model", payload={"round": 1, "seq": 4, "loss": 0.5}, op_id="a"),
        Draft("asked", payload={"items": [1], "keys": ["1"], "scores": [0.5], "number": 1}, op_id="b"),
    ],
}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_append_whose_nth_database_call_fails_is_done_or_not_done(tmp_path, name, late):
    drafts, n, failed = OPERATIONS[name], 0, 0
    while n <= failed:  # until a round in which nothing was left to fail
        n += 1
        path = tmp_path / f"{n}.db"
        journal = Journal(path)
        journal.append(Draft("opened", payload={"classes": LABELS}), *[answer(item) for item in range(4)])
        before = journal.events()
        with Failing(n, late) as fault:
            try:
                journal.append(*drafts)
            except (SQLAlchemyError, sqlite3.OperationalError):
                failed += 1
        told = journal.events()
        assert told[:5] == before
        assert [one.op_id for one in told[5:]] in ([], [draft.op_id for draft in drafts])
        if fault.calls < n:
            assert len(told) == 5 + len(drafts)
        again = journal.append(*drafts)
        assert journal.events()[5:] == again
        assert journal.verify() == 5 + len(drafts) == len(path.with_name(f"{n}.db.jsonl").read_bytes().splitlines())
        journal.close()
    assert failed >= 3  # the last row, the known ids, the rows, the commit


def test_a_journal_whose_opening_fails_at_the_nth_call_opens_the_next_time(tmp_path):
    for made in (False, True):
        n, failed = 0, 0
        while n <= failed:
            n += 1
            path = tmp_path / f"{made}-{n}.db"
            if made:
                journal = Journal(path)
                journal.append(answer(1))
                journal.close()
            with Failing(n):
                try:
                    Journal(path).close()
                except (SQLAlchemyError, sqlite3.OperationalError):
                    failed += 1
            journal = Journal(path)
            assert len(journal.events()) == made
            journal.append(answer(2))
            assert journal.verify() == made + 1
            journal.close()
        assert failed >= 3


def opened(path, annotator="me"):
    pool = TensorDataset(torch.rand(8, 4, generator=torch.Generator().manual_seed(0)))
    model = torch.nn.Sequential(torch.nn.Dropout(0.2), torch.nn.Linear(4, 3))
    return LabellingSession(pool, model, LABELS, journal=path, query_size=4, annotator=annotator)


def present(session):
    return session.labels, session.query and session.query.items, session.can_undo, dict(session.notes)


@pytest.mark.parametrize(
    "act",
    [
        lambda session: session.label(5, "dog", op_id="x"),
        lambda session: session.skip(1, op_id="x"),
        lambda session: session.undo(op_id="x"),
        lambda session: session.note(2, "odd", op_id="x"),
    ],
    ids=["label", "skip", "undo", "note"],
)
def test_a_session_is_before_or_after_when_the_nth_database_call_fails(tmp_path, act):
    n, failed = 0, 0
    while n <= failed:
        n += 1
        path = tmp_path / f"{n}.db"
        with opened(path) as session:
            session.label(1, "cat")
            before = present(session)
            with Failing(n):
                try:
                    act(session)
                except (SQLAlchemyError, sqlite3.OperationalError):
                    failed += 1
            between = present(session)
            act(session)
            after = present(session)
            assert after != before
            assert between in (before, after)
        with opened(path) as session:  # what is on the disk is what was on the screen
            assert present(session) == after
            assert session.label(6, "bird") is None
        journal = Journal(path)
        journal.verify()
        ids = [one.op_id for one in journal.events()]
        assert len(ids) == len(set(ids))
        journal.close()
    assert failed >= 3


def held(session):
    """What everybody was asked and has not given back, as the session tells it and as the disk does."""
    labels = session.labels  # and takes in what others have written
    told = {who: query.items for who, query in session._state.asked.by.items()}
    journal = Journal(session.journal_path)
    state = fold(journal.events())
    journal.close()
    assert (state.labels, {who: query.items for who, query in state.asked.by.items()}) == (labels, told)
    return told


@pytest.mark.parametrize(
    ("act", "holders"),
    [
        (lambda session: session.ask(), {"me", "you"}),
        (lambda session: session.release(op_id="x"), {"you"}),
        (lambda session: session.take_over("you", op_id="x"), {"me"}),
    ],
    ids=["ask", "release", "take over"],
)
def test_claims_are_as_before_or_after_when_the_nth_database_call_fails(tmp_path, act, holders):
    n, failed = 0, 0
    while n <= failed:
        n += 1
        path = tmp_path / f"{n}.db"
        with opened(path) as session, opened(path, "you") as other:
            other.ask()
            for item in session.ask().items:
                session.label(item, "cat", op_id=f"label-{item}")
            before = held(session)
            with Failing(n):
                try:
                    act(session)
                except (SQLAlchemyError, sqlite3.OperationalError):
                    failed += 1
            between = held(session)
            act(session)
            after = held(session)
            assert after != before
            assert between in (before, after)
            assert set(after) == holders
            if act(session) is not None:  # what was asked stays asked
                assert held(session) == after
        with opened(path) as session:
            assert held(session) == after
        journal = Journal(path)
        journal.verify()
        journal.close()
    assert failed >= 3


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A journal that spans several pages, its rows, and its labels."""
    path, rng = tmp_path_factory.mktemp("sound") / "labels.db", random.Random(0)
    journal = Journal(path)
    journal.append(*[answer(item % 50, rng.choice(LABELS), op_id=f"op-{item}") for item in range(ROWS)])
    labels = fold(journal.events()).labels
    journal.close()
    return path, rows_of(path), labels


def rows_of(path):
    """Rows as anybody would read them, by place; those that cannot be read are left out."""
    rows = {}
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        for seq in range(1, ROWS + 1):
            with contextlib.suppress(sqlite3.DatabaseError):
                rows.update({row[0]: row for row in connection.execute("SELECT * FROM events WHERE seq = ?", (seq,))})
    return rows


def flip(path, rng):
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 4])):
        label = rng.choice(LABELS).encode()
        places = [place for place in range(len(data)) if data.startswith(label, place)]
        data[rng.choice(places) + rng.randrange(len(label))] ^= rng.choice([1, 2, 4, 8, 16])
    path.write_bytes(data)


def rewrite(path, rng):
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for seq in rng.sample(range(1, ROWS + 1), rng.choice([1, 2, 5])):
            column, value = rng.choice([("value", "ox"), ("item", 3), ("key", "77"), ("kind", "skip"), ("hash", "0")])
            connection.execute(f"UPDATE events SET {column} = ? WHERE seq = ?", (value, seq))


def delete(path, rng):
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        first = rng.randrange(1, ROWS + 1)
        connection.execute("DELETE FROM events WHERE seq BETWEEN ? AND ?", (first, first + rng.choice([0, 3, ROWS])))


def truncate(path, rng):
    data = path.read_bytes()
    path.write_bytes(data[: rng.choice([rng.randrange(len(data)), 4096 * rng.randrange(1, len(data) // 4096)])])


def noticed(path):
    try:
        journal = Journal(path, create=False)
    except (SQLAlchemyError, ValueError):
        return True
    try:
        journal.verify()
    except (JournalDamagedError, SQLAlchemyError):
        return True
    finally:
        journal.close()
    return False


def labels_of(path):
    journal = Journal(path, create=False)
    labels = fold(journal.events()).labels
    journal.close()
    return labels


@pytest.mark.parametrize("harm", [flip, rewrite, delete, truncate])
def test_every_damage_is_noticed_and_repaired_and_told_exactly(tmp_path, sound, harm):
    source, rows, labels = sound
    for seed in range(75):
        rng, path = random.Random(seed), tmp_path / f"{seed}.db"
        shutil.copy(source, path)
        copy = path.with_name(f"{seed}.db.jsonl")
        lines = source.with_name("labels.db.jsonl").read_bytes().splitlines(keepends=True)
        harm(path, rng)
        left = rows_of(path)
        hurt = {seq for seq in rows if left.get(seq) != rows[seq]}
        # half of the copies have lines of their own that are changed
        bad = set(rng.sample(range(1, ROWS + 1), rng.choice([1, 3, 20]))) if seed % 2 else set()
        for seq in bad:
            lines[seq - 1] = lines[seq - 1].replace(b'"me"', b'"we"')
        copy.write_bytes(b"".join(lines))
        if hurt or bad:
            assert noticed(path), seed
        report = repair(path)
        assert set(report.restored) == hurt - bad, seed
        assert set(report.relined) == bad - hurt, seed
        assert set(report.lost) == hurt & bad, seed
        assert (report.kept, report.rows) == (ROWS - len(hurt), ROWS)
        assert not noticed(path)
        if not report.lost:
            assert labels_of(path) == labels
            assert rows_of(path) == rows

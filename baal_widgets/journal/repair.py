"""Two damaged copies of a journal made into one that is whole, and told where it could not be."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from baal_widgets.journal.rows import COLUMNS, WIDTH, Row, digest_of, follows, line_of, link, name_of, row_of, text_of
from baal_widgets.journal.schema import copy_of, create_file, insert_rows

REPLACED = "lost"  # the kind of the row that stands where neither copy holds one: a fact that changes nothing


@dataclass(frozen=True)
class Report:
    """What a repair found and did.

    `kept` counts the rows that were intact in the database. `restored` are the places of rows that the copy alone
    held intact, `relined` those that the database alone did, `lost` those that neither did: a row of the kind
    `lost` stands there now, its payload tells what could be read. `moved` are rows that the database had written
    to places that the copy had filled otherwise, which come last now (old place: new place), and `refused` those
    of an operation that the copy tells otherwise. `damaged` is where the old database is kept, `None` where
    nothing was wrong and nothing was changed.
    """

    path: Path
    damaged: Path | None
    rows: int
    kept: int
    restored: tuple[int, ...] = ()
    relined: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()
    moved: tuple[tuple[int, int], ...] = ()
    refused: tuple[int, ...] = ()
    differences: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Place:
    """What the two copies say of one place: the row that was chosen, and which of them held it."""

    seq: int
    chosen: Row | None
    database: tuple[Row, ...]
    copy: tuple[Row, ...]
    in_database: bool
    in_copy: bool
    rivals: tuple[Row, ...] = ()
    """Rows of the database that are as they were written, but of another history than the copy's."""

    @property
    def lost(self) -> bool:
        return self.chosen is None and not self.rivals


def differences(database: Iterable[Row], copy: Iterable[Row | None] | None) -> list[str]:
    """Each place where a row is gone or is not as it was written, or where database and copy differ, in words."""
    lines = None if copy is None else list(copy)
    return [*_differences(_places(database, lines), lines is not None), *_disorder(lines)]


def repair(path: str | os.PathLike[str]) -> Report:
    """Make a journal whole from its database and the copy beside it, and say what was done.

    A row counts as intact when its hash follows from the row before, as either copy tells it. The new journal takes
    the place of the old, which is kept as `<name>.damaged-<time>`, the copy beside it. A sound journal stays as
    it is. Nobody may write to the journal meanwhile. Reads and writes all of both: about a minute for a million
    rows. Raises `FileNotFoundError` where there is neither, `ValueError` where nothing in either is a journal.
    """
    file = Path(path).expanduser().absolute()
    beside = copy_of(file)
    if not file.exists() and not beside.exists():
        raise FileNotFoundError(f"No journal at {file}, and no copy {beside.name} of one.")
    database = read_database(file) if file.exists() else []
    copy = read_lines(beside) if beside.exists() else None
    places = list(_places(database, copy))
    if not any(place.chosen for place in places):
        raise ValueError(f"Neither {file.name} nor {beside.name} holds a row of a journal that is intact.")
    said = (*_differences(places, copy is not None), *_disorder(copy))
    if not said and file.exists():
        said = tuple(forgotten(file))
    if not said and file.exists():
        return Report(file, None, len(places), len(places))
    return _replace(file, places, said, copy is not None)


def read_database(path: Path) -> list[Row]:
    """All rows that can be read of a SQLite file, whatever is wrong with it. Those that cannot be read are left out."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
        # bytes that are no text make the row differ, not the reading fail
        connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        told = f"SELECT {', '.join(COLUMNS)} FROM events"  # noqa: S608  names of our own columns
        rows: dict[int, Row] = {}
        for order in ("ASC", "DESC"):
            try:
                for row in connection.execute(f"{told} ORDER BY seq {order}"):
                    rows.setdefault(row[0], row)
                break
            except sqlite3.Error:
                continue
        else:
            for seq in range(1, max(rows, default=0)):
                if seq not in rows:
                    try:
                        rows.update({row[0]: row for row in connection.execute(f"{told} WHERE seq = ?", (seq,))})
                    except sqlite3.Error:
                        continue
    return [rows[seq] for seq in sorted(rows)]


def forgotten(path: Path) -> list[str]:
    """Whether a checkpoint, itself as it was written, knows of a fact that is no more, in words."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
        try:
            parts = connection.execute("SELECT part, seq, hash, keys, digest, data FROM checkpoints").fetchall()
            if not parts or any(digest != digest_of(p, s, h, k, data) for p, s, h, k, digest, data in parts):
                return []
            _, seq, hash_, *_ = parts[0]
            found = connection.execute("SELECT hash FROM events WHERE seq = ?", (seq,)).fetchone()
        except (sqlite3.Error, TypeError):  # a checkpoint is a cache: what is wrong with it matters to nobody
            return []
    if found == (hash_,):
        return []
    what = "gone" if found is None else "another now"
    return [f"Fact {seq}, up to which a checkpoint tells, is {what}: what came at the end is lost, from the copy too."]


def read_lines(path: Path) -> list[Row | None]:
    """The row of each line of a copy, `None` for a line that tells none. Half a line at the end does not count."""
    with path.open("rb") as file:
        lines = file.read().split(b"\n")
    last = [row] if (row := row_of(lines[-1])) is not None else []
    return [*map(row_of, lines[:-1]), *last]


def _places(database: Iterable[Row], copy: Iterable[Row | None] | None) -> Iterator[_Place]:
    """Every place that either copy speaks of, or must have held a row, in order."""
    held: dict[int, tuple[list[Row], list[Row]]] = {}
    for row in database:
        held.setdefault(row[0], ([], []))[0].append(row)
    named = set()
    for number, line in enumerate(copy or (), start=1):
        if line is None:
            named.add(number)
        else:
            held.setdefault(line[0], ([], []))[1].append(line)
    hashes: set[str] = {""}  # that the place before may have had
    good: str | None = ""
    waiting: list[_Place] = []  # places that are lost unless nothing intact comes after them
    bound = max(held.keys() | named, default=0)
    likely = max(sum(len(one) for one, _ in held.values()), sum(len(one) for _, one in held.values()), *named, 0)
    for seq in range(1, min(bound, 2 * likely + 1000) + 1):
        ours, theirs = held.get(seq, ([], []))
        place = _place(seq, tuple(ours), tuple(theirs), hashes, good)
        hashes = {row[-1] for row in (*ours, *theirs) if isinstance(row[-1], str)}
        if place.chosen is not None:
            good = place.chosen[-1]
        elif place.lost:
            good = None
        waiting.append(place)
        if not place.lost or (seq <= likely and (ours or theirs or seq in named)):
            yield from waiting
            waiting = []


def _place(seq: int, ours: tuple[Row, ...], theirs: tuple[Row, ...], hashes: set[str], good: str | None) -> _Place:
    def rank(row: Row) -> int:
        """2 where it follows the row before that was chosen, 1 where it follows one that was told, else 0."""
        if good is not None and follows(good, row):
            return 2
        return int(any(follows(one, row) for one in hashes))

    ranked = sorted(((rank(row), row in theirs, row in ours, row) for row in dict.fromkeys((*theirs, *ours))), key=_key)
    intact = [told for told in ranked if told[0] == 2 or (told[0] and good is None)]
    if not hashes and not intact:  # the row before is gone from both: all there is to go by is that they agree
        intact = [told for told in ranked if told[1] and told[2]]
    rivals = tuple(told[3] for told in ranked if told[0] and told[2] and told not in intact[:1])
    if not intact:
        return _Place(seq, None, ours, theirs, False, False, rivals)
    _, in_copy, in_database, chosen = intact[0]
    return _Place(seq, chosen, ours, theirs, in_database, in_copy, rivals)


def _key(told: tuple[int, bool, bool, Row]) -> tuple[int, bool, bool]:
    return (-told[0], not told[1], not told[2])


def _differences(places: Iterable[_Place], two: bool) -> Iterator[str]:
    for place in places:
        seq, row = place.seq, place.chosen
        if row is None and place.rivals:
            yield f"Row {seq} of the journal ({name_of(place.rivals[0])}) is of another history than its copy."
            continue
        if row is None:
            if not place.database and not place.copy:
                yield f"Row {seq} of the journal is missing" + (", from its copy too." if two else ".")
            for one in dict.fromkeys(place.database):
                yield f"Row {seq} of the journal ({name_of(one)}) is not as it was written" + _nor(two)
            if place.copy and not place.database:
                yield f"Row {seq} of the journal is missing, and its line in the copy is not as it was written."
            continue
        if not place.in_database:
            if place.rivals:
                yield f"Row {seq} of the journal ({name_of(place.rivals[0])}) is {name_of(row)} in its copy."
            elif place.database:
                yield (
                    f"Row {seq} of the journal ({name_of(place.database[0])}) is not as it was written: its copy "
                    f"holds {name_of(row)}."
                )
            else:
                yield f"Row {seq} of the journal is missing: its copy holds {name_of(row)}."
        if two and not place.in_copy:
            what = "not as it was written" if place.copy else "missing"
            yield f"Row {seq} of the copy is {what}: the journal holds {name_of(row)}."
        elif two and len(place.copy) > 1:
            yield f"Row {seq} comes {len(place.copy)} times in the copy."


def _disorder(lines: Sequence[Row | None] | None) -> Iterator[str]:
    last = 0
    for number, row in enumerate(lines or (), start=1):
        if row is not None and row[0] < last:
            yield f"Line {number} of the copy tells row {row[0]} after row {last}."
        last = last if row is None else row[0]


def _nor(two: bool) -> str:
    return ", and its copy does not hold it intact." if two else "."


def _replace(file: Path, places: Sequence[_Place], said: tuple[str, ...], two: bool) -> Report:
    rows = [place.chosen or _placeholder(place) for place in places if place.chosen or place.lost]
    ids = {row[1] for row in rows}
    moved, refused = [], []
    for place in places:
        for row in place.rivals:
            if row[1] in ids:
                refused.append(place.seq)
            else:
                ids.add(row[1])
                moved.append((place.seq, len(rows) + 1))
                rows.append((len(rows) + 1, *row[1:-2], _moved(row[-2], dict(moved)), row[-1]))
    if moved or any(place.chosen is None for place in places):
        rows = _chained(rows)
    fresh = file.with_name(f"{file.name}.repaired")
    lines = copy_of(fresh)
    for left in (fresh, lines):
        left.unlink(missing_ok=True)
    create_file(fresh)
    insert_rows(fresh, rows)
    with open(os.open(lines, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w", encoding="ascii") as target:
        target.writelines(f"{line_of(text_of(row), row[-1])}\n" for row in rows)
        target.flush()
        os.fsync(target.fileno())
    # the old files are copied first: at no moment is there no journal under the name
    damaged = file.with_name(f"{file.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    for old, kept in ((file, damaged), (copy_of(file), copy_of(damaged))):
        if old.exists():
            shutil.copy2(old, kept)
    fresh.replace(file)
    lines.replace(copy_of(file))
    return Report(
        path=file,
        damaged=damaged,
        rows=len(rows),
        kept=sum(place.in_database for place in places),
        restored=tuple(place.seq for place in places if place.chosen and not place.in_database),
        relined=tuple(place.seq for place in places if place.chosen and not place.in_copy) if two else (),
        lost=tuple(place.seq for place in places if place.lost),
        moved=tuple(moved),
        refused=tuple(refused),
        differences=said,
    )


def _placeholder(place: _Place) -> Row:
    """A row for a place that neither copy holds intact, with what could be read there."""
    told = {"database": [list(row) for row in place.database], "copy": [list(row) for row in place.copy]}
    payload = json.dumps(told, ensure_ascii=True, default=repr, sort_keys=True)
    time = datetime.now(UTC).isoformat(timespec="microseconds")
    row: Row = (place.seq, f"{REPLACED}-{place.seq}-{time}", REPLACED, None, None, None, "", 0, None, time, payload, "")
    assert len(row) == WIDTH
    return row


def _moved(payload: str, moved: dict[int, int]) -> str:
    """A payload whose references to rows that have moved are to their new places."""
    told = json.loads(payload)
    changed = {name: moved[told[name]] for name in ("target", "seq") if told.get(name) in moved}
    return json.dumps({**told, **changed}, sort_keys=True) if changed else payload


def _chained(rows: Sequence[Row]) -> list[Row]:
    linked: list[Row] = []
    chain = ""
    for one in rows:
        row: Row = (len(linked) + 1, *one[1:])
        chain = link(chain, text_of(row))
        linked.append((*row[:-1], chain))
    return linked

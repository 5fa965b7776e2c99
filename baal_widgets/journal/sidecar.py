"""A second copy of the journal in a file of its own: what one of the two loses, the other still tells.

One line of JSON a fact, the columns in the order of the table and the hash last, so the chain can be checked and
labels can be rescued with nothing but a JSON reader. Lines are added after the commit; the database leads. A copy
that is behind (a kill came between, the folder was read-only for a while) is caught up by later calls.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from baal_widgets.journal.rows import Row, follows, line_of, link, row_of, text_of

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

AT_ONCE = 2000  # rows that one append writes later than it should: some 20 ms
PATIENCE = 1.0  # seconds to wait for another process that writes to the same copy
TAIL = 1 << 16
DIFFERS = "does not tell what the database does: `baal-widgets verify` says where they differ"

Later = Callable[[int, int], list[Row]]
"""Rows of the database after a place, at most so many."""


class Sidecar:
    """The copy of one journal. Its methods change nothing that is already a whole line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._warned = False

    def add(self, previous: str, rows: Sequence[Row], later: Later) -> None:
        """Copy rows just committed, the first of which follows the hash `previous`, and up to 2000 that lack before.

        Raises nothing of its own: a copy that cannot be written, or that tells something else than the database,
        is warned of once, and the journal goes on without.
        """
        try:
            with self._locked() as file:
                if file is None:
                    return
                seq, hash_ = _mend_tail(file)
                if seq == rows[0][0] - 1 and hash_ == previous:
                    _write(file, [line_of(text_of(row), row[-1]) for row in rows])
                elif seq < rows[0][0]:
                    if not self._extend(file, seq, hash_, later(seq, AT_ONCE)):
                        self._warn(DIFFERS)
                elif not _holds(file, rows[-1], seq - rows[-1][0]):
                    self._warn(DIFFERS)
        except OSError as error:
            self._warn(f"cannot be written ({error}): labels are kept in the database alone")

    def catch_up(self, later: Later, whole: bool = False) -> None:
        """Copy what the database holds beyond the last line, some 2000 rows or all of it. Raises nothing of its own."""
        try:
            with self._locked() as file:
                if file is None:
                    return
                seq, hash_ = _mend_tail(file)
                while rows := later(seq, AT_ONCE):
                    if not self._extend(file, seq, hash_, rows) or not whole:
                        return
                    seq, hash_ = rows[-1][0], rows[-1][-1]
        except OSError as error:
            self._warn(f"cannot be written ({error}): labels are kept in the database alone")

    def _extend(self, file: int, seq: int, hash_: str, rows: Sequence[Row]) -> bool:
        """Write rows that follow the last line; rows that are not as they were written are left to `verify`."""
        lines = []
        for row in rows:
            text = text_of(row)
            if row[0] != seq + 1 or link(hash_, text) != row[-1]:
                break
            lines.append(line_of(text, row[-1]))
            seq, hash_ = row[0], row[-1]
        _write(file, lines)
        return len(lines) == len(rows)

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"The copy {self.path.name} of the journal {what}.", stacklevel=4)

    @contextmanager
    def _locked(self) -> Iterator[int | None]:
        """The file, its lock held; `None` where somebody else keeps it: what lacks is written another time."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        file = os.open(self.path, flags, 0o600)
        try:
            deadline = time.monotonic() + PATIENCE
            while not (held := _lock(file)) and time.monotonic() < deadline:
                time.sleep(0.001)
            yield file if held else None
        finally:
            os.close(file)  # and the lock with it


def _lock(file: int) -> bool:
    try:
        if sys.platform == "win32":
            os.lseek(file, 1 << 62, os.SEEK_SET)  # far behind the lines, which stay readable
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _write(file: int, lines: Sequence[str]) -> None:
    left = memoryview("".join(f"{line}\n" for line in lines).encode("ascii"))
    start = os.lseek(file, 0, os.SEEK_END)
    try:
        while left:
            left = left[os.write(file, left) :]
    except OSError:
        os.ftruncate(file, start)  # a full disk leaves half a line
        raise


def _mend_tail(file: int) -> tuple[int, str]:
    """Place and hash of the last line, (0, "") without one. Half a line, left by a kill, is taken away."""
    size = os.lseek(file, 0, os.SEEK_END)
    tail = _tail(file, size, 2)
    whole = tail.rfind(b"\n") + 1
    row = row_of(tail[whole:]) if whole < len(tail) else None
    before = tail[: max(whole - 1, 0)].rfind(b"\n") + 1
    last = row_of(tail[before:whole]) if whole else None
    if row is not None and follows("" if last is None else last[-1], row):
        _write(file, [""])
        return row[0], row[-1]
    if whole < len(tail):
        os.ftruncate(file, size - len(tail) + whole)
    if whole and last is None:
        raise OSError("its last line is not as it was written")
    return (0, "") if last is None else (last[0], last[-1])


def _tail(file: int, size: int, lines: int) -> bytes:
    """The end of a file with at least so many line ends, or all of it."""
    length = TAIL
    while True:
        start = max(size - length, 0)
        os.lseek(file, start, os.SEEK_SET)
        data = b""
        while len(data) < size - start and (chunk := os.read(file, size - start - len(data))):
            data += chunk
        if start == 0 or data.count(b"\n") > lines:
            return data
        length *= 4


def _holds(file: int, row: Row, behind: int) -> bool:
    """Whether a line not far from the end is this row: another process has caught up for us."""
    line = line_of(text_of(row), row[-1]).encode("ascii")
    return line in _tail(file, os.lseek(file, 0, os.SEEK_END), behind + 2).split(b"\n")

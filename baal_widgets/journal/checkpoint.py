"""The folded state kept beside the facts, so that opening a long journal reads only what came later.

A checkpoint is a cache and never a fact: plain JSON, compressed, that holds for one place, one chain hash and one
order of the dataset's keys. Where anything does not fit, or a byte of it has changed, the facts are folded anew.
"""

from __future__ import annotations

import gc
import hashlib
import json
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, MutableSequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any, overload

from sqlalchemy.exc import SQLAlchemyError

from baal_widgets.journal.asked import Asked, Query
from baal_widgets.journal.folds import PACE, Answer, Change, State
from baal_widgets.journal.journal import Journal, JournalDamagedError

VERSION = 5  # to be raised when `State.apply` gives a fact another meaning
EVERY = 20_000  # facts folded before it pays to write a checkpoint
CHUNK = 5_000
PLAIN = ("settings", "classes", "history", "seq", "n_labelled", "behind", "heard", "_renamed")
SETS = ("unknown", "flagged", "reviewed")
BY_ITEM = ("notes", "contents", "_latest", "merged")
COUNTERS = ("counts", "aside", "n_done")


def resume(journal: Journal, index_of: Mapping[str, int] | None = None) -> State:
    """`fold(journal.events(), index_of)`, from the last checkpoint on where there is one that fits.

    After many facts that no checkpoint knew it writes one. `keep` does the same when a session ends, so a long journal
    is folded from its beginning only where it came from elsewhere.
    """
    with _uncollected():
        state = _read(journal, _fingerprint(index_of)) or State()
        begun = state.seq
        while fresh := journal.events(state.seq, CHUNK):
            for event in fresh:
                state.apply(event, index_of)
    if state.seq - begun >= EVERY:
        _write(journal, state, index_of)
    return state


def keep(journal: Journal, state: State, index_of: Mapping[str, int] | None = None) -> None:
    """Write a checkpoint of a state that is up to date, where the last one is many facts behind it."""
    with suppress(SQLAlchemyError, OSError, JournalDamagedError):
        if state.seq - journal.checkpointed() >= EVERY:
            _write(journal, state, index_of)


def _write(journal: Journal, state: State, index_of: Mapping[str, int] | None) -> None:
    with suppress(SQLAlchemyError, OSError):  # the facts are all that matters
        last = journal.events(state.seq - 1, 1)
        if last and last[0].seq == state.seq:
            journal.write_checkpoint(state.seq, last[0].hash, _fingerprint(index_of), _packed(state))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Many small objects are made, none of them in a circle: the collector would look at them again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


class Past(MutableSequence[Change]):
    """A list of changes whose older part stays packed until somebody asks for it: undo seldom goes far back."""

    def __init__(self, packed: Iterable[tuple[int, bytes]]) -> None:
        self._packed = list(packed)
        self._base = sum(n for n, _ in self._packed)
        self._open: list[Change] = []

    def __len__(self) -> int:
        return self._base + len(self._open)

    @overload
    def __getitem__(self, place: int) -> Change: ...
    @overload
    def __getitem__(self, place: slice) -> list[Change]: ...
    def __getitem__(self, place: int | slice) -> Change | list[Change]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        return self._open[self._reach(place)]

    def __setitem__(self, place: Any, change: Any) -> None:
        self._open[self._reach(place)] = change

    def __delitem__(self, place: Any) -> None:
        del self._open[self._reach(place)]

    def insert(self, index: int, value: Change) -> None:
        if index >= len(self):
            self._open.append(value)
        else:
            self._open.insert(self._reach(index), value)

    def __eq__(self, other: object) -> bool:
        return list(self) == (list(other) if isinstance(other, (list, Past)) else other)

    def _reach(self, place: int) -> int:
        """Where a place is in the part that is unpacked, after unpacking as much as it takes."""
        place += len(self) if place < 0 else 0
        if not 0 <= place < len(self):
            raise IndexError(place)
        while place < self._base:
            n, data = self._packed.pop()
            self._open[:0] = map(_change, json.loads(zlib.decompress(data)))
            self._base -= n
        return place - self._base

    def packed(self) -> list[tuple[int, bytes]]:
        """All of it in chunks; those that were never unpacked as they came."""
        chunks = [self._open[start : start + CHUNK] for start in range(0, len(self._open), CHUNK)]
        return [*self._packed, *[(len(chunk), _pack(list(map(_told, chunk)))) for chunk in chunks]]


def _fingerprint(index_of: Mapping[str, int] | None) -> str:
    told = json.dumps([VERSION, index_of and list(index_of.items())])
    return hashlib.sha256(told.encode()).hexdigest()


def _read(journal: Journal, keys: str) -> State | None:
    try:
        parts = journal.read_checkpoint(keys)
        return None if parts is None else _unpacked(parts)
    except (SQLAlchemyError, ValueError, TypeError, KeyError, zlib.error):
        return None


def _pack(told: Any) -> bytes:
    return zlib.compress(json.dumps(told, separators=(",", ":")).encode(), 1)


def _told(change: Change) -> list[Any]:
    before = None if change.before is None else _row(change.before)
    return [change.seq, change.item, before, _row(change.after), change.group, change.at, change.asked]


def _row(answer: Answer) -> list[Any]:
    return [answer.value, answer.round, answer.annotator, answer.seq, answer.why, answer.review, answer.beside]


def _change(told: list[Any]) -> Change:
    seq, item, before, after, *more = told
    return Change(seq, item, None if before is None else Answer(*before), Answer(*after), *more)


def _packed(state: State) -> list[bytes]:
    told: dict[str, Any] = {name: getattr(state, name) for name in PLAIN}
    told |= {name: sorted(getattr(state, name)) for name in SETS}
    told |= {name: list(getattr(state, name).items()) for name in (*BY_ITEM, *COUNTERS)}
    told["answers"] = [[item, *_row(answer)] for item, answer in state.answers.items()]
    told["undone"] = list(map(_told, state.undone))
    told["opinions"] = [[item, [_row(one) for one in said.values()]] for item, said in state.opinions.items()]
    told["repeated"] = [[person, list(said.items())] for person, said in state.repeated.items()]
    told["asked"] = _asked(state.asked)
    told["again"] = [[person, list(said.items())] for person, said in state.again.items()]
    told["times"] = [[person, list(times)] for person, times in state.times.items()]
    done = state.done
    if not isinstance(done, Past):
        past = Past([])
        past._open = list(done)
        done = past
    chunks = done.packed()
    told["lengths"] = [n for n, _ in chunks]
    return [_pack(told), *[data for _, data in chunks]]


def _unpacked(parts: list[bytes]) -> State:
    told = json.loads(zlib.decompress(parts[0]))
    state = State(**{name: told[name] for name in PLAIN if not name.startswith("_")})
    for name in SETS:
        setattr(state, name, set(told[name]))
    for name in BY_ITEM:
        setattr(state, name, dict(told[name]))
    state.contents = {key: (size, hash_) for key, (size, hash_) in state.contents.items()}
    for name in COUNTERS:
        setattr(state, name, Counter(dict(told[name])))
    state._renamed = told["_renamed"]
    state.answers = {item: Answer(*row) for item, *row in told["answers"]}
    state.undone = list(map(_change, told["undone"]))
    state.opinions = {item: {row[2]: Answer(*row) for row in said} for item, said in told["opinions"]}
    state.repeated = {person: dict(said) for person, said in told["repeated"]}
    state.asked = _told_asked(told["asked"])
    state.again = {person: {item: (a, b) for item, (a, b) in said} for person, said in told["again"]}
    state.times = {
        person: deque([(time, group) for time, group in times], maxlen=PACE) for person, times in told["times"]
    }
    state.done = Past(zip(told["lengths"], parts[1:], strict=True))
    return state


def _asked(asked: Asked) -> dict[str, Any]:
    return {
        "newest": asked.newest and asdict(asked.newest),
        "by": [[person, asdict(query)] for person, query in asked.by.items()],
        "waiting": [[person, sorted(items)] for person, items in asked.waiting.items()],
        "seen": [[person, *heard] for person, heard in asked.seen.items()],
        "clock": [asked.clock, asked.moment],
    }


def _told_asked(told: dict[str, Any]) -> Asked:
    return Asked(
        told["newest"] and _query(told["newest"]),
        {person: _query(query) for person, query in told["by"]},
        {person: set(items) for person, items in told["waiting"]},
        {person: (clock, time) for person, clock, time in told["seen"]},
        *told["clock"],
    )


def _query(told: dict[str, Any]) -> Query:
    query: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    return Query(**query)

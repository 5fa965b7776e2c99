"""How fast a person answers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import groupby
from statistics import median

BREAK = 60.0  # seconds: whoever takes longer over an image has left it
QUICKEST = 0.02  # seconds: quicker than that is a program
FEWEST = 5  # gaps from which on a pace is told


def per_minute(times: Iterable[tuple[str, str | None]]) -> float | None:
    """Answers a minute, from the median time between answers; `None` where there are too few to tell.

    `times` are ISO 8601 texts in order, each with the group that the answer was given in, if any. Answers given by one
    gesture share the time that it took. Gaps of more than a minute are breaks, those below 20 ms are no hand's: both
    are left out.

    >>> per_minute([(f"2024-01-01T12:00:{second:02}", None) for second in range(0, 30, 3)])
    20.0
    """
    gestures = [(datetime.fromisoformat(rows[0][0]), len(rows)) for rows in _gestures(times)]
    gaps = list[float]()
    for (before, _), (after, n) in zip(gestures, gestures[1:], strict=False):
        seconds = (after - before).total_seconds()
        if QUICKEST <= seconds <= BREAK:
            gaps += [seconds / n] * n
    middle = median(gaps) if len(gaps) >= FEWEST else 0
    return 60 / middle if middle > 0 else None


def _gestures(times: Iterable[tuple[str, str | None]]) -> Iterable[list[tuple[str, str | None]]]:
    told = [row for row in times if row[0]]
    for _, rows in groupby(enumerate(told), key=lambda row: row[1][1] or row[0]):
        yield [row for _, row in rows]

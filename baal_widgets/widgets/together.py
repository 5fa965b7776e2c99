"""How far several people agree and what they don't: worked out beside the labelling, and seldom."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isnan
from typing import Any

from baal_widgets.consensus import Disagreement, Suggestion, suggestions
from baal_widgets.jobs import Job
from baal_widgets.metrics.agreement import krippendorff_alpha
from baal_widgets.session import LabellingSession
from baal_widgets.vocabulary import Vocabulary

PAUSE, SHARE = 2.0, 20.0
"""The least time between two workings, in seconds, and in how many times what the last one took."""
MOST_NAMES, LONGEST_NAME = 8, 60  # of a camp that are told to the page


@dataclass(frozen=True)
class Agreement:
    """What people say together, as of the fact `seq`: Krippendorff's `alpha` (`None` where it is not defined) over `n`
    items that two or more labelled by themselves, and what they disagree on, by item, most contested first."""

    seq: int = -1
    n: int = 0
    alpha: float | None = None
    contested: Mapping[int, Disagreement] = field(default_factory=dict)
    suggested: Mapping[int, Suggestion] = field(default_factory=dict)
    error: str = ""

    def of(self, item: int) -> tuple[Disagreement, Suggestion | None] | None:
        """What people say of an item, if they disagree, and what it could be settled as."""
        one = self.contested.get(item)
        return None if one is None else (one, self.suggested.get(item))

    def __str__(self) -> str:
        if self.error:
            return f"agreement cannot be told: {self.error}"
        if not self.n:
            return ""
        items = f"{self.n:,} image{'s' * (self.n != 1)} labelled by several"
        return items if self.alpha is None else f"agreement {self.alpha:.2f} (Krippendorff's alpha) on {items}"


def agreement(session: LabellingSession) -> Agreement:
    """Work it out anew: two walks over all answers, and the estimates of who errs how."""
    seq, said = session.seq, session.ratings(reviews=False)
    shared = {item: own for item, own in said.items() if len(own) > 1}
    alpha = krippendorff_alpha(shared) if shared else float("nan")
    contested = session.disagreements()
    found = suggestions([one for one in contested if one.settled is None], shared, session.classes)
    told = {one.item: one for one in contested}
    return Agreement(seq, len(shared), None if isnan(alpha) else alpha, told, found)


class Together:
    """The latest `Agreement` of a session, at most some seconds old while somebody looks.

    One person alone costs nothing.
    """

    def __init__(self, session: LabellingSession) -> None:
        self.session = session
        self._known = Agreement()
        self._job: Job[Agreement] | None = None
        self._lock = threading.Lock()
        self._next = 0.0

    def known(self) -> Agreement:
        """What is known by now; has it worked out anew where that is due."""
        with self._lock:
            job = self._job
            if job is not None and job.done:
                self._job = None
                error = job.exception()
                self._known = job.result() if error is None else replace(self._known, error=str(error))
            due = self._job is None and time.monotonic() >= self._next
            if due and self.session.seq != self._known.seq and self._several():
                self._job = Job(self._work).start()
            return self._known

    def _several(self) -> bool:
        return bool(self._known.n) or len(self.session.annotators) > 1

    def _work(self, _job: Job[Agreement]) -> Agreement:
        begun = time.monotonic()
        try:
            return agreement(self.session)
        finally:
            now = time.monotonic()
            self._next = now + max(PAUSE, SHARE * (now - begun))


def told_contest(one: Disagreement, suggestion: Suggestion | None, words: Vocabulary) -> dict[str, Any]:
    """A disagreement as the page takes it, classes by their number; `KeyError` where one has another name by now."""
    camps = [
        {
            "value": words.numbered(words.index(label)),
            "n": len(people),
            "people": [_short(name) for name in people[:MOST_NAMES]],
        }
        for label, people in one.camps.items()
    ]
    told: dict[str, Any] = {"camps": camps, "suggested": None, "share": 0.0, "method": ""}
    if suggestion is not None:
        share = round(suggestion.share, 3)
        told |= {
            "suggested": words.numbered(words.index(suggestion.label)),
            "share": share,
            "method": suggestion.method,
        }
    return told


def _short(name: Any) -> str:
    told = str(name)
    return told if len(told) <= LONGEST_NAME else f"{told[: LONGEST_NAME - 1]}…"

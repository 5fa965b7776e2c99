"""Work beside the labelling: a thread with progress, cancelling and a result."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

OPEN_ENDED = frozenset({"train", "check"})
"""Phases that end when they are done and not at a number of steps."""

LONG = frozenset({"features"})
"""Phases so long that the time to their end is worth telling where nothing is known of those after them."""


@dataclass(frozen=True)
class Progress:
    """How far a job is: the phase it is in, the share done of the whole (0 to 1) and a line for a person.

    `eta` is how many seconds it will probably take from here on, `loss` the training loss now; `None` where not known.
    """

    phase: str = "waiting"
    fraction: float = 0.0
    message: str = ""
    eta: float | None = None
    loss: float | None = None


class Job(Generic[T]):
    """One run of `work(job)`, which calls `job.report(...)` often and returns the result.

    The worker never prints, plots or touches a widget: whoever is interested reads `progress` and `result()`.
    Cancelling takes effect at the next report, so between two batches.
    """

    def __init__(self, work: Callable[[Job[T]], T]) -> None:
        self._work = work
        self._future: Future[T] = Future()
        self._cancelled = threading.Event()
        self.progress = Progress()

    def start(self) -> Job[T]:
        """Run beside the caller, in a thread that does not keep the process alive."""
        threading.Thread(target=self.run, name="baal-widgets job", daemon=True).start()
        return self

    def run(self) -> Job[T]:
        """Run in the caller's thread. Errors wait in `result()`."""
        try:
            result = self._work(self)
        except BaseException as error:
            self.progress = Progress("stopped", self.progress.fraction, str(error) or type(error).__name__)
            self._future.set_exception(error)
            if isinstance(error, KeyboardInterrupt):
                raise
        else:
            self.progress = Progress("done", 1.0, self.progress.message)
            self._future.set_result(result)
        return self

    def report(
        self,
        phase: str,
        fraction: float,
        message: str = "",
        *,
        eta: float | None = None,
        loss: float | None = None,
    ) -> None:
        """Called by the work itself. Raises `CancelledError` once someone has called `cancel`."""
        if self._cancelled.is_set():
            raise CancelledError("cancelled")
        self.progress = Progress(phase, fraction, message, None if eta is None else max(eta, 0.0), loss)

    def cancel(self) -> None:
        """Ask the work to stop; `result()` then raises `CancelledError`. Harmless when it is done already."""
        self._cancelled.set()

    @property
    def done(self) -> bool:
        return self._future.done()

    def result(self, timeout: float | None = None) -> T:
        """Wait for the result, at most `timeout` seconds (`TimeoutError`). Raises what the work raised."""
        return self._future.result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait like `result`; what the work raised, or `None`."""
        return self._future.exception(timeout)


class Course:
    """The way of a job through phases whose sizes are known, so that it can tell how far it is and how long it takes.

    `plan` is the units of each phase in their order (items, labels), `weights` the share of the progress bar that each
    takes. `rates` are seconds a unit by phase; those of phases that end are written there, for the next course.
    """

    def __init__(
        self, job: Job[Any], plan: Mapping[str, int], weights: Mapping[str, float], rates: dict[str, float]
    ) -> None:
        self.job, self.plan, self.rates = job, {name: n for name, n in plan.items() if n}, rates
        whole, before = sum(weights[name] for name in self.plan) or 1.0, 0.0
        self._spans: dict[str, tuple[float, float]] = {}
        for name in self.plan:
            self._spans[name] = before / whole, weights[name] / whole
            before += weights[name]
        self._phase, self._began, self._furthest = "", 0.0, 0.0

    def report(self, phase: str, share: float, message: str = "", *, loss: float | None = None) -> None:
        """A phase is so far done (0 to 1); the whole never goes back. Raises `CancelledError` as `Job.report` does."""
        if phase != self._phase:
            self.end()
            self._phase, self._began = phase, time.perf_counter()
        start, width = self._spans.get(phase, (1.0, 0.0))
        self._furthest = max(self._furthest, min(start + share * width, 1.0))
        self.job.report(phase, self._furthest, message, eta=self._left(share), loss=loss)

    def end(self) -> None:
        """The present phase is over."""
        if self._phase in self.plan:
            self.rates[self._phase] = (time.perf_counter() - self._began) / self.plan[self._phase]
        self._phase = ""

    def _left(self, share: float) -> float | None:
        """Seconds to the end: of this phase by its own pace, of training by the last lesson's, which may end early."""
        phases = list(self.plan)
        if self._phase not in phases:
            return None
        spent = time.perf_counter() - self._began
        open_ended = self._phase in OPEN_ENDED
        pace = self.rates.get(self._phase)
        if not open_ended and share > 0:
            left, pace = spent * (1 - share) / share, spent / share / self.plan[self._phase]
        elif pace is not None:
            left = max(0.0, pace * self.plan[self._phase] - spent)
        else:
            return None
        for phase in phases[phases.index(self._phase) + 1 :]:
            rate = self.rates.get(phase, None if open_ended or phase in OPEN_ENDED else pace)
            if rate is None and self._phase in LONG:
                continue
            if rate is None:
                return None
            left += rate * self.plan[phase]
        return left

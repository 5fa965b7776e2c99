"""Work beside the labelling: a thread with progress, cancelling and a result."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """How far a job is: the phase it is in, the share done of the whole (0 to 1) and a line for a person."""

    phase: str = "waiting"
    fraction: float = 0.0
    message: str = ""


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

    def report(self, phase: str, fraction: float, message: str = "") -> None:
        """Called by the work itself. Raises `CancelledError` once someone has called `cancel`."""
        if self._cancelled.is_set():
            raise CancelledError("cancelled")
        self.progress = Progress(phase, fraction, message)

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

"""What the benchmarks share: comparisons declared as values, and how each is measured.

A module `compare_<topic>.py` lists its `COMPARISONS`; `run.py` runs them. The ways of a comparison do the same work and
are run one after the other within each repetition, so that whatever else the machine does meets all alike. Told are
medians, their spread and their ratios. Where torch has one thread, ratios are of CPU seconds, which a busy machine
changes least; on a GPU and with more threads they are of seconds.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import resource
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

OURS = "baal_widgets"
FLOOR = "floor"

Run = Callable[[], Any]
Results = dict[str, Any]


def close(results: Results, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """All ways but the floor gave the same numbers."""
    told = {name: np.asarray(result, float) for name, result in results.items() if name != FLOOR}
    for name, values in told.items():
        np.testing.assert_allclose(values, told[OURS], rtol=rtol, atol=atol, err_msg=name)


def whatever(results: Results) -> None:
    """Ways whose results cannot be compared number by number: say in `quality` how good each is."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How good a way's result is: `of(result, **sizes)`, higher = better. Ours may fall short by the share `slack`."""

    name: str
    of: Callable[..., float]
    slack: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """The same work done by us and by others: we take `1 / at_least` of what `against` takes, `None` promises nothing.

    `ways(device, **sizes)` makes, outside the clock, one function for each way; each call does the work once. `sizes`
    are also filled into `work`; `quick` are those of a trial run. Ours is called "baal_widgets", the least that anyone
    could do "floor"; `within` bounds ours over the floor's. `also` holds further ways and their own `at_least`.

    `measures`: "seconds"; "bytes", the peak of memory above what was there when the ways were made and had been tried
    at the `quick` sizes, each way in a process of its own; "told", the number of `unit` that a way returns. `slow` ways
    are run only once. The table prints `note` below the row: what a reader must know of the figures.
    """

    name: str
    work: str
    against: str
    at_least: float | None
    ways: Callable[..., dict[str, Run]]
    sizes: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    quick: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    measures: Literal["seconds", "bytes", "told"] = field(default="seconds", kw_only=True)
    unit: str = field(default="s", kw_only=True)
    within: float | None = field(default=None, kw_only=True)
    also: Mapping[str, float] = field(default_factory=dict, kw_only=True)
    repetitions: int = field(default=7, kw_only=True)
    slow: Sequence[str] = field(default=(), kw_only=True)
    agree: Callable[[Results], None] = field(default=close, kw_only=True)
    quality: Quality | None = field(default=None, kw_only=True)
    note: str = field(default="", kw_only=True)

    def measure(self, device: str, repetitions: int, sizes: Mapping[str, Any], only: str | None = None) -> Results:
        """Figures of each way, of one way with `only`: `{"figures": {way: {clock: [...]}}, "quality": {...}}`."""
        ways = self._ways(device, sizes, only)
        if self.measures == "bytes":  # libraries read their code when it is first used: no memory of the work
            for run in self._ways(device, self.quick, only).values():
                run()
        clock = Clock(device, self.measures)
        figures: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        results = {}
        for name, run in ways.items():  # seconds are warmed up for, what is told need not be
            figure, results[name] = clock(run)
            if name in self.slow or self.measures != "seconds":
                figures[name].append(figure)
        if only is None:
            self.agree(results)
        of = self.quality
        quality = {} if of is None else {name: of.of(result, **sizes) for name, result in results.items()}
        results.clear()
        for _ in range({"seconds": repetitions, "told": repetitions - 1, "bytes": 0}[self.measures]):
            for name, run in ways.items():
                if name not in self.slow:
                    figures[name].append(clock(run)[0])
        return {"figures": {name: _columns(rows) for name, rows in figures.items()}, "quality": quality}

    def _ways(self, device: str, sizes: Mapping[str, Any], only: str | None) -> dict[str, Run]:
        ways = self.ways(device, **sizes)
        return ways if only is None else {only: ways[only]}

    def told(self, measured: Results, clock: str) -> Results:
        """Medians, ratios and what was promised, each with whether it is kept."""
        medians = {name: statistics.median(columns[clock]) for name, columns in measured["figures"].items()}
        ours, bars = medians[OURS], []
        for other, least in {self.against: self.at_least, **self.also}.items():
            ratio = medians[other] / max(ours, 4096 if self.measures == "bytes" else 1e-9)
            bars.append({"against": other, "ratio": ratio, "at_least": least, "kept": least is None or ratio >= least})
        if self.within is not None:
            over = ours / medians[FLOOR]
            bars.append({"against": FLOOR, "ratio": over, "at_most": self.within, "kept": over <= self.within})
        if self.quality is not None:
            mine, theirs = (measured["quality"][name] for name in (OURS, self.against))
            short = theirs - self.quality.slack * abs(theirs)
            bars.append({"against": self.against, self.quality.name: mine, "theirs": theirs, "kept": mine >= short})
        return {"medians": medians, "unit": "bytes" if self.measures == "bytes" else self.unit, "bars": bars}


@dataclass(frozen=True)
class Growth:
    """How the time of our work grows with its size: seconds go like size to the power of the exponent fitted.

    `run(device, size)` makes, outside the clock, the function that does the work once. `at_most` is what we promise,
    `note` what a reader must know of the figures.
    """

    name: str
    work: str
    sizes: Sequence[int]
    run: Callable[[str, int], Run]
    at_most: float | None = field(default=None, kw_only=True)
    quick: Sequence[int] = field(default=(10, 20), kw_only=True)
    repetitions: int = field(default=5, kw_only=True)
    note: str = field(default="", kw_only=True)

    def measure(self, device: str, repetitions: int, sizes: Sequence[int]) -> Results:
        clock = Clock(device, "seconds")
        runs = {str(size): self.run(device, size) for size in sizes}
        for run in runs.values():
            run()
        rows: dict[str, list[dict[str, float]]] = {size: [] for size in runs}
        for _, (size, run) in itertools.product(range(repetitions), runs.items()):
            rows[size].append(clock(run)[0])
        return {"figures": {size: _columns(each) for size, each in rows.items()}, "quality": {}}

    def told(self, measured: Results, clock: str) -> Results:
        medians = {size: statistics.median(columns[clock]) for size, columns in measured["figures"].items()}
        logs = np.log([float(size) for size in medians]), np.log(np.maximum(list(medians.values()), 1e-9))
        exponent = float(np.polyfit(*logs, 1)[0])
        kept = self.at_most is None or exponent <= self.at_most
        bar = {"against": "size", "exponent": exponent, "at_most": self.at_most, "kept": kept}
        return {"medians": medians, "unit": "s", "bars": [bar]}


@dataclass(frozen=True)
class Limit:
    """How near our work comes to what the machine can do: the share of the peak measured beside it.

    `run(device, **sizes)` makes the function that does the work once, and says how many floating-point operations
    ("flops") or bytes moved ("bytes") it cannot do without. The peak is that of a large float32 matrix product, or of
    a copy that no cache holds.
    """

    name: str
    work: str
    of: Literal["flops", "bytes"]
    run: Callable[..., tuple[Run, float]]
    sizes: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    quick: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    at_least: float | None = field(default=None, kw_only=True)
    repetitions: int = field(default=7, kw_only=True)

    def measure(self, device: str, repetitions: int, sizes: Mapping[str, Any]) -> Results:
        clock = Clock(device, "seconds")
        run, amount = self.run(device, **sizes)
        peak, most = _peak(device, self.of, small=sizes == self.quick)
        rows: dict[str, list[dict[str, float]]] = {OURS: [], "peak": []}
        run(), peak()
        for _, (name, act) in itertools.product(range(repetitions), ((OURS, run), ("peak", peak))):
            rows[name].append(clock(act)[0])
        amounts = {OURS: amount, "peak": most}
        return {"figures": {name: _columns(each) for name, each in rows.items()}, "quality": {}, "amounts": amounts}

    def told(self, measured: Results, clock: str) -> Results:
        medians = {name: statistics.median(columns[clock]) for name, columns in measured["figures"].items()}
        rates = {name: measured["amounts"][name] / max(median, 1e-9) for name, median in medians.items()}
        share = rates[OURS] / rates["peak"]
        kept = self.at_least is None or share >= self.at_least
        bar = {"against": f"peak {self.of}/s", "share": share, "at_least": self.at_least, "kept": kept}
        return {"medians": medians, "unit": "s", "rates": rates, "bars": [bar]}


class Clock:
    """Runs a function: `{"seconds": ..., "cpu": ...}`, or what it took of memory, or what it told, and its result."""

    def __init__(self, device: str, measures: str) -> None:
        self.cuda = device.startswith("cuda")
        self.measures = measures

    def __call__(self, run: Run) -> tuple[dict[str, float], Any]:
        gc.collect()
        if self.measures == "bytes":
            with _peak_memory(self.cuda) as taken:
                result = run()
            return {"bytes": taken()}, result
        self._wait()
        wall, cpu = time.perf_counter(), _cpu_seconds()
        result = run()
        self._wait()
        wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
        return ({"told": float(result)} if self.measures == "told" else {"seconds": wall, "cpu": cpu}), result

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()


@contextmanager
def quiet() -> Iterator[None]:
    """Peers warn of much that is not ours to change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _columns(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def _cpu_seconds() -> float:
    """Of this process and of the children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@contextmanager
def _peak_memory(cuda: bool) -> Iterator[Callable[[], float]]:
    """How far memory rose above where it was, in bytes; exact only where nothing else runs in the process."""
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield lambda: float(torch.cuda.max_memory_allocated() - before)
        return
    ctypes.CDLL(None).malloc_trim(0)  # what was freed but is still held would hide as much of the peak
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew
    before = _status("VmRSS")
    yield lambda: float(max(_status("VmHWM") - before, 0))


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _peak(device: str, of: str, small: bool) -> tuple[Run, float]:
    """The most of it that the device does in one go, and how much that is."""
    if of == "flops":
        side = 64 if small else 8192 if device.startswith("cuda") else 1536
        one = torch.randn(side, side, device=device)
        out = torch.empty_like(one)
        return lambda: torch.mm(one, one, out=out), 2.0 * side**3
    size = 2**16 if small else 2**28
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), 2.0 * size

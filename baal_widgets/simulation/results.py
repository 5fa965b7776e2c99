"""What the runs of a simulation measured, kept as they end and read as tables."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from baal_widgets.simulation.evaluation import Floats
from baal_widgets.simulation.protocol import Ints

Measured = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Run:
    """One method on one seed of one case.

    `n_labelled` `[step]`; `measured` has `[step]` for names such as "nll_bma" (see `evaluation`), and "class_f1"
    `[step, class]`; `asked` the items in the order they were labelled; `seconds` what a step took, `[step]` for
    "train", "score" and "test", as the run's share of what was computed beside it.
    """

    key: str
    case: str
    method: str
    seed: int
    n_labelled: Ints
    measured: Measured
    asked: Ints
    seconds: Measured = field(repr=False)


@dataclass(frozen=True, eq=False)
class Results:
    """All runs of a simulation, sorted as they were asked for."""

    runs: tuple[Run, ...]

    def rows(self) -> list[dict[str, Any]]:
        """A mapping for each run and step: case, method, seed, n_labelled, measures, F1 by class, seconds."""
        return [row for run in self.runs for row in _rows(run)]

    def curve(self, measure: str, method: str, case: str = "") -> Floats:
        """A measure `[seed, step]`, with the seeds in ascending order, such as `curve("nll_bma", "bald")`.

        "class_f1" gives `[seed, step, class]`, and a name such as "seconds_score" what that took.
        """
        found = sorted((run for run in self.runs if (run.case, run.method) == (case, method)), key=lambda run: run.seed)
        if not found:
            there = sorted({(run.case, run.method) for run in self.runs})
            raise KeyError(f"No run of method {method!r} in case {case!r}; there are {there}.")
        timed = measure.removeprefix("seconds_")
        return np.stack([run.seconds[timed] if timed != measure else run.measured[measure] for run in found])

    def at(self, n_labelled: int) -> int:
        """The position in curves of a number of labels."""
        there = self.runs[0].n_labelled.tolist()
        if n_labelled not in there:
            raise ValueError(f"Expected a number of labels at which was measured, {there}, got {n_labelled}.")
        return int(there.index(n_labelled))

    @property
    def n_labelled(self) -> Ints:
        """How many labels there were at each step."""
        return self.runs[0].n_labelled


class Kept:
    """Runs that have ended, in a folder: one file for those that ended together, written whole or not at all.

    Files are found by what they hold, so that a folder may serve many simulations; a file that is damaged is told of
    in a `ValueError`. Without a folder nothing is kept.
    """

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        self.folder = None if folder is None else Path(folder)

    def load(self) -> dict[str, Run]:
        """All runs in the folder, by their keys."""
        if self.folder is None or not self.folder.exists():
            return {}
        return {run.key: run for path in sorted(self.folder.glob("runs-*.npz")) for run in _read(path)}

    def add(self, runs: Sequence[Run]) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"runs-{runs[0].key}-{len(runs)}.npz"
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez_compressed(file, **_packed(runs))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


def _packed(runs: Sequence[Run]) -> dict[str, Any]:
    first = runs[0]
    named = {"n_labelled": first.n_labelled}
    for name in ("key", "case", "method", "seed", "asked"):
        named[name] = np.array([getattr(run, name) for run in runs])
    named |= {f"measured.{name}": np.stack([run.measured[name] for run in runs]) for name in first.measured}
    return named | {f"seconds.{name}": np.stack([run.seconds[name] for run in runs]) for name in first.seconds}


def _read(path: Path) -> list[Run]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as packed:
            data = {name: packed[name] for name in packed.files}
        groups = {
            group: {name.partition(".")[2]: values for name, values in data.items() if name.startswith(f"{group}.")}
            for group in ("measured", "seconds")
        }
        return [
            Run(
                str(data["key"][at]),
                str(data["case"][at]),
                str(data["method"][at]),
                int(data["seed"][at]),
                data["n_labelled"],
                {name: values[at] for name, values in groups["measured"].items()},
                data["asked"][at],
                {name: values[at] for name, values in groups["seconds"].items()},
            )
            for at in range(len(data["key"]))
        ]
    except Exception as error:
        raise ValueError(f"{path} can't be read ({error}). Delete it: its runs are then computed again.") from error


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    for step, n in enumerate(run.n_labelled.tolist()):
        row = {"case": run.case, "method": run.method, "seed": run.seed, "n_labelled": n}
        row |= {name: float(values[step]) for name, values in run.measured.items() if values.ndim == 1}
        row["class_f1"] = run.measured["class_f1"][step].tolist()
        yield row | {f"seconds_{name}": float(values[step]) for name, values in run.seconds.items()}

"""Run the tables of the study: every simulation once, whichever tables it is for, several at a time where asked."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

import torch
from tqdm import tqdm

from baal_widgets.simulation.engine import simulate
from baal_widgets.simulation.protocol import Protocol
from baal_widgets.simulation.results import Results
from baal_widgets.simulation.study.data import FASHION_MNIST, source
from baal_widgets.simulation.study.registration import Size, Table
from baal_widgets.simulation.study.worlds import WORLDS, World

Place: TypeAlias = tuple[str, Protocol, str]
"""Of a simulation: its world, protocol and case."""


@dataclass(frozen=True)
class Work:
    """A simulation of the study: the methods that any table wants at a place."""

    world: str
    protocol: Protocol
    case: str
    methods: tuple[str, ...]

    @property
    def cost(self) -> int:
        """About how long it takes, for doing the longest first."""
        return sum(self.protocol.counts) * self.protocol.epochs * len(self.methods)


@dataclass(frozen=True)
class Workplace:
    """Where and how the study runs; `data` is the folder of Fashion-MNIST."""

    size: Size
    kept: Path
    data: Path = FASHION_MNIST
    device: str | None = None
    threads: int = 0

    def do(self, work: Work, progress: bool = False) -> Results:
        if self.threads:
            torch.set_num_threads(self.threads)
        made = world(work.world, self.size.features, self.size.tests, self.size.items, self.data)
        return simulate(
            made.pool,
            work.methods,
            work.protocol,
            self.size.seeds,
            cases={work.case: made.case(work.case)},
            device=self.device,
            lanes=self.size.lanes,
            resume=self.kept,
            progress=progress,
        )


def run(tables: Sequence[Table], place: Workplace, jobs: int = 1, progress: bool = True) -> dict[Place, Results]:
    """The results of all that the tables want, by world, protocol and case.

    What is kept is not computed again. `jobs` processes share the simulations out, on a CPU.
    """
    works = plan(tables)
    if jobs == 1:
        return {(work.world, work.protocol, work.case): place.do(work, progress) for work in works}
    context = multiprocessing.get_context("spawn")
    done: dict[Place, Results] = {}
    with ProcessPoolExecutor(jobs, mp_context=context) as pool, tqdm(total=len(works), disable=not progress) as bar:
        waiting = {pool.submit(place.do, work): work for work in works}
        for ended in as_completed(waiting):
            work = waiting[ended]
            done[work.world, work.protocol, work.case] = ended.result()
            bar.update()
    return done


def plan(tables: Iterable[Table]) -> list[Work]:
    """What there is to do, the longest first; a method at a place once, however many tables want it."""
    wanted: dict[Place, dict[str, None]] = {}
    for table in tables:
        for setting, protocol in table.settings.items():
            for case in table.cases:
                methods = dict.fromkeys(table.methods_of(setting))
                wanted.setdefault((table.world, protocol, case), {}).update(methods)
    works = [Work(*place, tuple(methods)) for place, methods in wanted.items()]
    return sorted(works, key=lambda work: -work.cost)


def of_table(table: Table, done: Mapping[Place, Results]) -> dict[tuple[str, str], Results]:
    """A table's results by setting and case."""
    return {
        (setting, case): done[table.world, protocol, case]
        for setting, protocol in table.settings.items()
        for case in table.cases
    }


@cache
def world(name: str, features: str, tests: int, items: int, data: Path) -> World:
    """A world of the study; made once a process, which for a pretrained network takes its time."""
    return WORLDS[name](source(features, tests, data), items)

"""Simulated active learning on labelled data: many seeds and methods at once, in lock-step."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from baal_widgets.arrays import as_floats, as_tensor
from baal_widgets.checks import positive
from baal_widgets.simulation import selection
from baal_widgets.simulation.evaluation import evaluate
from baal_widgets.simulation.network import Layers, Shape
from baal_widgets.simulation.protocol import Case, Ints, Method, Pool, Protocol, as_it_is, digest
from baal_widgets.simulation.randomness import generator
from baal_widgets.simulation.results import Kept, Measured, Results, Run
from baal_widgets.simulation.training import Lanes, train

REVISION = 1
"""Raised when a change of the code changes results, so that kept ones are not taken for new ones."""


def simulate(
    pool: Pool,
    methods: Sequence[Method] = ("random", "bald"),
    protocol: Protocol | None = None,
    seeds: Iterable[int] = range(20),
    *,
    cases: Mapping[str, Case] | None = None,
    device: str | torch.device | None = None,
    lanes: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Results:
    """Run every method on every seed of every case: ask, label, train anew, test; the curves of all.

    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(60, 4)).astype("float32"), np.arange(60) % 2
    >>> x[:, 0] += 3 * y
    >>> protocol = Protocol(initial=4, query_size=4, until=12, epochs=20, hidden=(8,))
    >>> results = simulate(Pool(x[:40], y[:40], x[40:], y[40:]), ["random", "margin"], protocol, [0, 1], progress=False)
    >>> results.curve("accuracy_bma", "margin").shape                        # seeds, steps
    (2, 3)

    All chance is paired: runs of one seed begin with the same labels and weights, and meet the same orders, masks and
    noise as long as their sizes agree. It is drawn by seed and purpose (see `randomness`), so that what a run does
    depends on nothing but the pool, its protocol, case, method and seed. Runs are computed `lanes` at a time (20 on a
    CPU, 60 on CUDA), the last ones beside copies, because a product's rounding may depend on how many are computed
    beside it: so also the last bit is the same whichever other runs there are. On another device, with another number
    of lanes or version of torch, roundings differ and curves drift apart, as those of another seed would.

    - `cases`: worlds by name; see `Case`. Left out, all items are there and their labels are right.
    - `device`: `None` takes CUDA where it is, else the CPU.
    - `resume`: a folder for what has ended. Runs that are there are not computed again, so a killed simulation goes on
      where it was, and one with more methods or seeds adds to it. What changes a run's result makes it another run.

    Memory grows with lanes x items scored x classes x draws, and with lanes x items for what is asked.
    """
    protocol = protocol or Protocol()
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    lanes = positive("lanes", lanes or (60 if device.type == "cuda" else 20))
    world = _World.of(pool, protocol, device)
    asked = _planned(world, pool, methods, [int(seed) for seed in seeds], cases or {"": as_it_is}, lanes)
    kept = Kept(resume)
    done = kept.load()
    missing = [plan for plan in asked if plan.key not in done]
    chunks = [missing[start : start + lanes] for start in range(0, len(missing), lanes)]
    with tqdm(total=len(chunks) * len(protocol.counts), unit="step", disable=not progress) as bar:
        for chunk in chunks:
            bar.set_description(f"{len(chunk)} of {len(missing)} runs")
            padded = chunk + chunk[:1] * (lanes - len(chunk))
            ended = _Chunk(world, padded, sharing=len(chunk)).run(bar)[: len(chunk)]
            kept.add(ended)
            done |= {run.key: run for run in ended}
    return Results(tuple(done[plan.key] for plan in asked))


@dataclass(frozen=True, eq=False)
class _Plan:
    """A run that is to be."""

    key: str
    case: str
    method: Method
    seed: int
    items: Ints
    labels: Ints


@dataclass(frozen=True, eq=False)
class _World:
    """What all runs share, on the device."""

    protocol: Protocol
    shape: Shape
    features: Tensor
    test_features: Tensor
    test_labels: Tensor
    targets: Tensor | None

    @classmethod
    def of(cls, pool: Pool, protocol: Protocol, device: torch.device) -> _World:
        shape = Shape((pool.features.shape[1], *protocol.hidden, pool.n_classes), protocol.dropout)
        features, test = (as_floats(each).float().to(device) for each in (pool.features, pool.test_features))
        targets = None if pool.target_features is None else as_floats(pool.target_features).float().to(device)[None]
        return cls(protocol, shape, features, test, as_tensor(pool.test_labels).long().to(device), targets)


def _planned(
    world: _World, pool: Pool, methods: Sequence[Method], seeds: list[int], cases: Mapping[str, Case], lanes: int
) -> list[_Plan]:
    """The runs asked for, seed by seed, so that those that end first can be compared."""
    called = [selection.name_of(method) for method in methods]
    if not called or len(set(called)) < len(called):
        raise ValueError(f"Expected one or more methods with different names, got {called}.")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"Expected one or more different seeds, got {seeds}.")
    common = (REVISION, world.protocol, pool.digest(), lanes, world.features.device.type)
    plans = []
    for seed in seeds:
        for name, case in cases.items():
            items, labels = (np.asarray(each, np.int64) for each in case(pool, seed))
            _check_case(name, items, labels, pool, world.protocol)
            for method, own in zip(methods, called, strict=True):
                key = digest(*common, (items, labels), name, own, seed)
                plans.append(_Plan(key, name, method, seed, items, labels))
    return plans


def _check_case(name: str, items: Ints, labels: Ints, pool: Pool, protocol: Protocol) -> None:
    n = len(pool.labels)
    if len(np.unique(items)) < len(items) or (len(items) and not 0 <= items.min() <= items.max() < n):
        raise ValueError(f"Expected case {name!r} to give different items among {n}, got {items[:10]}.")
    if labels.shape != (n,) or not 0 <= labels.min() <= labels.max() < pool.n_classes:
        raise ValueError(
            f"Expected case {name!r} to give one of {pool.n_classes} classes to each of the pool's {n} items, got "
            f"shape {labels.shape} from {labels.min()} to {labels.max()}."
        )
    if len(items) < protocol.until:
        raise ValueError(
            f"Case {name!r} has {len(items)} items, and {protocol.until} are to be labelled. Lower until, or give more."
        )


class _Chunk:
    """Runs that are computed together; all have the same number of labels at every step."""

    def __init__(self, world: _World, plans: Sequence[_Plan], sharing: int) -> None:
        self.world, self.plans, self.sharing = world, plans, sharing
        self.device = world.features.device
        self.lanes = Lanes.of([plan.seed for plan in plans], self.device)
        self.labels = torch.from_numpy(np.stack([plan.labels for plan in plans])).to(self.device)
        first = world.protocol.initial
        self.asked = np.stack([p.items[generator(p.seed, "initial").permutation(len(p.items))[:first]] for p in plans])
        self.measured: list[Measured] = []
        self.seconds: list[dict[str, float]] = []

    def run(self, bar: tqdm) -> list[Run]:
        counts = self.world.protocol.counts
        for step, wanted in enumerate([*(after - n for n, after in pairwise(counts)), 0]):
            self._step(step, wanted)
            bar.update()
        measured = {name: np.stack([each[name] for each in self.measured], axis=1) for name in self.measured[0]}
        # what a step took is shared by the runs that were asked for
        seconds = {name: np.array([each[name] for each in self.seconds]) / self.sharing for name in self.seconds[0]}
        return [
            Run(
                plan.key,
                plan.case,
                selection.name_of(plan.method),
                plan.seed,
                np.array(counts),
                {name: values[at] for name, values in measured.items()},
                self.asked[at],
                seconds,
            )
            for at, plan in enumerate(self.plans)
        ]

    def _step(self, step: int, wanted: int) -> None:
        """Train and test on the labels there are, and ask for so many more."""
        world, asked = self.world, torch.from_numpy(self.asked).to(self.device)
        shape, protocol, lanes = world.shape, world.protocol, self.lanes
        began = self._now()
        weights = train(shape, protocol, lanes, world.features, asked, self.labels.gather(1, asked), step)
        trained = self._now()
        told, f1 = evaluate(shape, weights, lanes, world.test_features, world.test_labels, protocol.draws, step)
        tested = self._now()
        if wanted:
            self.asked = np.concatenate([self.asked, self._query(weights, step, wanted)], axis=1)
        self.measured.append({**told, "class_f1": f1})
        self.seconds.append({"train": trained - began, "test": tested - trained, "score": self._now() - tested})

    def _query(self, weights: Tensor, step: int, wanted: int) -> Ints:
        layers = self.world.shape.layers(weights)
        share = self.world.protocol.scored
        heuristics = [selection.heuristic_for(plan.method, plan.seed, step) for plan in self.plans]
        pools = [
            selection.candidates(plan.items, asked, plan.seed, step, share, wanted)
            for plan, asked in zip(self.plans, self.asked, strict=True)
        ]
        predictions, targets = self._predicted(layers, step, pools, selection.looked_at(heuristics))
        return np.stack(
            [
                selection.chosen(
                    heuristic,
                    wanted,
                    items,
                    asked,
                    self.world.features,
                    [(matrix[at : at + 1], bias[at : at + 1]) for matrix, bias in layers],
                    predictions and (predictions[0][at, : len(items)], predictions[1][at, : len(items)]),
                    None if targets is None else targets[at],
                )
                for at, (heuristic, items, asked) in enumerate(zip(heuristics, pools, self.asked, strict=True))
            ]
        )

    def _predicted(
        self, layers: Layers, step: int, pools: Sequence[Ints], needed: set[str]
    ) -> tuple[tuple[Tensor, Tensor] | None, Tensor | None]:
        """What is needed of the predictions of each run's items, and of the targets'."""
        if not needed & {"predictions", "logits"}:
            return None, None
        world, draws = self.world, self.world.protocol.draws
        longest = max(map(len, pools))
        places = np.stack([np.pad(items, (0, longest - len(items))) for items in pools])
        inputs = world.features[torch.from_numpy(places).to(self.device)]
        predictions = selection.predict(world.shape, layers, self.lanes, inputs, draws, step, longest)
        if "target_predictions" not in needed:
            return predictions, None
        own = torch.from_numpy(np.stack([plan.items[:N_TARGETS] for plan in self.plans])).to(self.device)
        aims = world.features[own] if world.targets is None else world.targets
        return predictions, selection.predict(world.shape, layers, self.lanes, aims, draws, step, aims.shape[1])[0]

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


N_TARGETS = 100

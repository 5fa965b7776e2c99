"""A batch that was picked item by item, and what picking greedily takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias

import numpy as np
import torch
from torch import Tensor

from baal_widgets.arrays import A, as_numpy

Seed: TypeAlias = int | np.random.Generator | None

TIE = 1e-10
"""Gains that differ by less are equal: rounding, which depends on chunks and devices, must not choose."""


@dataclass(frozen=True, eq=False)
class Picks(Generic[A]):
    """A batch, and what each item was worth to it: NumPy arrays or tensors, whichever came in.

    - `items`: positions of the picks, int64, in the order picked.
    - `scores`: one for every item, float64, higher = ask first. A pick scores what it added when it was picked, any
      other item what it would add now, but no more than the last pick. Sorting stably by falling score so gives
      the picks first, in the order picked; where that takes it, a tied pick is lifted by a rounding step. Items
      that aren't finite score -inf.
    """

    items: A
    scores: A


def lazy_greedy(
    gains: Tensor,
    n: int,
    evaluate: Callable[[Tensor], Tensor],
    add: Callable[[int], None],
    tie: float = TIE,
    bound: Callable[[Tensor], Tensor] | None = None,
) -> tuple[list[int], list[float]]:
    """The greedy picks of a submodular gain, and their gains, looking again only at items that could still win.

    `gains` are those of the first step, and from there on upper bounds. `evaluate` gives the gains of some items now,
    `add` takes a pick; `bound` tells what gains are at most, in less time, where the earlier ones say little. Minoux,
    1978 ("Accelerated greedy algorithms for maximizing submodular set functions").
    """
    bounds = gains.clone()
    items: list[int] = []
    values: list[float] = []
    stale = torch.zeros_like(bounds, dtype=torch.bool)
    while len(items) < min(n, len(bounds)):
        size = 32
        if items and bound is not None:
            left = stale.nonzero()[:, 0]
            # what a bound is rounded down by must not rule out an item that ties
            bounds[left] = torch.minimum(bounds[left], bound(left) + tie)
        while True:
            best = float(torch.where(stale, -torch.inf, bounds).max())
            hopeful = (stale & (bounds >= best - tie)).nonzero()[:, 0]
            if len(hopeful) == 0:
                break
            hopeful = hopeful[bounds[hopeful].argsort(descending=True, stable=True)[:size]]
            bounds[hopeful] = torch.minimum(bounds[hopeful], evaluate(hopeful))
            stale[hopeful] = False
            size *= 2
        items.append(first_best(torch.where(stale, -torch.inf, bounds), tie))
        values.append(float(bounds[items[-1]]))
        add(items[-1])
        bounds[items[-1]] = -torch.inf
        stale = bounds > -torch.inf
    return items, values


def first_best(values: Tensor, tie: float = TIE) -> int:
    """The lowest position among the highest values, those within `tie` of the highest being equal."""
    return int((values >= values.max() - tie).nonzero()[0, 0])


def as_picks(asked: A, where: Tensor, items: Sequence[int], values: Sequence[float], rest: Tensor) -> Picks[A]:
    """Picks of the kind asked in, from positions among the finite items, the picks' gains and the others'.

    The others are lowered to the last pick's gain, and a pick is lifted above what must come after it.
    """
    scores = rest.double().clone()
    picked = torch.as_tensor(items, dtype=torch.int64, device=rest.device)
    unpicked = torch.ones_like(scores, dtype=torch.bool)
    unpicked[picked] = False
    if len(items):
        scores[unpicked] = scores[unpicked].clamp(max=values[-1])
    after, position = -np.inf, -1
    if unpicked.any():
        after = float(scores[unpicked].max())
        position = int((unpicked & (scores == after)).nonzero()[0, 0])
    for item, value in zip(reversed(items), reversed(values), strict=True):
        in_order = value > after or (value == after and item < position)
        after, position = value if in_order else float(np.nextafter(after, np.inf)), item
        scores[item] = after
    every = scores.new_full((len(asked),), -torch.inf)
    every[where] = scores
    return Picks(as_kind(where[picked], asked), as_kind(every, asked))


def as_kind(result: Tensor, asked: A) -> A:
    """The result as a tensor, or as NumPy where NumPy was asked in."""
    return result if isinstance(asked, Tensor) else as_numpy(result)


def finite_items(values: Tensor) -> tuple[Tensor, Tensor]:
    """The items without NaN and infinities, and where they were; no copy where that is all of them."""
    # a sum is finite only if its terms are, and unlike isfinite needs no mask of the values' size; finite terms
    # whose sum overflows are not probabilities or features that anyone could use
    finite = values.flatten(1).sum(dim=1, dtype=torch.float64).isfinite()
    where = finite.nonzero()[:, 0]
    return (values if len(where) == len(values) else values[where]), where


def chunks(length: int, width: int, like: Tensor) -> Iterator[slice]:
    """Slices that make up the length, of so many rows of the width that a float64 array of them is 8 MiB at most.

    On a GPU it is 128 MiB: it wants more to do at once, a CPU wants what fits its cache. One row is the least.
    """
    size = max(1, (2**24 if like.is_cuda else 2**20) // max(1, width))
    return (slice(start, min(start + size, length)) for start in range(0, length, size))

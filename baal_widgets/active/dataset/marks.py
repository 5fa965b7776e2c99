"""The step at which each item was labelled, kept so that a change costs the same however many items there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

BLOCK = 4096
"""Items of which one count is kept: looking a position up searches the counts, then one block."""


class Marks:
    """`steps[item]` is 0 for an item of the pool and k for one labelled at step k.

    Marking an item, its rank among its like and the item of a rank take constant time but for a sum over the blocks,
    2,500 at ten million items, and copy nothing. Meant to be changed by one thread at a time; others may read.
    """

    def __init__(self, steps: Ints) -> None:
        self.steps = steps
        starts = np.arange(0, len(steps), BLOCK)
        self._labelled = np.add.reduceat(steps > 0, starts, dtype=np.int64) if len(steps) else np.zeros(0, np.int64)
        self._sizes = np.minimum(BLOCK, len(steps) - starts)
        self._at_step = Counter(
            dict(zip(*(each.tolist() for each in np.unique(steps, return_counts=True)), strict=True))
        )
        self.highest = int(steps.max(initial=0))
        self.n_labelled = len(steps) - self._at_step[0]

    def mark(self, items: Sequence[int], step: int) -> None:
        """Put items, each given once, at a step; 0 puts them into the pool."""
        where = np.asarray(items, np.int64)
        before = self.steps[where]
        self.steps[where] = step
        np.add.at(self._labelled, where // BLOCK, int(step > 0) - (before > 0).astype(np.int64))
        self._at_step.subtract(before.tolist())
        self._at_step[step] += len(where)
        self.highest = max(self.highest, step)
        while self.highest and not self._at_step[self.highest]:
            self.highest -= 1
        self.n_labelled = len(self.steps) - self._at_step[0]

    def item_of(self, place: int, labelled: bool) -> int:
        """The item at a position among the labelled ones, or among those of the pool."""
        counts = self._labelled if labelled else self._sizes - self._labelled
        upto = counts.cumsum()
        block = int(np.searchsorted(upto, place, side="right"))
        some = self.steps[block * BLOCK : (block + 1) * BLOCK] > 0
        return block * BLOCK + int(np.flatnonzero(some == labelled)[place - int(upto[block] - counts[block])])

    def place_in_pool(self, item: int) -> int:
        """The position of an item of the pool among its like."""
        block = item // BLOCK
        labelled = int(self._labelled[:block].sum()) + int(np.count_nonzero(self.steps[block * BLOCK : item]))
        return item - labelled

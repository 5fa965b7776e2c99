"""The same model taught by labels picked at random, to see what asking was worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from baal_widgets.jobs import Job
from baal_widgets.learning import Learner


class RandomTwin:
    """What the learner's model would know from as many labels of items picked at random.

    `oracle[item]` is the true class index. Items come in one order drawn from the seed, so that more labels are always
    those before and some. `history` holds a row for each lesson, as a session's does. The learner's own model and
    random draws are left alone; lessons of both take turns.
    """

    def __init__(self, learner: Learner, oracle: Sequence[Any] | Mapping[int, Any], seed: int = 0) -> None:
        self.learner, self.oracle = learner, oracle
        items = sorted(oracle) if isinstance(oracle, Mapping) else range(len(oracle))
        self.order: list[int] = np.random.default_rng(seed).permutation(np.asarray(items, np.int64)).tolist()
        self.history: list[dict[str, Any]] = []

    def learn(self, n_labelled: int, round_: int, job: Job[Any]) -> dict[str, Any]:
        """Train on that many random labels and measure on the test set; the row, which `history` holds too."""
        targets = {item: self.oracle[item] for item in self.order[:n_labelled]}
        row = self.learner.fork(job).learn(targets, (), round_, job, insight=False).metrics
        self.history.append(row)
        return row

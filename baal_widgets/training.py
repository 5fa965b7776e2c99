"""Train until the loss is flat.

An underfit model makes active learning worse than picking at random, an overfit one merely a little worse
(Atighehchian et al. 2020, fig. 4), so the default goes on until there is nothing more to gain and says so when
it had to stop earlier. Nothing is held out to stop early by, and Adam is the default: see docs/study.md, claims C4, C16
and C17.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

OptimizerOf = Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Training:
    """How a session trains its model each round, from the weights it was given.

    `optimizer` builds one from the parameters (default: Adam at `lr`). Training stops when the mean loss of the
    last `window` steps is below `enough` or less than `tolerance` (a share) under that of the window before,
    not before `min_steps` and never after `max_steps`.

    `start` "reset" begins each lesson by the weights that the model came with, so that what it knows depends on the
    labels and the seed alone, and a session that is opened again goes on as it would have (Gal et al. 2017). "warm"
    begins by those of the last lesson: fewer steps, but a model that was trained on few labels generalises worse for it
    later (Ash and Adams 2020, arXiv:1910.08475), and one that is opened again starts from the beginning.
    """

    batch_size: int = 32
    lr: float = 3e-3
    min_steps: int = 100
    max_steps: int = 800
    window: int = 50
    tolerance: float = 0.05
    enough: float = 0.05
    optimizer: OptimizerOf | None = None
    start: Literal["reset", "warm"] = "reset"

    def __post_init__(self) -> None:
        if self.start not in ("reset", "warm"):
            raise ValueError(f"Expected start to be 'reset' or 'warm', got {self.start!r}.")

    def make_optimizer(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        if self.optimizer is not None:
            return self.optimizer(parameters)
        weights = list(parameters)
        # one kernel for all weights where there is one: a step of a small model takes a tenth less
        fused = all(one.device.type in ("cpu", "cuda") and one.is_floating_point() for one in weights)
        return torch.optim.Adam(weights, lr=self.lr, fused=fused or None)

    def is_flat(self, losses: Sequence[float]) -> bool:
        """Whether these losses, one a step, have stopped falling.

        >>> training = Training(window=2, min_steps=4)
        >>> training.is_flat([2.0, 1.0, 0.5, 0.25]), training.is_flat([2.0, 0.5, 0.5, 0.5, 0.5])
        (False, True)
        """
        if len(losses) < max(self.min_steps, 2 * self.window):
            return False
        new = float(np.mean(losses[-self.window :]))
        old = float(np.mean(losses[-2 * self.window : -self.window]))
        return new < self.enough or new > old * (1 - self.tolerance)


def until_flat(losses: Iterator[float], training: Training) -> Iterator[tuple[float, bool]]:
    """Pass on losses, one a step, each with whether training may end here; end at the first such step."""
    seen: list[float] = []
    for loss in losses:
        seen.append(loss)
        flat = training.is_flat(seen)
        yield loss, flat
        if flat or len(seen) >= training.max_steps:
            return

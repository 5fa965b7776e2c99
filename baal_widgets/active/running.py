"""Scores of draws that are summed as they come, so that memory does not grow with their number."""

from __future__ import annotations

import torch
from torch import Tensor

from baal_widgets.active.scores import expected_entropy, predictive_entropy
from baal_widgets.arrays import check_shape

__all__ = ["RunningScores"]


class RunningScores:
    """The scores of draws that come one or a few at a time and aren't kept: holds a number for each item and class.

    >>> running = RunningScores()
    >>> for draw in ([[1.0], [0.0]], [[0.0], [1.0]]):            # one item, two classes
    ...     running.add(torch.tensor([draw]))
    >>> running.draws, round(running.bald.item(), 2)
    (2, 0.69)
    """

    def __init__(self) -> None:
        self.draws = 0
        self._total = self._unsure = torch.zeros(())

    def add(self, draws: Tensor) -> None:
        """Take in draws of all items, probabilities `[item, class, ..., draw]`, always of the same items."""
        check_shape(draws, least=3)
        total, unsure = draws.sum(dim=-1), expected_entropy(draws) * draws.shape[-1]
        if self.draws and total.shape != self._total.shape:
            raise ValueError(
                f"Expected draws of the same items and classes, {tuple(self._total.shape)}, got {tuple(total.shape)}. "
                "Begin a new RunningScores for other items."
            )
        if self.draws:  # in place, since they are as large as a draw, and in what was made in this very mode
            total += self._total
            unsure += self._unsure
        self._total, self._unsure = total, unsure
        self.draws += draws.shape[-1]

    @property
    def mean(self) -> Tensor:
        """The model's one prediction, `[item, class, ...]`."""
        if self.draws == 0:
            raise ValueError("Expected draws before scores, got none. Call add first.")
        return self._total / self.draws

    @property
    def predictive_entropy(self) -> Tensor:
        """See `predictive_entropy`; `[item, ...]` like all scores."""
        return predictive_entropy(self.mean[..., None])

    @property
    def expected_entropy(self) -> Tensor:
        """See `expected_entropy`."""
        return self._unsure / max(self.draws, 1)

    @property
    def bald(self) -> Tensor:
        """See `bald`."""
        return (self.predictive_entropy - self.expected_entropy).clamp(min=0)

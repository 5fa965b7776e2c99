"""Baal's helpers for arrays, at Baal's path."""

from __future__ import annotations

import torch
from torch import Tensor

from baal_widgets.arrays import to_probabilities as to_prob

__all__ = ["stack_in_memory", "to_prob"]


def stack_in_memory(data: Tensor, iterations: int) -> Tensor:
    """A batch `iterations` times over, `[item * iterations, ...]`: all items, then all again."""
    return torch.cat([data] * iterations)

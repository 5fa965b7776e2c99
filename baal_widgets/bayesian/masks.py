"""Dropout on the CPU without torch's kernel, which spends its time on a random float for each value."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BLOCK = 2**17
"""About so many values are masked at a time, so that their bits are still in the cache when they are read."""


def dropped(value: Tensor, p: float, copies: int = 1) -> Tensor:
    """What `nn.Dropout(p)` makes of so many copies of a value, `[copy, ...]`, each value in its own right.

    A value is kept where random bits are below a number: 16 bits where these say `p` exactly, as they do for 0.5,
    else 32, twice as fine as torch's floats in [0, 1). Bits come from torch's generator of the CPU, and are the same
    ones for a batch of copies. Floating, on the CPU, and without gradients.
    """
    value = value.contiguous()
    made = value.new_empty((copies, *value.shape))
    if p >= 1:
        return made.zero_()
    if p <= 0:
        return made.copy_(value)
    size = value.numel()
    if copies == 1:
        source, target, step = value.view(size), made.view(size), BLOCK
    else:  # four of them end where one of the generator's numbers does, whatever their size
        source, target, step = value.view(1, size), made.view(copies, size), 4 * max(1, BLOCK // 4 // max(1, size))
    for first in range(0, len(target), step):
        part = target[first : first + step]
        torch.mul(_kept(part.shape, p), source if copies > 1 else source[first : first + step], out=part).div_(1 - p)
    return made


def _kept(shape: torch.Size, p: float) -> Tensor:
    """True with probability `1 - p`."""
    kind, levels = (torch.int16, 2**16) if (p * 2**16).is_integer() else (torch.int32, 2**32)
    size = shape.numel()
    # all 64 bits: without a range the highest would always be 0
    bits = torch.empty((size * kind.itemsize + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
    below = min(round((1 - p) * levels) - levels // 2, levels // 2 - 1)
    return bits.view(kind)[:size].view(shape) < below


class Dropped(torch.autograd.Function):
    """`dropped` for each `draw` that a pass is mapped over, whether or not the value differs among them already."""

    @staticmethod
    def forward(value: Tensor, p: float, draw: Tensor) -> Tensor:
        return dropped(value, p)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing is kept: there is no gradient."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, None, int], value: Tensor, p: float, draw: Tensor) -> Any:
        if in_dims[0] is None:
            return dropped(value, p, info.batch_size), 0
        return dropped(value.movedim(in_dims[0], 0), p)[0], 0

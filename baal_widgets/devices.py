"""Where a model runs, and what to do when it does not fit there."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from typing import Any, TypeVar

import torch
from torch import nn

from baal_widgets.utils.structures import batch_size_of, map_structure

T = TypeVar("T")


def device_for(use_cuda: bool | None) -> torch.device:
    """The device of Baal's `use_cuda`; `None` takes the best there is. Warns where CUDA is asked for and absent."""
    if torch.cuda.is_available() and use_cuda is not False:
        return torch.device("cuda")
    if use_cuda:
        warnings.warn("use_cuda=True, but there is no CUDA device here: running on the CPU.", UserWarning, stacklevel=5)
    if use_cuda is None and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def device_of(module: nn.Module) -> torch.device:
    """Where a model is: the device of its first parameter or buffer; the CPU for one without any."""
    return next((one.device for one in chain(module.parameters(), module.buffers())), torch.device("cpu"))


class Fitting:
    """How many rows fit in memory at once, learned by running out of it; the size is remembered.

    A row is an item, or each of an item's draws where those run in one batch.
    """

    def __init__(self) -> None:
        self.rows: int | None = None

    def run(self, work: Callable[[int], T], rows: int) -> T:
        """`work(most)` with at most that many rows at once: `rows`, or half as often as memory runs out.

        Warns once for each halving. Raises `torch.OutOfMemoryError` when a single row is too much.
        """
        while True:
            most = rows if self.rows is None else min(rows, self.rows)
            try:
                return work(most)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                told = str(error).partition("\n")[0]
                if most <= 1:
                    raise torch.OutOfMemoryError(
                        f"Not even a single item fits in memory. Take a smaller model or smaller inputs. ({told})"
                    ) from error
            self.rows = most // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            warnings.warn(
                f"{most} rows at once do not fit in memory: going on with {self.rows}, also from now on. A smaller "
                f"batch_size, or replicate_in_memory=False, avoids the trial. ({told})",
                UserWarning,
                stacklevel=2,
            )

    def each(self, work: Callable[[Any], T], data: Any) -> list[T]:
        """`work(part)` for the parts of a batch that fit: one where the batch itself does."""
        return self.run(lambda most: [work(part) for part in parts_of(data, most)], batch_size_of(data))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, the CPU among them, had no room; torch has a type of its own for CUDA alone."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        sign in str(error) for sign in ("DefaultCPUAllocator", "MPS backend out of memory")
    )


def parts_of(data: Any, size: int) -> Iterator[Any]:
    """A batch in equal parts, but for one item, of at most `size`; itself where it is no larger.

    A tensor without axes is in each of them.
    """
    n = batch_size_of(data)
    if n <= size:
        yield data
        return
    parts = -(-n // size)
    ends = [-(-n * part // parts) for part in range(parts + 1)]
    for first, end in pairwise(ends):
        yield map_structure(lambda one, first=first, end=end: one[first:end] if one.ndim else one, data)

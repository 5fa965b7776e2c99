"""The inputs of a dataset, read once and kept in memory: what is decoded and transformed need not be so again."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from baal_widgets.batched import Batched
from baal_widgets.utils.structures import inputs_of

MEMORY = 1 << 30  # bytes
N_TRIED = 4
# what images are made of bytes by: NumPy's way and torchvision's, which round differently
SCALES: tuple[Callable[[Tensor], Tensor], ...] = (lambda whole: whole / 255, lambda whole: whole * (1 / 255))


class KeptInputs:
    """The inputs of a dataset, each read from it once, as long as `memory` bytes last.

    Images with values in 0 to 1 that are made of bytes are kept as bytes, if those give back the very same. On a GPU
    that has four times the room they are kept there. Inputs that are no tensors, or that differ between two reads, are
    read each time; what a dataset changes later is not seen.
    """

    def __init__(self, dataset: Dataset[Any], memory: int = MEMORY, device: torch.device | None = None) -> None:
        self.dataset = dataset
        self._n: int = len(dataset)  # type: ignore[arg-type]  # torch's Dataset does not promise a length
        self._slots = np.full(self._n, -1, np.int64)
        self._used = 0
        self._scale: Callable[[Tensor], Tensor] | None = None
        self._held = self._room(memory, device)

    @property
    def keeps(self) -> bool:
        """Whether the inputs seem to be the same tensors at each read, so that they may be kept."""
        return self._held is not None

    def __len__(self) -> int:
        return self._n

    def read(self, item: int) -> Any:
        return inputs_of(self.dataset[item])

    def gather(self, items: Sequence[int]) -> Any:
        """The inputs of these items as a batch, as torch's loader would collate it; new ones are kept."""
        wanted = np.asarray(items, np.int64)
        held = self._held
        if held is None:
            return default_collate([self.read(item) for item in items])
        read: dict[int, Any] = {}
        for item in dict.fromkeys(wanted[self._slots[wanted] < 0].tolist()):
            read[item] = self.read(item)
            self._keep(item, read[item], held)
        slots = self._slots[wanted]
        if (slots >= 0).all():
            rows = held[torch.from_numpy(slots).to(held.device)]
            return rows if self._scale is None else self._scale(rows.float())
        return default_collate([read[item] if item in read else self.gather([item])[0].cpu() for item in items])

    def _keep(self, item: int, value: Any, held: Tensor) -> None:
        if not isinstance(value, Tensor) or value.shape != held.shape[1:] or self._used == len(held):
            return
        row = value if self._scale is None else _as_bytes(value, self._scale)
        if row is None or (self._scale is None and row.dtype != held.dtype):
            return
        held[self._used] = row
        self._slots[item] = self._used
        self._used += 1

    def _room(self, memory: int, device: torch.device | None) -> Tensor | None:
        """Where to keep them; `None` where they can't be."""
        if memory <= 0 or not self._n:
            return None
        items = np.unique(np.linspace(0, self._n - 1, N_TRIED).astype(int)).tolist()
        tried = self._tried(items)
        if not tried:
            return None
        first = tried[0]
        of_bytes = (scale for scale in SCALES if all(_as_bytes(one, scale) is not None for one in tried))
        self._scale = next(of_bytes, None)
        dtype = first.dtype if self._scale is None else torch.uint8
        row_bytes = max(first.numel() * dtype.itemsize, 1)
        n = min(self._n, memory // row_bytes)
        fits = device is not None and device.type == "cuda" and 4 * n * row_bytes < torch.cuda.mem_get_info(device)[0]
        return torch.empty((n, *first.shape), dtype=dtype, device=device if fits else None) if n else None

    def _tried(self, items: Sequence[int]) -> list[Tensor]:
        """The inputs of some items, if they are tensors and the same again; the random generators stay as they were."""
        before = _states()
        try:
            tried, again = ([self.read(item) for item in items] for _ in range(2))
            drew = not _alike(before, _states())
        except Exception:  # whoever asks for the item that cannot be read is told why
            return []
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.random.set_rng_state(before[2])
        pairs = zip(tried, again, strict=True)
        return [] if drew or not all(_same(one, other) for one, other in pairs) else tried


class InputsOf(Batched):
    """The inputs of some items, from those that are kept."""

    def __init__(self, kept: KeptInputs, items: Sequence[int]) -> None:
        self.kept, self.items = kept, np.asarray(items, np.int64)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: int) -> Any:
        return self.kept.read(int(self.items[place]))

    def gather(self, places: Sequence[int]) -> Any:
        return self.kept.gather(self.items[np.asarray(places, np.int64)].tolist())


class WithTargets(Batched):
    """Inputs with targets, to train on: those of each place."""

    def __init__(self, inputs: Batched, targets: Sequence[Any]) -> None:
        self.inputs, self.targets = inputs, list(targets)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, place: int) -> tuple[Any, Any]:
        return self.inputs[place], self.targets[place]

    def gather(self, places: Sequence[int]) -> Any:
        return self.inputs.gather(places), default_collate([self.targets[place] for place in places])


def _as_bytes(value: Tensor, scale: Callable[[Tensor], Tensor]) -> Tensor | None:
    """The bytes that a float image is made of; `None` where they do not give back the very same."""
    if value.dtype != torch.float32 or value.device.type != "cpu":
        return None
    whole = (value * 255).round().clamp(0, 255).to(torch.uint8)
    return whole if torch.equal(scale(whole.float()), value) else None


def reads_alike(dataset: Dataset[Any], items: Sequence[int]) -> bool:
    """Whether the inputs of these items are tensors that are the same at each read, without drawing anything."""
    return bool(KeptInputs(dataset, 0)._tried(items))


def _same(one: Any, other: Any) -> bool:
    both = isinstance(one, Tensor) and isinstance(other, Tensor)
    return both and one.dtype == other.dtype and torch.equal(one, other)


def _states() -> tuple[Any, ...]:
    """Of the generators that anyone may draw from."""
    return random.getstate(), np.random.get_state(), torch.random.get_rng_state()


def _alike(before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    same_numpy = all(np.array_equal(one, other) for one, other in zip(before[1], after[1], strict=True))
    return before[0] == after[0] and same_numpy and torch.equal(before[2], after[2])

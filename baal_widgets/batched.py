"""Datasets that hand over whole batches: what is in memory already is picked, not read item by item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset


class Batched(Dataset[Any]):
    """A dataset whose batches are made at once: `gather(places)` gives what a loader would collate of those items."""

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} needs a `__len__`.")

    def gather(self, places: Sequence[int]) -> Any:
        """The batch of the items at these places."""
        raise NotImplementedError(f"{type(self).__name__} needs a `gather`.")


class Gathering(Dataset[Any]):
    """A `Batched` dataset as torch's loader takes it, with `collated` as the `collate_fn`."""

    def __init__(self, dataset: Batched) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, place: int) -> Any:
        return self.dataset[place]

    def __getitems__(self, places: list[int]) -> Any:
        return self.dataset.gather(places)


def collated(batch: Any) -> Any:
    """The batch, which is one already."""
    return batch

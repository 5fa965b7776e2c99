"""Active learning over any torch dataset: the labelled items to train on, the pool to ask from."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Subset

from baal_widgets.active.dataset.base import RandomSource
from baal_widgets.active.dataset.labelling import LabellingDataset, same
from baal_widgets.active.dataset.specifics import with_attribute
from baal_widgets.checks import positive
from baal_widgets.utils.structures import inputs_of


def identity(item: Any) -> Any:
    return item


def without_target(item: Any) -> Any:
    """The input alone, of an item that is a pair with its target, several inputs and one, or a dict with `label`.

    >>> without_target(("image", 3)), without_target({"inputs": "text", "label": 1})
    ('image', {'inputs': 'text'})
    """
    if isinstance(item, Mapping):
        return inputs_of(item)
    if isinstance(item, (tuple, list)):
        return item[0] if len(item) <= 2 else type(item)(item[:-1])
    return item


class ActiveLearningPool(Dataset[Any]):
    """The items that are not labelled, at positions 0 to `len - 1`. A view: it follows every change."""

    def __init__(self, owner: ActiveLearningDataset) -> None:
        self._owner = owner

    def __len__(self) -> int:
        return self._owner.n_unlabelled

    def __getitem__(self, index: int) -> Any:
        owner = self._owner
        return owner.make_unlabelled(owner.pool_dataset[owner._item_at(index, labelled=False)])

    def __iter__(self) -> Iterator[Any]:
        return (self[place] for place in range(len(self)))

    def sample(self, max_samples: int) -> Subset[Any]:
        """At most so many items picked at random by the dataset's `random_state`, in the order of the pool.

        A loop's `query` and `step` take it, and answer by positions in the whole pool. Its `indices` are those.
        """
        n = min(positive("max_samples", max_samples), len(self))
        return Subset(self, np.sort(self._owner.random_state.choice(len(self), n, replace=False)).tolist())


class ActiveLearningDataset(LabellingDataset, Dataset[Any]):
    """A dataset split in a labelled part, which this is, and a pool.

    `labelled` says what is labelled to begin with (a truth value or step for each item). `make_unlabelled` is
    applied to items of the pool: `without_target` takes the target off. `pool_specifics` are attributes of the dataset
    that differ for the pool, such as a transform without augmentation; they are looked for inside a `Subset`, a
    `ConcatDataset` and other datasets that hold one in `dataset`. `random_state` governs `label_randomly`.
    `last_active_steps` limits iteration to what was labelled in that many last steps (-1: all).

    A dataset with a method `label(item, value)` is told each label. One without keeps its own targets, as in
    research on a set whose labels are known. Indices are positions in the pool in `label`, as in Baal, and
    indices of the whole dataset in `label_items`, `relabel` and `unlabel`.
    """

    _dataset: Dataset[Any]

    def __init__(
        self,
        dataset: Dataset[Any],
        labelled: Any = None,
        make_unlabelled: Callable[[Any], Any] = identity,
        random_state: RandomSource = None,
        pool_specifics: Mapping[str, Any] | None = None,
        last_active_steps: int = -1,
    ) -> None:
        self._dataset = dataset
        self.make_unlabelled = make_unlabelled
        self.pool_specifics = dict(pool_specifics or {})
        self.can_label = self.check_dataset_can_label()
        super().__init__(len(dataset), labelled, random_state, last_active_steps)  # type: ignore[arg-type]
        self._pool_dataset = self._with_specifics()
        self._warn_of_random_pool()

    def __len__(self) -> int:
        return self._n_active

    def __getitem__(self, index: int) -> Any:
        return self._dataset[self._item_at(index, labelled=True)]

    def __iter__(self) -> Iterator[Any]:
        return (self[place] for place in range(len(self)))

    @property
    def dataset(self) -> Dataset[Any]:
        """The whole dataset, labelled or not, as it is trained on."""
        return self._dataset

    @property
    def pool_dataset(self) -> Dataset[Any]:
        """The whole dataset, labelled or not, with the `pool_specifics`."""
        return self._pool_dataset

    @property
    def pool(self) -> ActiveLearningPool:
        """The items that are not labelled."""
        return ActiveLearningPool(self)

    def get_raw(self, item: int) -> Any:
        """An item by its index in the whole dataset."""
        return self._dataset[self._check(item, len(self._map), "an item")]

    def check_dataset_can_label(self) -> bool:
        """Whether the dataset takes labels: has a method `label(item, value)`."""
        return callable(getattr(self._dataset, "label", None))

    def hold_labels_in(self, holder: Callable[[Dataset[Any]], Any]) -> None:
        """Put a dataset that takes labels around one that does not: `holder(dataset)`."""
        self._dataset = holder(self._dataset)
        self._pool_dataset = holder(self._pool_dataset)
        self.can_label = self.check_dataset_can_label()

    def _with_specifics(self) -> Dataset[Any]:
        view = self._dataset
        for name, value in self.pool_specifics.items():
            view = with_attribute(view, name, value)
        return view

    def _warn_of_random_pool(self) -> None:
        if not self.n_unlabelled:
            return
        item = int(self._pool[0])
        if not same(self._pool_dataset[item], self._pool_dataset[item]):
            warnings.warn(
                "Two reads of the same pool item differ: data augmentation is not disabled in the pool, and will be "
                "taken for uncertainty. Give pool_specifics={'transform': test_transform}.",
                UserWarning,
                stacklevel=3,
            )

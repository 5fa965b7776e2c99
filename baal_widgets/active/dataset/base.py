"""Which items are labelled, since which step: the bookkeeping under every active learning dataset."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from baal_widgets.active.dataset.marks import Ints, Marks

RandomSource = int | np.random.Generator | np.random.RandomState | None


class SplittedDataset:
    """A set of items of which some are labelled, each since an active learning step.

    `labelled_map[item]` is 0 for an item of the pool and k for one labelled at step k. Positions in the labelled
    set and in the pool follow the order of the items. Looking one up, labelling and unlabelling take the same time
    however many items there are (see `Marks`); who looks up many after a change gets an index of all, O(n) once.
    """

    def __init__(
        self, n_items: int, labelled: Any = None, random_state: RandomSource = None, last_active_steps: int = -1
    ) -> None:
        if last_active_steps == 0 or last_active_steps < -1:
            raise ValueError(f"Expected last_active_steps to be -1 (all) or from 1 on, got {last_active_steps}.")
        self.last_active_steps = last_active_steps
        self.random_state = as_generator(random_state)
        self._marks = Marks(np.zeros(n_items, np.int64) if labelled is None else as_map(labelled, n_items))
        self._version = 0
        self._asked = 0
        self._cache: dict[str, tuple[Any, Ints]] = {}

    @property
    def labelled_map(self) -> Ints:
        """The step at which each item was labelled, 0 where it is not. A copy: change it by labelling."""
        return self._map.copy()

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """Whether each item is labelled: the source of truth. A copy."""
        return self._map > 0

    @property
    def current_al_step(self) -> int:
        """The highest step so far."""
        return self._marks.highest

    @property
    def n_labelled(self) -> int:
        return self._marks.n_labelled

    @property
    def n_unlabelled(self) -> int:
        return len(self._map) - self._marks.n_labelled

    def is_labelled(self, item: int) -> bool:
        """Whether an item, by its index in the whole dataset, is labelled."""
        return bool(self._map[self._check(item, len(self._map), "an item")] > 0)

    def get_indices_for_active_step(self) -> list[int]:
        """The labelled items of the last `last_active_steps` steps, of all where that is -1."""
        return self._active.tolist()  # type: ignore[no-any-return]

    def pool_to_dataset(self, index: Any) -> Any:
        """The items at positions of the pool. A position gives an int, several a list."""
        return self._translate(index, self.n_unlabelled, self._item_of_pool, "pool")

    def labelled_to_dataset(self, index: Any) -> Any:
        """The items at positions of the labelled set. A position gives an int, several a list."""
        return self._translate(index, self._n_active, self._item_of_active, "labelled set")

    def dataset_to_pool(self, item: Any) -> Any:
        """The positions of items in the pool. Raises `ValueError` for one that is labelled."""
        items, single = as_indices(item)
        for one in items:
            if self.is_labelled(one):
                raise ValueError(f"Item {one} is labelled, so it has no place in the pool.")
        if self._whole("pool", len(items)):
            places = np.searchsorted(self._pool, items).tolist()
        else:
            places = [self._marks.place_in_pool(one) for one in items]
        return places[0] if single else places

    _pool_to_oracle_index = pool_to_dataset
    _labelled_to_oracle_index = labelled_to_dataset
    _oracle_to_pool_index = dataset_to_pool

    # Within

    @property
    def _map(self) -> Ints:
        return self._marks.steps

    @property
    def _n_active(self) -> int:
        return self.n_labelled if self.last_active_steps == -1 else len(self._active)

    def _item_at(self, index: Any, labelled: bool) -> int:
        """The item at a position as given to `[]`, where negative ones count from the end: the way each is read."""
        name = "pool" if not labelled else "labelled" if self.last_active_steps == -1 else "active"
        held = self._cache.get(name)
        option = self.last_active_steps if name == "active" else None
        if held is not None and type(index) is int and held[0] == (self._version, option):
            items = held[1]
            if -len(items) <= index < len(items):
                return items.item(index)
        (place,), _ = as_indices(index)
        n = self._n_active if labelled else self.n_unlabelled
        if not -n <= place < n:
            raise IndexError(f"Position {place} of {n}.")
        return self._item_of_active(place % n) if labelled else self._item_of_pool(place % n)

    def _item_of_pool(self, place: int) -> int:
        return int(self._pool[place]) if self._whole("pool") else self._marks.item_of(place, False)

    def _item_of_active(self, place: int) -> int:
        whole = self.last_active_steps != -1 or self._whole("labelled")
        return int(self._active[place]) if whole else self._marks.item_of(place, True)

    def _whole(self, name: str, n: int = 1) -> bool:
        """Whether to look so many up in an index of all items: it is there, or takes no longer to make than they."""
        held = self._cache.get(name)
        self._asked += n
        return (held is not None and held[0] == (self._version, None)) or 10_000 * self._asked > len(self._map)

    @property
    def _all_labelled(self) -> Ints:
        return self._cached("labelled", None, lambda: np.flatnonzero(self._map.copy()))

    @property
    def _active(self) -> Ints:
        if self.last_active_steps == -1:
            return self._all_labelled
        first = self.last_active_steps
        return self._cached("active", first, lambda: np.flatnonzero(self._map > max(self.current_al_step - first, 0)))

    @property
    def _pool(self) -> Ints:
        return self._cached("pool", None, lambda: np.flatnonzero(self._map == 0))

    def _cached(self, name: str, option: Any, make: Callable[[], Ints]) -> Ints:
        # The version is read before the map: what another thread changes meanwhile makes this entry an old one.
        key = self._version, option
        held = self._cache.get(name)
        if held is None or held[0] != key:
            held = self._cache[name] = key, make()
        return held[1]

    def _mark(self, items: Sequence[int], step: int) -> None:
        self._marks.mark(items, step)
        self._changed()

    def _replace_map(self, steps: Ints) -> None:
        self._marks = Marks(steps)
        self._changed()

    def _changed(self) -> None:
        """Every change of the map ends here, so no index can be older than the map."""
        self._version += 1
        self._asked = 0

    def _translate(self, index: Any, n: int, item_of: Callable[[int], int], where: str) -> Any:
        places, single = as_indices(index)
        found = [item_of(self._check(place, n, f"a position of the {where}")) for place in places]
        return found[0] if single else found

    @staticmethod
    def _check(index: int, n: int, what: str) -> int:
        (index,), _ = as_indices(index)
        if not 0 <= index < n:
            raise IndexError(f"Expected {what} among {n}, counted from 0, got {index}.")
        return index


def as_indices(index: Any) -> tuple[list[int], bool]:
    """Python ints from an int, an array, a tensor or a list of such, and whether it was a single one.

    Raises `TypeError` for anything else, truth values and floats among them.
    """
    if isinstance(index, (list, tuple, range, set, frozenset)):
        return [_whole(one) for one in index], False
    if isinstance(index, torch.Tensor):
        index = index.detach().cpu().numpy()
    if not isinstance(index, np.ndarray) or index.ndim == 0:
        return [_whole(index)], True
    if index.ndim > 1 or (index.size and not np.issubdtype(index.dtype, np.integer)):
        raise TypeError(f"Expected whole numbers as indices, got {index!r}.")
    return index.astype(np.int64).tolist(), False


def as_map(labelled: Any, n_items: int) -> Ints:
    """A map of steps from what a user gives for `labelled`: one truth value or step for each item."""
    array = labelled.detach().cpu().numpy() if isinstance(labelled, torch.Tensor) else np.asarray(labelled)
    if array.shape != (n_items,):
        raise ValueError(f"Expected labelled to hold a value for each of {n_items} items, got shape {array.shape}.")
    whole = array.dtype == bool or np.issubdtype(array.dtype, np.integer)
    if n_items and (not whole or (array.astype(np.int64) < 0).any()):
        raise ValueError(f"Expected labelled to hold truth values or steps from 0 on, got {array.dtype}.")
    return array.astype(np.int64)


def as_generator(random_state: RandomSource) -> np.random.Generator:
    """A generator from a seed, a generator or one of numpy's older random states."""
    if isinstance(random_state, np.random.RandomState):
        return np.random.Generator(random_state._bit_generator)
    return np.random.default_rng(random_state)


def _whole(index: Any) -> int:
    try:
        if isinstance(index, bool) or getattr(index, "dtype", None) in (torch.bool, np.dtype(bool)):
            raise TypeError
        return operator.index(index)
    except TypeError:
        raise TypeError(f"Expected a whole number as an index, got {index!r}.") from None

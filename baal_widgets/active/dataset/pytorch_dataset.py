"""Active learning over any torch dataset: the labelled items to train on, the pool to ask from."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Subset

from baal_widgets.active.dataset.base import RandomSource, SplittedDataset, as_indices, as_map
from baal_widgets.active.dataset.specifics import with_attribute
from baal_widgets.active.dataset.states import copied, generator_in, plain
from baal_widgets.checks import positive


def identity(item: Any) -> Any:
    return item


def without_target(item: Any) -> Any:
    """The input alone, of an item that is a pair with its target, several inputs and one, or a dict with `label`.

    >>> without_target(("image", 3)), without_target({"inputs": "text", "label": 1})
    ('image', {'inputs': 'text'})
    """
    if isinstance(item, Mapping):
        return {name: value for name, value in item.items() if name not in ("label", "labels", "target", "targets")}
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
        return owner.make_unlabelled(owner.pool_dataset[owner.pool_to_dataset(_from_end(index, len(self)))])

    def __iter__(self) -> Iterator[Any]:
        return (self[place] for place in range(len(self)))

    def sample(self, max_samples: int) -> Subset[Any]:
        """At most so many items picked at random by the dataset's `random_state`, in the order of the pool.

        A loop's `query` and `step` take it, and answer by positions in the whole pool. Its `indices` are those.
        """
        n = min(positive("max_samples", max_samples), len(self))
        return Subset(self, np.sort(self._owner.random_state.choice(len(self), n, replace=False)).tolist())


class ActiveLearningDataset(SplittedDataset, Dataset[Any]):
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
        return len(self._active)

    def __getitem__(self, index: int) -> Any:
        return self._dataset[self.labelled_to_dataset(_from_end(index, len(self)))]

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

    # Labelling

    def label(self, index: Any, value: Any = None) -> None:
        """Label items by their positions in the pool, all at once; one step.

        Positions and values are single or lists of equal length. Nothing is changed when anything is wrong:
        `IndexError` out of the pool, `TypeError` for what is no index, `ValueError` for one that comes twice, values
        missing or of another number. A dataset that takes no labels warns of a value and keeps its own.
        """
        self.label_items(self.pool_to_dataset(index), value)

    def label_items(self, items: Any, values: Any = None, step: int | None = None) -> None:
        """Label items of the pool by their indices in the whole dataset, as one new step or at the given one."""
        chosen, single = _distinct(items)
        for item in chosen:
            if self.is_labelled(item):
                raise ValueError(f"Item {item} is labelled already: relabel(item, value) changes a label.")
        step = None if step is None else positive("step", step)
        if not chosen and (values is None or _count(values) == 0):
            return
        told = self._check_values(values, len(chosen), single)
        if told is not None:
            self._tell(chosen, told)
        self._mark(chosen, self.current_al_step + 1 if step is None else step)

    def relabel(self, items: Any, value: Any) -> None:
        """Change the label of labelled items, by their indices in the whole dataset. Their steps stay."""
        chosen, single = self._check_labelled(items)
        told = self._check_values(value, len(chosen), single)
        if told is not None:
            self._tell(chosen, told)

    def unlabel(self, items: Any) -> None:
        """Put labelled items back into the pool, by their indices in the whole dataset.

        A dataset that takes labels is told, if it has a method `unlabel(item)`; one that does not keeps what it was
        last told, as nothing says how it writes that a label is missing.
        """
        chosen, _ = self._check_labelled(items)
        self._untell(chosen)
        self._mark(chosen, 0)

    def label_randomly(self, n: int = 1) -> None:
        """Label `n` items of the pool picked at random, with the dataset's own targets; fewer when the pool is
        smaller. One step. Raises `ValueError` where the dataset waits for labels: it has none to offer."""
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0:
            raise ValueError(f"Expected a number of items to label, a whole one from 0 on, got {n!r}.")
        if self.can_label:
            raise ValueError(
                "The dataset waits for labels, so items cannot be labelled without one. Give the labels with "
                "label(index, value), or set can_label = False where its own targets are known and right."
            )
        picked = self.random_state.choice(self._pool, min(int(n), self.n_unlabelled), replace=False)
        self.label_items(np.sort(picked))

    def reset_labelled(self) -> None:
        """Put everything back into the pool. The dataset keeps the labels that it was told, unlike in `unlabel`."""
        self._replace_map(np.zeros_like(self._map))

    reset_labeled = reset_labelled

    def hold_labels_in(self, holder: Callable[[Dataset[Any]], Any]) -> None:
        """Put a dataset that takes labels around one that does not: `holder(dataset)`."""
        self._dataset = holder(self._dataset)
        self._pool_dataset = holder(self._pool_dataset)
        self.can_label = self.check_dataset_can_label()

    # Saving

    def state_dict(self) -> dict[str, Any]:
        """The split, the labels where the dataset shows them (`targets` or `lbls`) and the random state, as
        copies in plain types: `torch.load(weights_only=True)` reads what `torch.save` makes of it."""
        targets = self._targets()
        return {
            "labelled": torch.from_numpy(self.labelled_map),
            "random_state": plain(self.random_state.bit_generator.state),
            "targets": None
            if targets is None
            else {item: plain(targets[item]) for item in self._all_labelled.tolist()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go back to a state, Baal's own kind included. Nothing changes when it does not fit (`ValueError`).

        A dataset that takes labels is told those of the state, and to forget others where it has `unlabel(item)`.
        Baal's kind knows no labels and leaves them alone.
        """
        restored = as_map(state_dict["labelled"], len(self._map))
        targets, random_state = state_dict.get("targets"), state_dict.get("random_state")
        generator = self.random_state if random_state is None else generator_in(random_state)
        if targets is not None and self.can_label:
            if unknown := set(targets) - set(np.flatnonzero(restored).tolist()):
                raise ValueError(f"Expected labels of labelled items in the state, got some of {_few(list(unknown))}.")
            held = self._targets()
            new = {item: value for item, value in targets.items() if held is None or not _same(value, held[item])}
            gone = np.flatnonzero(self.labelled & (restored == 0)).tolist()
            with self._all_or_none([*gone, *new]):
                self._untell(gone)
                self._tell(list(new), list(new.values()))
        self.random_state = generator
        self._replace_map(restored)

    # Within

    def _check_labelled(self, items: Any) -> tuple[list[int], bool]:
        chosen, single = _distinct(items)
        for item in chosen:
            if not self.is_labelled(item):
                raise ValueError(f"Item {item} is not labelled: label_items(item, value) labels it.")
        return chosen, single

    def _check_values(self, values: Any, n: int, single: bool) -> list[Any] | None:
        """As many values as there are items, or `None` where none are to be told."""
        told = list(values) if _count(values) is not None and not single else [values]
        if all(value is None for value in told) and len(told) in (1, n):
            if self.can_label:
                raise ValueError(
                    "The dataset takes labels, so each item needs one: label(index, value). In research on known "
                    "labels, set can_label = False."
                )
            return None
        if len(told) != n or (self.can_label and any(value is None for value in told)):
            raise ValueError(f"Expected a label for each of {n} items, got {told!r}.")
        if not self.can_label:
            warnings.warn(
                "The dataset has no method label(item, value), so the values are ignored and its own targets stay.",
                UserWarning,
                stacklevel=4,
            )
            return None
        return told

    def _tell(self, items: Sequence[int], values: Sequence[Any]) -> None:
        with self._all_or_none(items):
            for item, value in zip(items, values, strict=True):
                self._dataset.label(item, value)  # type: ignore[attr-defined]

    def _untell(self, items: Sequence[int]) -> None:
        forget = getattr(self._dataset, "unlabel", None)
        if self.can_label and callable(forget):
            with self._all_or_none(items):
                for item in items:
                    forget(item)

    @contextmanager
    def _all_or_none(self, items: Sequence[int]) -> Iterator[None]:
        """When the dataset refuses one of several labels, or a person interrupts, all get their old ones back."""
        targets = self._targets()
        # copies: an item of a tensor is a view, which would follow the change that it is to undo
        before = [] if targets is None else [copied(targets[item]) for item in items]
        try:
            yield
        except BaseException:
            if hasattr(targets, "__setitem__"):
                for item, old in zip(items, before, strict=True):
                    if old is None and isinstance(targets, dict):
                        targets.pop(item, None)
                    else:
                        targets[item] = old
            raise

    def _targets(self) -> Any:
        """The labels that the dataset holds, by item, where it shows them."""
        for name in ("targets", "lbls"):
            targets = getattr(self._dataset, name, None)
            if targets is not None and hasattr(targets, "__getitem__") and self.can_label:
                return _Defaulting(targets) if isinstance(targets, dict) else targets
        return None

    def _with_specifics(self) -> Dataset[Any]:
        view = self._dataset
        for name, value in self.pool_specifics.items():
            view = with_attribute(view, name, value)
        return view

    def _warn_of_random_pool(self) -> None:
        if not self.n_unlabelled:
            return
        item = int(self._pool[0])
        if not _same(self._pool_dataset[item], self._pool_dataset[item]):
            warnings.warn(
                "Two reads of the same pool item differ: data augmentation is not disabled in the pool, and will be "
                "taken for uncertainty. Give pool_specifics={'transform': test_transform}.",
                UserWarning,
                stacklevel=3,
            )


class _Defaulting(dict[Any, Any]):
    """A view of a dict of labels: `None` for items without one; writes go to the dict itself."""

    def __init__(self, targets: dict[Any, Any]) -> None:
        super().__init__(targets)
        self._own = targets

    def __missing__(self, item: Any) -> None:
        return None

    def __setitem__(self, item: Any, value: Any) -> None:
        self._own[item] = value

    def pop(self, item: Any, *default: Any) -> Any:
        return self._own.pop(item, *default)


def _from_end(index: Any, n: int) -> int:
    """A position as given to `[]`, where negative ones count from the end."""
    (place,), _ = as_indices(index)
    if not -n <= place < n:
        raise IndexError(f"Position {place} of {n}.")
    return place % n


def _distinct(items: Any) -> tuple[list[int], bool]:
    chosen, single = as_indices(items)
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"An item comes more than once in {_few(chosen)}.")
    return chosen, single


def _count(values: Any) -> int | None:
    """How many values these are; `None` for what is one value, such as a string or a 0-d tensor."""
    if isinstance(values, (str, bytes, Mapping)) or getattr(values, "ndim", 1) == 0 or not hasattr(values, "__len__"):
        return None
    return len(values)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (torch.Tensor, np.ndarray)):
        if type(one) is not type(other) or one.shape != other.shape:
            return False
        both_nan = (one != one) & (other != other)
        return bool(((one == other) | both_nan).all())  # type: ignore[union-attr]
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    try:
        return bool(one == other) or one != one  # noqa: PLR0124  a NaN target is not random
    except Exception:
        return True


def _few(items: Sequence[int]) -> str:
    return str(list(items)) if len(items) <= 10 else f"[{', '.join(map(str, items[:10]))}, ...]"

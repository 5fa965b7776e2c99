"""Label items and take labels back, all or nothing, and save what was labelled."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch

from baal_widgets.active.dataset.base import SplittedDataset, as_indices, as_map
from baal_widgets.active.dataset.states import copied, generator_in, plain
from baal_widgets.checks import positive


class LabellingDataset(SplittedDataset):
    """A split set of items whose labels are told to `_dataset`, if that takes any (`can_label`)."""

    targets_will_do: ClassVar[bool] = False
    """Whether an item may be labelled without a value, by the target it came with, though labels are taken."""
    _dataset: Any
    can_label: bool

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
        if self.can_label and not self.targets_will_do:
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
            new = {item: value for item, value in targets.items() if held is None or not same(value, held[item])}
            gone = np.flatnonzero(self.labelled & (restored == 0)).tolist()
            with self._all_or_none([*gone, *new]):
                self._untell(gone)
                self._tell(list(new), list(new.values()))
        self.random_state = generator
        self._replace_map(restored)

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
            if self.can_label and not self.targets_will_do:
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
                self._dataset.label(item, value)

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
                    if old is None and isinstance(targets, _Defaulting):
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


class _Defaulting:
    """A view of a dict of labels, which may be long: `None` for items without one; writes go to the dict itself."""

    def __init__(self, targets: dict[Any, Any]) -> None:
        self._own = targets

    def __getitem__(self, item: Any) -> Any:
        return self._own.get(item)

    def __setitem__(self, item: Any, value: Any) -> None:
        self._own[item] = value

    def pop(self, item: Any, *default: Any) -> Any:
        return self._own.pop(item, *default)


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


def same(one: Any, other: Any) -> bool:
    if isinstance(one, (torch.Tensor, np.ndarray)):
        if type(one) is not type(other) or one.shape != other.shape:
            return False
        both_nan = (one != one) & (other != other)
        return bool(((one == other) | both_nan).all())  # type: ignore[union-attr]
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    try:
        return bool(one == other) or one != one  # noqa: PLR0124  a NaN target is not random
    except Exception:
        return True


def _few(items: Sequence[int]) -> str:
    return str(list(items)) if len(items) <= 10 else f"[{', '.join(map(str, items[:10]))}, ...]"

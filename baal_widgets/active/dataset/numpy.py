"""Active learning over arrays, as scikit-learn takes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from baal_widgets.active.dataset.base import RandomSource
from baal_widgets.active.dataset.labelling import LabellingDataset, same


class ActiveNumpyArray(LabellingDataset):
    """Rows of arrays `(x, y)`, split in a labelled part, which this is, and a pool.

    `x` may be a sparse matrix too. `labelled` says what is labelled to begin with (a truth value or step for each row).
    `random_state` governs `label_randomly`. A label that is given is written to a copy of `y`; the caller's arrays
    stay as they are. Where none is given, as in research on known labels, the row keeps its own. Indices are
    positions in the pool in `label`, as in Baal, and rows of the whole in `label_items`, `relabel` and `unlabel`.

    >>> dataset = ActiveNumpyArray((np.eye(3), np.zeros(3, int)))
    >>> dataset.label([0, 2], [4, 5])
    >>> dataset.dataset[1].tolist(), len(dataset.pool[0])
    ([4, 5], 1)
    """

    targets_will_do = True

    def __init__(self, dataset: tuple[Any, Any], labelled: Any = None, random_state: RandomSource = None) -> None:
        self._dataset: _Rows = _Rows(*dataset)
        self.can_label = True
        super().__init__(len(self._dataset.targets), labelled, random_state)

    def __len__(self) -> int:
        return len(self._active)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self._dataset[self._item_at(index, labelled=True)]

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return (self[place] for place in range(len(self)))

    @property
    def dataset(self) -> tuple[Any, npt.NDArray[Any]]:
        """The labelled rows, as copies: what to fit on."""
        return self._dataset.inputs[self._active], self._dataset.targets[self._active]

    @property
    def pool(self) -> tuple[Any, npt.NDArray[Any]]:
        """The rows that are not labelled, as copies, with the `y` that they came with."""
        return self._dataset.inputs[self._pool], self._dataset.targets[self._pool]

    def get_raw(self, item: int) -> tuple[Any, Any]:
        """A row by its index in the whole."""
        return self._dataset[self._check(item, len(self._map), "a row")]


class _Rows:
    """The arrays, with labels of its own and the ones that it was given to go back to."""

    def __init__(self, inputs: Any, targets: Any) -> None:
        self.inputs = inputs.tocsr() if hasattr(inputs, "tocsr") else np.asarray(inputs)
        self._given = np.asarray(targets)
        if not self.inputs.ndim or not self._given.ndim or self.inputs.shape[0] != len(self._given):
            raise ValueError(
                f"Expected as many rows in x as in y, got shapes {self.inputs.shape} and {self._given.shape}."
            )
        self.targets = self._given.copy()

    def __getitem__(self, item: int) -> tuple[Any, Any]:
        return self.inputs[item], self.targets[item]

    def label(self, item: int, value: Any) -> None:
        self.targets[item] = self._as_target(value)

    def unlabel(self, item: int) -> None:
        self.targets[item] = self._given[item]

    def _as_target(self, value: Any) -> Any:
        """The value as `y` can hold it. `ValueError` where it would become another one: a long text be cut short, a
        fraction dropped."""
        kind, shape = self.targets.dtype, self.targets.shape[1:]
        if kind.hasobject and not shape:
            return value
        given = np.asarray(value)
        if given.size == 1 and not shape:
            given = given.reshape(())
        try:
            with np.errstate(invalid="ignore", over="ignore"):
                held = given.astype(kind)
        except (TypeError, ValueError, OverflowError):
            held = None
        numbers = kind.kind in "fc" and given.dtype.kind in "biufc"
        if held is None or given.shape != shape or not (numbers or same(held, given)):
            raise ValueError(
                f"Expected a label that y holds unchanged, {kind} shaped {shape}, got {value!r}. "
                "Give y in a wider type, such as y.astype(object), if that is a label."
            )
        return held

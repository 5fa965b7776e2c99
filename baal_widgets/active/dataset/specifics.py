"""Another value for an attribute, wherever among nested datasets it is; the data itself is shared."""

from __future__ import annotations

import copy
from typing import Any

from torch.utils.data import ConcatDataset, Dataset


def with_attribute(dataset: Dataset[Any], name: str, value: Any) -> Dataset[Any]:
    """A view of a dataset whose attribute `name` is `value`, on itself or on a dataset within it.

    The outermost one that has it gets it; of a `ConcatDataset` each member that does. What is inside is looked for
    in `dataset` (`Subset` and most wrappers) and `datasets`. The dataset given stays as it is. Raises `ValueError`
    where none has it.
    """
    seen: list[str] = []
    view = _view(dataset, name, value, seen)
    if view is None:
        raise ValueError(
            f"There is no attribute {name!r} to set for the pool; looked in {', '.join(dict.fromkeys(seen))}. "
            "pool_specifics takes names of attributes that the dataset reads in __getitem__."
        )
    return view


def _view(dataset: Dataset[Any], name: str, value: Any, seen: list[str]) -> Dataset[Any] | None:
    seen.append(type(dataset).__name__)
    # not `hasattr`: a wrapper that forwards what it has not got would be set, and the dataset within not see it
    if name in getattr(dataset, "__dict__", {}) or hasattr(type(dataset), name):
        view = copy.copy(dataset)
        setattr(view, name, value)
        return view
    if isinstance(dataset, ConcatDataset):
        members = [_view(member, name, value, seen) for member in dataset.datasets]
        if all(member is None for member in members):
            return None
        joined = copy.copy(dataset)
        joined.datasets = [old if new is None else new for new, old in zip(members, dataset.datasets, strict=True)]
        return joined
    inner: Any = getattr(dataset, "dataset", None)
    if not (hasattr(inner, "__getitem__") and hasattr(inner, "__len__")):
        return None
    inner_view = _view(inner, name, value, seen)
    if inner_view is None:
        return None
    outer: Any = copy.copy(dataset)
    outer.dataset = inner_view
    return outer  # type: ignore[no-any-return]

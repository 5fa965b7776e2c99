"""What comes through the door, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """The class names as a tuple. Raises where there are fewer than two, one is empty or one comes twice."""
    if isinstance(classes, str):
        raise TypeError(f"Expected a list of class names, got the text {classes!r}: {classes.split(',')}?")
    names = tuple(classes)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"Expected class names, got {names!r}.")
    if len(names) < 2 or len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise ValueError(f"Expected two or more different class names, none empty, got {list(names)}.")
    return names


def check_class(classes: Sequence[str], label: Any) -> str:
    """The name of a class that is given by its name or its index, any kind of integer or a tensor of one."""
    if getattr(label, "ndim", None) == 0 and hasattr(label, "item"):
        label = label.item()
    if isinstance(label, str):
        if label in classes:
            return label
    elif _is_int(label):
        if 0 <= label < len(classes):
            return classes[int(label)]
    else:
        raise TypeError(f"Expected a class name or its index, got {label!r}.")
    raise ValueError(f"No class {label!r}. The classes are {', '.join(classes)} (0 to {len(classes) - 1}).")


def check_item(item: Any, n_items: int) -> int:
    """The index of an item in a dataset of that many."""
    if not _is_int(item):
        raise TypeError(f"Expected an item's index in the dataset, an integer, got {item!r}.")
    if not 0 <= item < n_items:
        raise IndexError(f"No item {item}: the dataset has {n_items}, from 0 on.")
    return int(item)


def positive(name: str, value: Any) -> int:
    """A whole number from 1 on."""
    if not _is_int(value) or value < 1:
        raise ValueError(f"Expected {name} to be a whole number from 1 on, got {value!r}.")
    return int(value)


def _is_int(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)

"""What comes through the door, checked once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

LONGEST_NAME = 200
LONGEST_MS = 1e9
ABOUT = {
    "via": frozenset({"key", "click", "bulk", "confirm"}),
    "guess": frozenset({"hidden", "shown"}),
    "view": frozenset({"grid", "card"}),
}


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


def check_label_set(classes: Sequence[str], labels: Any) -> tuple[str, ...]:
    """The names of the classes of an item that may have several or none, in the order of the classes."""
    if hasattr(labels, "tolist"):
        labels = labels.tolist()
    if isinstance(labels, (str, bytes, Mapping)) or not isinstance(labels, Iterable):
        raise TypeError(f"Expected a list of class names or indices, () for none of them, got {labels!r}.")
    named = {check_class(classes, label) for label in labels}
    return tuple(name for name in classes if name in named)


def check_class_name(name: Any) -> str:
    """A name for a class: a text of 1 to 200 characters, not blank."""
    if not isinstance(name, str):
        raise TypeError(f"Expected the name of a class, got {name!r}.")
    if not name.strip() or len(name) > LONGEST_NAME:
        raise ValueError(f"Expected the name of a class, 1 to {LONGEST_NAME} characters, got {_short(name)}.")
    return name


def check_merge(classes: Sequence[str], old: Any, into: Any) -> None:
    """Two names of classes, of which one may become part of the other: two classes at least must be left."""
    for name in (old, into):
        if not isinstance(name, str):
            raise TypeError(f"Expected the name of a class, got {name!r}.")
        check_class(classes, name)
    if old == into or len(classes) < 3:
        told = f"{old!r} twice" if old == into else f"the only ones, {', '.join(classes)}"
        raise ValueError(f"Expected two of three or more classes to merge, got {told}.")


def check_about(about: Any) -> dict[str, Any]:
    """What is known of how an answer was given: `via`, `ms` (the time to think), `guess` and `view`, each optional."""
    if about is None:
        return {}
    if not isinstance(about, Mapping):
        raise ValueError(f"Expected what is known of an answer as a mapping, got {_short(about)}.")
    for name, value in about.items():
        if name == "ms":
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value <= LONGEST_MS:
                raise ValueError(f"Expected ms to be a number from 0 to {LONGEST_MS:g}, got {_short(value)}.")
        elif name not in ABOUT:
            raise ValueError(f"Expected an answer's {', '.join(sorted(ABOUT))} or ms, got {_short(name)}.")
        elif not isinstance(value, str) or value not in ABOUT[name]:
            raise ValueError(f"Expected {name} to be {' or '.join(sorted(ABOUT[name]))}, got {_short(value)}.")
    return dict(about)


def check_text(name: str, text: Any, longest: int, shortest: int = 0) -> str:
    """A text of so many characters."""
    if not isinstance(text, str) or not shortest <= len(text) <= longest:
        raise ValueError(f"Expected {name} to be a text of {shortest} to {longest:,} characters, got {_short(text)}.")
    return text


def check_share(name: str, value: Any, most: float) -> float:
    """A number from 0 to the most."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 <= value <= most:
        raise ValueError(f"Expected {name} to be a share from 0 to {most:g}, got {value!r}.")
    return float(value)


def check_minutes(name: str, value: Any) -> float:
    """A number of minutes above 0."""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not 0 < value < float("inf"):
        raise ValueError(f"Expected {name} to be a number of minutes above 0, such as 10, got {value!r}.")
    return float(value)


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


def _short(value: Any) -> str:
    told = repr(value)
    return told if len(told) <= 80 else f"{told[:77]}..."

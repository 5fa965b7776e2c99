"""Labels as the state of an `ActiveLearningDataset`, Baal's or ours, in numpy's format and without pickle."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from baal_widgets.exchange.places import LARGEST_FILE, json_text, parsed
from baal_widgets.exchange.rows import Labelled, Whole, record, row_of, short

GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


def write_baal_state(rows: Sequence[Labelled], path: Path, whole: Whole) -> None:
    """Arrays: `labelled` `[item]`, the step at which an item was labelled or 0; `targets` `[item]`, the index of its
    class or -1, where items have several classes zeros and ones `[item, class]`.

    `classes`, `rows` and `random_state` are JSON, as the bytes of its text. Raises `ValueError` where a row does not
    know the index of its item, or an item comes twice.
    """
    items = [row.item for row in rows]
    for row in rows:
        if row.item is None:
            raise ValueError(f"Expected the index of {row.name} in the dataset: Baal knows items by it alone.")
    steps = {row.item: row.round + 1 for row in rows if row.item is not None}
    if len(steps) < len(items):
        raise ValueError("Expected each item once, got one of them twice.")
    n_items = max([whole.n_items or 0, *(item + 1 for item in steps)])
    labelled = np.zeros(n_items, np.int64)
    labelled[list(steps)] = list(steps.values())
    classes = whole.names(rows)
    index = {name: place for place, name in enumerate(classes)}
    several = any(isinstance(row.label, tuple) for row in rows)
    targets = np.zeros((n_items, len(classes)), np.int8) if several else np.full(n_items, -1, np.int64)
    for row in rows:
        places = [index[name] for name in row.names]
        if several:
            targets[row.item, places] = 1
        else:
            targets[row.item] = places[0]
    texts = {"classes": classes, "rows": [record(row) for row in rows], "random_state": _plain(whole.random_state)}
    arrays: dict[str, Any] = {name: _bytes(value) for name, value in texts.items()}
    with path.open("xb") as file:
        np.savez_compressed(file, labelled=labelled, targets=targets, **arrays)


def read_baal_state(path: Path) -> list[Labelled]:
    """The rows of such a file. Of a state without them only `labelled` is known, which is refused (`ValueError`)."""
    arrays = _arrays(path)
    if "rows" not in arrays:
        raise ValueError(
            f"{path.name}: expected labels (an array `rows`), got {', '.join(sorted(arrays))}. Baal's state tells "
            "which items are labelled, not as what."
        )
    rows = _value(arrays["rows"], f"{path.name}, rows")
    if not isinstance(rows, list):
        raise ValueError(f"{path.name}, rows: expected a list, got {short(rows)}.")
    return [row_of(row, f"{path.name}, rows[{place}]") for place, row in enumerate(rows)]


def load_baal_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `load_state_dict` of an `ActiveLearningDataset` takes, Baal's and ours: `labelled` and `random_state`.

    The random state is that of the session, or without one a fresh one of seed 0.
    """
    place = Path(path).expanduser()
    arrays = _arrays(place)
    labelled = arrays.get("labelled")
    if labelled is None or labelled.ndim != 1 or not np.issubdtype(labelled.dtype, np.integer):
        raise ValueError(f"{place.name}: expected an array `labelled` of whole numbers, got {short(labelled)}.")
    state = _value(arrays["random_state"], f"{place.name}, random_state") if "random_state" in arrays else None
    return {"labelled": labelled, "random_state": np.random.RandomState(_bit_generator(state, place.name))}


def _bit_generator(state: Any, file: str) -> np.random.BitGenerator:
    if state is None:
        return np.random.MT19937(0)
    name = state.get("bit_generator") if isinstance(state, Mapping) else None
    if name not in GENERATORS:
        raise ValueError(f"{file}: expected the state of one of numpy's generators, got {short(name)}.")
    generator: np.random.BitGenerator = getattr(np.random, name)()
    try:
        generator.state = _arrays_in(state)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise ValueError(f"{file}: expected the state of a {name}, but {error}.") from None
    return generator


def _arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > LARGEST_FILE:
            raise ValueError(f"it would take {size:,} bytes, more than {LARGEST_FILE:,}")
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError, MemoryError, RuntimeError) as error:
        raise ValueError(f"{path.name}: expected numpy arrays (.npz) without pickle, but {error}.") from None
    if strange := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise ValueError(f"{path.name}: expected numpy arrays (.npz), {short(strange[0])} is none.")
    return arrays


def _bytes(value: Any) -> np.ndarray[Any, Any]:
    # numpy's own texts all take the room of the longest, and lose zeros at the end
    return np.frombuffer(json_text(value).encode(), np.uint8)


def _value(array: np.ndarray[Any, Any], where: str) -> Any:
    if array.dtype != np.uint8 or array.ndim != 1:
        raise ValueError(f"{where}: expected bytes [place], got {array.dtype} shaped {array.shape}.")
    return parsed(array.tobytes(), where)


def _plain(state: Any) -> Any:
    """A generator's state in types that JSON knows."""
    return json.loads(json.dumps(state, default=lambda value: value.tolist()))


def _arrays_in(state: Any) -> Any:
    if isinstance(state, Mapping):
        return {name: _arrays_in(value) for name, value in state.items()}
    return np.asarray(state, np.uint64) if isinstance(state, list) else state

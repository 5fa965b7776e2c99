"""What a session labels: an active learning dataset with stable names and pictures for its items."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset
from torchvision.transforms import v2

from baal_widgets.active.dataset import ActiveLearningDataset
from baal_widgets.active.file_dataset import FileDataset
from baal_widgets.images import find_images, open_image, to_image
from baal_widgets.utils.structures import TARGETS, inputs_of

MODEL_SIDE = 64  # pixels a side, for the model over a folder of images
DECODED_KEPT = 5_000  # images of that size kept decoded: at most 250 MB


class Annotated(Dataset[tuple[Any, Any]]):
    """A dataset with room for labels given by hand: item -> (input, class index, or -1 where none is known).

    Where items have several labels, the target is a row of zeros and ones.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset
        self.targets: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # torch's Dataset does not promise a length

    def __getitem__(self, item: int) -> tuple[Any, Any]:
        return input_of(self.dataset[item]), self.targets.get(item, -1)

    def label(self, item: int, value: Any) -> None:
        self.targets[item] = value if getattr(value, "ndim", 0) else int(value)

    def unlabel(self, item: int) -> None:
        self.targets.pop(item, None)


class Examples(Dataset[tuple[Any, Any]]):
    """A snapshot to train on: the inputs of some items with targets that no later click changes."""

    def __init__(self, dataset: Dataset[Any], targets: Mapping[int, Any]) -> None:
        self.dataset = dataset
        self.items = sorted(targets)
        self.targets = [targets[item] for item in self.items]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: int) -> tuple[Any, Any]:
        return input_of(self.dataset[self.items[place]]), self.targets[place]


class Inputs(Dataset[Any]):
    """The inputs alone: no target reaches the model that scores the pool."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, place: int) -> Any:
        return input_of(self.dataset[place])


@dataclass(frozen=True)
class Source:
    """The dataset, a key for each item, the targets of those that were labelled before, and the files to show where
    there are any; `root` is the folder that they must lie in, if they must."""

    dataset: ActiveLearningDataset
    keys: tuple[str, ...]
    given: Mapping[int, Any] = field(default_factory=dict)
    files: tuple[Path, ...] | None = None
    root: Path | None = None

    def picture(self, item: int, side: int | None = None) -> Image.Image:
        if self.files is not None:
            return open_image(self.files[item], side)
        return to_image(input_of(self.dataset.pool_dataset[item]))

    def examples(self, targets: Mapping[int, Any]) -> Examples:
        """What to train on, through the dataset's own (training) transform."""
        return Examples(self.dataset.dataset, targets)

    def inputs(self, items: Sequence[int]) -> Inputs:
        """What to predict on, as the pool sees it (`pool_specifics`: no augmentation)."""
        return Inputs(Subset(self.dataset.pool_dataset, list(items)))

    def put(self, answers: Mapping[int, Any], step: int) -> None:
        """Bring the dataset in step with the journal: a target labels or relabels, `None` unlabels."""
        held = {item: self.dataset.is_labelled(item) for item in answers}
        gone = [item for item, target in answers.items() if target is None and held[item]]
        fresh = {item: target for item, target in answers.items() if target is not None and not held[item]}
        other = {item: target for item, target in answers.items() if target is not None and held[item]}
        # all at once: each call takes a look at the whole dataset
        if fresh:
            self.dataset.label_items(list(fresh), list(fresh.values()), step=step)
        if gone:
            self.dataset.unlabel(gone)
        if other:
            self.dataset.relabel(list(other), list(other.values()))


def open_source(
    dataset: ActiveLearningDataset | Dataset[Any] | str | os.PathLike[str], *, multi_label: bool = False
) -> Source:
    """What a session was given, made ready: a folder's files, a torch dataset or an `ActiveLearningDataset`.

    With `multi_label` the targets are rows of zeros and ones.
    """
    if isinstance(dataset, (str, os.PathLike)):
        return _open_folder(dataset, multi_label)
    if not isinstance(dataset, ActiveLearningDataset):
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise TypeError(
                f"Expected an ActiveLearningDataset, a torch dataset or a folder, got {type(dataset).__name__}. "
                "A dataset needs a length and items: __len__ and __getitem__."
            )
        labelled = dataset if callable(getattr(dataset, "label", None)) else Annotated(dataset)
        dataset = ActiveLearningDataset(labelled)
    given = _given_targets(dataset, multi_label)
    files = getattr(dataset.dataset, "files", None)
    if not dataset.can_label or (multi_label and isinstance(dataset.dataset, FileDataset)):
        dataset.hold_labels_in(Annotated)
    names = None if files is None else tuple(Path(file) for file in files)
    keys = names if names is not None else range(dataset.n_labelled + dataset.n_unlabelled)
    return Source(dataset, tuple(map(str, keys)), given, names)


def _given_targets(dataset: ActiveLearningDataset, multi_label: bool) -> dict[int, Any]:
    """The targets of the items that are labelled: a class index, or a list of them. Reads each of the items."""
    items = np.flatnonzero(dataset.labelled).tolist()
    targets = {item: target_of(dataset.get_raw(item)) for item in items}
    if not multi_label:
        return {item: int(target) for item, target in targets.items()}
    return {i: np.flatnonzero(t).tolist() if np.ndim(t) else [int(t)] for i, t in targets.items()}


def input_of(item: Any) -> Any:
    """The input of a dataset's item, which is a pair with its target, a dict with it, or the input alone."""
    return inputs_of(item)


def target_of(item: Any) -> Any:
    if isinstance(item, (tuple, list)) and len(item) > 1:
        return item[1]
    if isinstance(item, Mapping) and any(name in item for name in TARGETS):
        return next(item[name] for name in TARGETS if name in item)
    raise ValueError(f"Expected items (input, target), got {type(item).__name__} without a target.")


def open_tests(folder: str | os.PathLike[str], classes: Sequence[str], pool: Path | None = None) -> FileDataset:
    """Images to test on, (input, class index), from a folder with one folder a class; a class may have none.

    Raises `ValueError` where an image lies in no folder named as one of the `classes`, and where the folder is a part
    of the `pool`: who learns from what they are tested on is flattered.
    """
    files, root = _readable(folder)
    if pool is not None and root.is_relative_to(pool):
        raise ValueError(f"The test images in {root} are among those to label in {pool}. Move them elsewhere.")
    names = [file.relative_to(root).parts[0] for file in files]
    strange = {name: file for name, file in zip(names, files, strict=True) if name not in classes}
    if strange:
        name, file = next(iter(strange.items()))
        told = "in no sub-folder" if file.parent == root else f"in {name!r}, which is no class"
        raise ValueError(
            f"Expected {root} to have a sub-folder for each class, {', '.join(classes)}, with its test images. "
            f"{file.relative_to(root)} lies {told}."
        )
    return _read(files, [classes.index(name) for name in names])


def _open_folder(folder: str | os.PathLike[str], multi_label: bool) -> Source:
    files, root = _readable(folder)
    dataset, keys = _read(files), tuple(file.relative_to(root).as_posix() for file in files)
    held = ActiveLearningDataset(Annotated(dataset) if multi_label else dataset)
    return Source(held, keys, files=tuple(files), root=root)


def _readable(folder: str | os.PathLike[str]) -> tuple[list[Path], Path]:
    """The images below a folder, and the folder in full. Warns of files that are left out."""
    files, refused = find_images(folder)
    if refused:
        lines = "".join(f"\n  {reason}" for reason in list(refused.values())[:5])
        more = f"\n  and {len(refused) - 5} more" if len(refused) > 5 else ""
        warnings.warn(f"{len(refused)} files are left out, since they are no images:{lines}{more}", stacklevel=5)
    return files, Path(folder).expanduser().resolve()


def _read(files: Sequence[Path], labels: Sequence[int] | None = None) -> FileDataset:
    """Images as the small model over a folder takes them."""
    load = lru_cache(maxsize=DECODED_KEPT)(partial(open_image, side=2 * MODEL_SIDE))
    transform = v2.Compose([v2.Resize((MODEL_SIDE, MODEL_SIDE)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    return FileDataset([str(file) for file in files], labels, transform=transform, image_load_fn=load)

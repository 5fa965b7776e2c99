"""Images in files, with labels that can be given later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from baal_widgets.images import open_image
from baal_widgets.utils.transforms import applied

UNLABELLED = -1


def default_image_load_fn(path: str) -> Image.Image:
    """The image in a file as upright RGB."""
    return open_image(path)


class FileDataset(Dataset[tuple[Any, Any]]):
    """Items (image, label) from a list of files; -1 is the label of what is not labelled.

    `transform` is applied to the image, `target_transform` to the label, `image_load_fn(path)` reads the file
    (default: RGB by Pillow). One derived from `BaaLTransform` is told what it asks for: the `image_shape` that the
    loaded image has in `size`, or `idx`. Random transforms draw from wherever they draw from: reading an item seeds
    nothing. `seed` is accepted for scripts written for Baal and has no effect; seed the transforms themselves.
    """

    def __init__(
        self,
        files: Sequence[str],
        lbls: Sequence[Any] | None = None,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        image_load_fn: Callable[[str], Any] | None = None,
        seed: int | None = None,
    ) -> None:
        if lbls is not None and len(lbls) != len(files):
            raise ValueError(f"Expected a label for each of {len(files)} files, got {len(lbls)}.")
        self.files = list(files)
        self.lbls: list[Any] = [UNLABELLED] * len(self.files)
        self.transform, self.target_transform = transform, target_transform
        self.image_load_fn = image_load_fn or default_image_load_fn
        for item, label in enumerate(lbls if lbls is not None else ()):
            if label != UNLABELLED:
                self.label(item, label)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, item: int) -> tuple[Any, Any]:
        image, label = self.image_load_fn(self.files[item]), self.lbls[item]
        told = {"image_shape": getattr(image, "size", None), "idx": item}
        if self.target_transform is not None:
            label = applied(self.target_transform, label, **told)
        if self.transform is not None:
            image = applied(self.transform, image, **told)
        return image, label

    def label(self, idx: int, lbl: Any) -> None:
        """Give an item its class, a whole number from 0 on of any kind of integer."""
        if hasattr(lbl, "item") and getattr(lbl, "ndim", 0) == 0:
            lbl = lbl.item()
        if isinstance(lbl, bool) or not isinstance(lbl, (int, np.integer)) or lbl < 0:
            raise ValueError(f"Expected a class index from 0 on as the label of item {idx}, got {lbl!r}.")
        self._check(idx)
        self.lbls[idx] = int(lbl)

    def unlabel(self, idx: int) -> None:
        """Forget the label of an item."""
        self._check(idx)
        self.lbls[idx] = UNLABELLED

    def _check(self, idx: int) -> None:
        if not 0 <= idx < len(self.files):
            raise IndexError(f"Expected an item from 0 to {len(self.files) - 1}, got {idx}.")

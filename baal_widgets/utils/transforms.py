"""Transforms that ask for more than the image, and masks whose colours are classes. Baal's names at Baal's path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor


class BaaLTransform:
    """A transform that says in `get_requires` what `FileDataset` is to tell it, among "image_shape" and "idx"."""

    def get_requires(self) -> list[str]:
        return []

    def __call__(self, x: Any, **told: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} needs a `__call__`.")


class BaaLCompose(BaaLTransform):
    """Transforms one after another, each told what it asks for."""

    def __init__(self, transformations: Sequence[Callable[..., Any]]) -> None:
        self.tfs = list(transformations)

    def get_requires(self) -> list[str]:
        return sorted({name for one in self.tfs for name in wanted_by(one)})

    def __call__(self, x: Any, **told: Any) -> Any:
        for transform in self.tfs:
            x = applied(transform, x, **told)
        return x


class GetCanvas(BaaLTransform):
    """What came, with an empty canvas of the image's shape beside it."""

    def get_requires(self) -> list[str]:
        return ["image_shape"]

    def __call__(self, x: Any, **told: Any) -> tuple[Any, npt.NDArray[np.float32]]:
        return x, np.zeros(told["image_shape"], dtype=np.float32)


class PILToLongTensor:
    """A picture as whole numbers: `[channel, height, width]`, or `[height, width]` of class indices by colour.

    `classes` are the colours in the order of the classes; a colour that is none of them is class 0.
    """

    def __init__(self, classes: Sequence[Sequence[int]] | None = None) -> None:
        self.clss = classes

    def __call__(self, pic: Image.Image | npt.NDArray[Any]) -> Tensor:
        pixels = np.array(pic.convert("RGB")) if isinstance(pic, Image.Image) else np.asarray(pic)
        told = pixels.transpose(2, 0, 1) if self.clss is None else self.encode_segmap(pixels)
        return torch.from_numpy(np.ascontiguousarray(told)).long()

    def encode_segmap(self, mask: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The class of each pixel of a coloured mask, `[height, width, channel]` in, `[height, width]` out."""
        found = np.zeros(mask.shape[:2], np.int64)
        for cls, colour in enumerate(self.clss or ()):
            found[(mask == np.asarray(colour)).all(axis=-1)] = cls
        return found


def wanted_by(transform: Callable[..., Any]) -> list[str]:
    """What a transform asks to be told; nothing for those of other makes."""
    return transform.get_requires() if isinstance(transform, BaaLTransform) else []


def applied(transform: Callable[..., Any], x: Any, **told: Any) -> Any:
    """A transform applied, and told what it asks for."""
    return transform(x, **{name: told[name] for name in wanted_by(transform)})

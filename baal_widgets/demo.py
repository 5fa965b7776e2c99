"""Real images to try everything on, shipped with the package: no download."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from importlib.resources import as_file, files

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from baal_widgets.models import small_cnn

CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


class ImageArray(Dataset[tuple[torch.Tensor, int]]):
    """Grey images uint8 `[item, height, width]` as (float tensor `[1, height, width]` in 0 to 1, class index).

    Without targets the class index is -1: not known.
    """

    def __init__(self, images: npt.NDArray[np.uint8], targets: npt.NDArray[np.integer] | None = None) -> None:
        self.images = images
        self.targets = np.full(len(images), -1) if targets is None else targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(self.images[item, None].astype(np.float32) / 255), int(self.targets[item])


@dataclass(frozen=True)
class Demo:
    """Images to label (`pool`, their labels unknown), a labelled `test` set, the class names, and what a perfect
    annotator would say (`oracle[item]` is a class index), for simulations."""

    pool: ImageArray
    test: ImageArray
    classes: list[str]
    oracle: list[int]

    def model(self, seed: int = 0) -> torch.nn.Module:
        """A fresh small CNN for these images, its weights drawn from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return small_cnn(len(self.classes), channels=1, side=28)

    def __repr__(self) -> str:
        counts = Counter(self.oracle)
        told = ", ".join(f"{name} {counts[index]}" for index, name in enumerate(self.classes))
        return f"Demo({len(self.pool)} images to label, {len(self.test)} to test on; {told})"


def load_demo() -> Demo:
    """The demo data: 1,060 pictures of clothes to label and 500 to test on, 28 x 28 pixels, 10 classes.

    A shop's archive: two hundred of each kind of top, and only a dozen each of trousers, sandals, sneakers, bags
    and boots. The test set holds fifty of each. Finding the rare ones is what active learning is for.
    Source: Fashion-MNIST (Xiao et al. 2017), MIT licence, Zalando SE.
    """
    packed = files("baal_widgets") / "data" / "fashion_mnist_demo.npz"
    with as_file(packed) as path, np.load(path, allow_pickle=False) as data:
        oracle = data["pool_targets"].astype(int).tolist()
        test = ImageArray(data["test"], data["test_targets"].astype(np.int64))
        return Demo(ImageArray(data["pool"]), test, list(CLASSES), oracle)

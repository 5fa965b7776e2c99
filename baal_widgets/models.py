"""Classifiers to begin with, when there is no model yet."""

from __future__ import annotations

from torch import nn


def small_cnn(
    n_classes: int, *, channels: int = 3, side: int | tuple[int, int] = 64, dropout: float = 0.5
) -> nn.Module:
    """A convolutional network for small images `[channel, height, width]`, with dropout around its head.

    Two convolutions for sides up to 32 pixels, one more for each doubling; about 0.2 million weights at 28 x 28.
    Everything before the first dropout is deterministic, so MC-Dropout draws are cheap.
    """
    height, width = (side, side) if isinstance(side, int) else side
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 5, stride=2, padding=2), nn.ReLU()]
    height, width, depth = (height + 1) // 2, (width + 1) // 2, 16
    while depth == 16 or max(height, width) > 8:
        wider = min(2 * depth, 64)
        layers += [nn.Conv2d(depth, wider, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
        height, width, depth = (height + 1) // 2, (width + 1) // 2, wider
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Dropout(dropout / 2),
        nn.Linear(depth * height * width, 128),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(128, n_classes),
    )


def torchvision_backbone(name: str, n_classes: int, *, dropout: float = 0.5) -> nn.Module:
    """A torchvision classifier (`resnet18`, `mobilenet_v3_small`, ...) with its pretrained weights, frozen, and
    a fresh head with dropout. Takes RGB images in 0 to 1 and normalises them as the weights want it.

    Downloads the weights once, into torch's cache; raises what torchvision raises without a network.
    """
    from torchvision import models
    from torchvision.transforms import v2

    weights = models.get_model_weights(name).DEFAULT
    wanted = weights.transforms()
    model = replace_head(models.get_model(name, weights=weights), n_classes, dropout=dropout)
    return nn.Sequential(v2.Normalize(wanted.mean, wanted.std), model)


def replace_head(model: nn.Module, n_classes: int, *, dropout: float = 0.5) -> nn.Module:
    """Freeze a classifier and put `Dropout, Linear` with `n_classes` outputs in place of its last linear layer.

    Changes `model` itself and returns it. Raises `ValueError` when it has no linear layer.
    """
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"{type(model).__name__} has no linear layer to replace by a head of {n_classes} classes.")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    name, last = linear[-1]
    parent, _, child = name.rpartition(".")
    setattr(
        model.get_submodule(parent),
        child,
        nn.Sequential(nn.Dropout(dropout), nn.Linear(last.in_features, n_classes)),
    )
    return model

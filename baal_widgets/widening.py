"""More outputs for a classifier, when a class is added after it was made."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

_Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def output_layer(model: nn.Module, n_outputs: int) -> _Layer:
    """The last linear or convolutional layer, in the order they were registered, with so many outputs.

    Raises `ValueError` where there is none, or none whose weights are just a weight and a bias.
    """
    found = [layer for layer in model.modules() if isinstance(layer, _Layer) and _outputs(layer) == n_outputs]
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no nn.Linear or nn.Conv with {n_outputs} outputs to add a class to. Begin "
            "again with a model that has one output for each class."
        )
    layer = found[-1]
    if not {name for name, _ in layer.named_parameters()} <= {"weight", "bias"} or getattr(layer, "groups", 1) > 1:
        raise ValueError(
            f"The outputs of {type(model).__name__} come from a {type(layer).__name__} that can't be widened. Begin "
            "again with a model that has one output for each class."
        )
    return layer


def widen(model: nn.Module, layer: _Layer, n_outputs: int, seed: int) -> None:
    """Put a layer with more outputs in the place of one of the model's, in place: its rows, and then new ones.

    Each new row is drawn as torch draws a linear layer's, from the seed and its number alone: one class after another
    gives the same weights as all at once.
    """
    wider = copy.deepcopy(layer)
    reach = 1 / np.sqrt(max(1, layer.weight[0].numel()))
    rows = [
        np.random.default_rng([seed, row]).uniform(-reach, reach, layer.weight[0].numel() + 1)
        for row in range(_outputs(layer), n_outputs)
    ]
    drawn = torch.as_tensor(np.array(rows), dtype=layer.weight.dtype, device=layer.weight.device)
    wider.weight = _longer(layer.weight, drawn[:, :-1].reshape(len(rows), *layer.weight.shape[1:]))
    if layer.bias is not None:
        wider.bias = _longer(layer.bias, drawn[:, -1])
    setattr(wider, "out_features" if isinstance(wider, nn.Linear) else "out_channels", n_outputs)
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is layer:
                parent._modules[name] = wider


def _outputs(layer: _Layer) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _longer(old: Tensor, rows: Tensor) -> nn.Parameter:
    return nn.Parameter(torch.cat([old.detach(), rows]), requires_grad=old.requires_grad)

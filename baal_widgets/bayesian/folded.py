"""Consistent dropout in front of linear layers, with the masks put in the weights: all draws are one product."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baal_widgets.bayesian.common import DrawsOnce, draw_number
from baal_widgets.bayesian.consistent_dropout import ConsistentDropout, MCConsistentDropoutModule
from baal_widgets.bayesian.swapping import own_class

_BY_ELEMENT = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish,
    nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign,
)  # fmt: skip


class FoldedDropoutModule(MCConsistentDropoutModule):
    """The draws of `MCConsistentDropoutModule` for a head of dropout, linear layers and activations.

    A mask of a linear layer's inputs is one of its weight's columns, so the draws of `[item, feature]` by
    `Dropout, Linear` are one product with `draws x classes` rows: to draw a mask for each item would take longer than
    all the rest. The distribution of an item's draws is the same; what differs is that all items see the same models.
    Batches of `[item, feature]` alone: others, and models that `can_fold` says no to, are sampled draw by draw. What
    `replicate` would spare is not taken: a batch's draws need no more memory than the predictions themselves.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self._held: dict[int, tuple[Any, Tensor]] = {}  # the masks of the numbered draws, by layer

    def sample(self, data: Any, draws: int, replicate: bool = True) -> Any:
        model = self.parent_module
        inside = [part for part in model.modules() if part is not model]
        folds = can_fold(model) and isinstance(data, Tensor) and data.ndim == 2 and data.is_floating_point()
        if not folds or any(part.training for part in inside):
            return super().sample(data, draws, replicate)
        value: Tensor = data
        mask: Tensor | None = None
        for layer in inside:
            if _is_dropout(layer):
                mask = self._masks(layer, value.shape[1], draws, value)
            elif isinstance(layer, nn.Linear):
                value, mask = _product(layer, value, mask, draws), None
            elif not isinstance(layer, nn.Dropout):
                value = layer(value.clone() if value is data else value)
        return value if value.ndim == 3 else value[..., None].expand(-1, -1, draws).contiguous()

    def _masks(self, layer: nn.Module, n_features: int, draws: int, like: Tensor) -> Tensor:
        """What `layer` multiplies the features of all items by, `[feature, draw]`: the very masks it makes."""
        assert isinstance(layer, DrawsOnce)
        what = layer._seed, n_features, draws, like.dtype, like.device
        held = self._held.get(id(layer))
        if held is not None and layer._seed is not None and held[0] == what:
            return held[1]
        ones, masks = like.new_ones((1, n_features)), []
        for number in range(draws):
            with draw_number(layer, number):
                masks.append(layer(ones)[0])
        made = torch.stack(masks, dim=-1)
        self._held[id(layer)] = (layer._seed, *what[1:]), made
        return made


def can_fold(model: nn.Module) -> bool:
    """Whether a model is linear layers, activations, and dropout right before linear layers, one after another."""
    if type(model).forward is not nn.Sequential.forward:
        return False
    layers = list(model.children())
    known = all(own_class(layer) in (nn.Linear, nn.Dropout, ConsistentDropout, *_BY_ELEMENT) for layer in layers)
    before = zip(layers, [*layers[1:], nn.Identity()], strict=True)
    linear_next = all(own_class(after) is nn.Linear for layer, after in before if _is_dropout(layer))
    heard = any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)
    return known and linear_next and not heard and len({id(layer) for layer in layers}) == len(layers)


def _is_dropout(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Dropout) and layer.p > 0


def _product(layer: nn.Linear, value: Tensor, mask: Tensor | None, draws: int) -> Tensor:
    """A linear layer of `[item, feature]` or `[item, feature, draw]`, whose inputs are masked."""
    if mask is None and value.ndim == 2:
        return layer(value)  # type: ignore[no-any-return]
    if mask is None:
        mask = value.new_ones((value.shape[1], draws))
    weight = layer.weight[:, None] * mask.T  # [class, draw, feature]
    if value.ndim == 2:
        bias = None if layer.bias is None else layer.bias.repeat_interleave(draws)
        return F.linear(value, weight.flatten(0, 1), bias).view(len(value), layer.out_features, draws)
    made = torch.bmm(value.permute(2, 0, 1), weight.permute(1, 2, 0)).permute(1, 2, 0)
    return made if layer.bias is None else made + layer.bias[:, None]

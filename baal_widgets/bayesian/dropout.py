"""MC-Dropout: dropout that stays on at prediction time (Gal and Ghahramani, ICML 2016)."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from baal_widgets.bayesian.common import BayesianModule
from baal_widgets.bayesian.costs import SEQUENCES
from baal_widgets.bayesian.functional import can_be_kept_on, drops_by_function
from baal_widgets.bayesian.masks import Dropped, dropped
from baal_widgets.bayesian.passes import Copies, DrawsPerItem, Mapped
from baal_widgets.bayesian.swapping import Swapped, own_class, swap, swap_back, swapped
from baal_widgets.utils.structures import map_structure

_HOLDERS = (nn.TransformerEncoderLayer, nn.TransformerEncoder, nn.TransformerDecoderLayer)


class AlwaysOn(DrawsPerItem, Swapped):
    """A layer that believes that it is training, whatever mode it is set to; its dropout stays on in `eval` mode too.

    The mode it was set to is kept, so the layer is bit for bit as before once its class is put back.
    """

    prefix = "MC"
    added = ("copies", "can_copy", "can_map", "surveyed")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if own_class(self) is nn.Dropout and not kwargs and _by_bits(*args):
            if isinstance(self.copies, Copies):
                return self.copies.masked(args[0], self.p)  # type: ignore[attr-defined]
            if isinstance(self.copies, Mapped):
                return Dropped.apply(args[0], self.p, self.copies.draw)  # type: ignore[attr-defined]
            if self.copies is None and torch._C._functorch.maybe_current_level() is None:  # a caller's own vmap
                return dropped(args[0], self.p)[0]  # type: ignore[attr-defined]
        args, kwargs = self.entered(args, kwargs)
        if getattr(self, "inplace", False):  # what it is given may be the caller's, and goes into the next draw too
            args, kwargs = map_structure(torch.clone, (args, kwargs))
        return super().forward(*args, **kwargs)  # type: ignore[misc]  # of the layer's own class

    @property
    def training(self) -> bool:
        return True

    @training.setter
    def training(self, mode: bool) -> None:
        self.__dict__["training"] = mode


Dropout = swapped(AlwaysOn, nn.Dropout)
Dropout2d = swapped(AlwaysOn, nn.Dropout2d)


def stochastic_layers(module: nn.Module) -> list[str]:
    """The names of the layers of a model that drop anything, `""` for the model itself.

    Every kind of dropout layer counts, the dropout between the layers of an RNN or on attention weights, and modules
    that call `torch.nn.functional.dropout` where it can be kept on: where it alone asks for `self.training`.
    """
    return [name for name, layer in module.named_modules() if _drops(layer)]


def patch_module(module: nn.Module, inplace: bool = True) -> nn.Module:
    """Keep the dropout of a model on in `eval` mode too, and return it.

    In place, as in Baal, unless told otherwise; `inplace=False` works on a copy. `unpatch_module` puts it back.
    Warns when there is nothing to keep on, and of modules whose functional dropout can't be.
    """
    module = module if inplace else copy.deepcopy(module)
    found = [layer for layer in module.modules() if _drops(layer)]
    if not found:
        warnings.warn(
            "No layer was modified by patch_module! The model has no dropout that is on: put nn.Dropout(0.5) before "
            "its last linear layer.",
            UserWarning,
            stacklevel=2,
        )
    if missed := functional_dropout_missed(module):
        warnings.warn(
            f"The functional dropout in {', '.join(missed)} stays off in eval mode: the forward there asks for "
            "self.training for other ends as well. Make it a layer, nn.Dropout.",
            UserWarning,
            stacklevel=2,
        )
    # A Transformer layer takes a fused path past its dropout unless it believes that it is training.
    holders = [m for m in module.modules() if isinstance(m, _HOLDERS) and stochastic_layers(m)]
    for layer in (*found, *holders):
        if not isinstance(layer, AlwaysOn):
            swap(layer, AlwaysOn)
            if not isinstance(layer, (_DropoutNd, *SEQUENCES)):  # the items may be on another axis
                layer.can_copy = False  # type: ignore[assignment]
    return module


def unpatch_module(module: nn.Module, inplace: bool = True) -> nn.Module:
    """Undo `patch_module`: every layer is of its own class and in its own mode again. Nothing to undo is fine.

    Layers that were made as this module's `Dropout` become torch's; those of a class derived from it stay on.
    """
    module = module if inplace else copy.deepcopy(module)
    for layer in module.modules():
        swap_back(layer, AlwaysOn)
    return module


class MCDropoutModule(BayesianModule):
    """A model whose dropout stays on: each call is a draw from the approximate posterior.

    The model that was given is left as it was, and shares its weights with this one. As a context manager the
    draws end with the block.

    >>> model = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5)).eval()
    >>> with MCDropoutModule(model) as mc_model:
    ...     _ = mc_model.eval()      # still stochastic
    """

    patching_function = staticmethod(patch_module)
    unpatch_function = staticmethod(unpatch_module)

    def __init__(self, module: nn.Module) -> None:
        if not stochastic_layers(module):
            missed = functional_dropout_missed(module)
            raise ValueError(
                f"{type(module).__name__} has no dropout that is on, so every draw from it would be the same. Put "
                "nn.Dropout(0.5) before its last linear layer, or take LaplaceModule or EnsembleModule instead."
                + (
                    f" The functional dropout in {', '.join(missed)} can't be kept on: make it a layer."
                    if missed
                    else ""
                )
            )
        super().__init__(module)


def _drops(layer: nn.Module) -> bool:
    if isinstance(layer, _DropoutNd):
        return layer.p > 0
    if isinstance(layer, nn.RNNBase):
        return layer.dropout > 0 and layer.num_layers > 1
    if isinstance(layer, nn.MultiheadAttention):
        return bool(layer.dropout > 0)
    return drops_by_function(layer) and can_be_kept_on(layer)


def _by_bits(x: Any) -> bool:
    """Whether masks are made of bits: on the CPU, where torch has no kernel of its own for dropout."""
    return (
        isinstance(x, torch.Tensor) and x.device.type == "cpu" and x.is_floating_point() and not torch.is_grad_enabled()
    )


def functional_dropout_missed(module: nn.Module) -> list[str]:
    """Where a model calls dropout as a function in a way that `patch_module` can't keep on: name and class."""
    return [
        f"{name or 'the model'} ({type(layer).__name__})"
        for name, layer in module.named_modules()
        if not isinstance(layer, AlwaysOn) and drops_by_function(layer) and not can_be_kept_on(layer)
    ]

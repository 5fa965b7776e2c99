"""MC-DropConnect: weights that are dropped in training and at prediction time (Mobiny et al. 2019, arXiv:1906.04569).

Where dropout silences features, DropConnect cuts single connections; a call's mask holds for all of its items.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from baal_widgets.bayesian.common import BayesianModule, DrawsOnce
from baal_widgets.bayesian.consistent_dropout import fuse, unfuse
from baal_widgets.bayesian.swapping import Swapped, holding, swap, swap_back, swapped

KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "Linear": (nn.Linear,),
    "Conv": (nn.Conv1d, nn.Conv2d, nn.Conv3d),
    "Conv1d": (nn.Conv1d,),
    "Conv2d": (nn.Conv2d,),
    "Conv3d": (nn.Conv3d,),
    "LSTM": (nn.LSTM,),
    "GRU": (nn.GRU,),
    "RNN": (nn.RNN,),
}
ALL = ("Linear", "Conv", "LSTM", "GRU", "RNN")


class WeightDropMixin(DrawsOnce, Swapped):
    """A layer each of whose weights is dropped with probability `weight_dropout`, in training and in `eval` mode.

    The others are scaled by 1 / (1 - weight_dropout). Biases stay; of an RNN the weights from step to step are
    dropped (`weight_hh_*`), the same at all steps. Each call draws anew, calls of one numbered draw are the same.
    """

    prefix = "WeightDrop"
    added = ("_weight_dropout",)

    _weight_dropout: float = 0.0

    def __init__(self, weight_dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._weight_dropout = _checked(weight_dropout)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        layer: Any = self
        if self._weight_dropout == 0:
            return super().forward(*args, **kwargs)  # type: ignore[misc]
        if isinstance(layer, nn.RNNBase):
            names = layer._flat_weights_names
            dropped = self._dropped([name for name in names if name.startswith("weight_hh")])
            flat = [dropped.get(name, getattr(layer, name)) for name in names]
            # an RNN computes with this list, and would make it anew if the references told of other weights
            with holding(layer, _flat_weights=flat, _flat_weight_refs=[None] * len(names)), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
                return super().forward(*args, **kwargs)  # type: ignore[misc]
        # not set in the dict, which a caller's model shares
        with holding(layer, _parameters={**layer._parameters, **self._dropped(["weight"])}):
            return super().forward(*args, **kwargs)  # type: ignore[misc]

    def unpatch(self) -> nn.Module:
        """The layer as it was before, with the weights it has now. The same object, not a new one."""
        assert isinstance(self, nn.Module)
        swap_back(self, WeightDropMixin)
        return self

    def _dropped(self, names: Sequence[str]) -> dict[str, Tensor]:
        weights: dict[str, Tensor] = {name: getattr(self, name) for name in names}
        generator = self.draw_generator(next(iter(weights.values())).device)
        p, dropped = self._weight_dropout, {}
        for name, weight in weights.items():
            keep = torch.rand(weight.shape, generator=generator, device=weight.device) >= p
            dropped[name] = weight * (keep.to(weight.dtype) * (1 / (1 - p) if p < 1 else 0.0))
        return dropped


class WeightDropLinear(WeightDropMixin, nn.Linear):
    """A linear layer with DropConnect: `WeightDropLinear(0.5, in_features=4, out_features=2)`."""


class WeightDropConv2d(WeightDropMixin, nn.Conv2d):
    """A convolution with DropConnect: `WeightDropConv2d(0.5, in_channels=3, out_channels=8, kernel_size=3)`."""


def get_weight_drop_module(name: str, weight_dropout: float, **kwargs: Any) -> nn.Module:
    """A new layer with DropConnect, of a kind such as "Linear" or "LSTM", from the arguments of torch's own."""
    kinds = {one.__name__: one for ones in KINDS.values() for one in ones}
    if name not in kinds:
        raise ValueError(f"Expected one of {', '.join(sorted(kinds))}, got {name!r}.")
    return swapped(WeightDropMixin, kinds[name])(weight_dropout, **kwargs)  # type: ignore[arg-type]


def patch_module(
    module: nn.Module, layers: Sequence[str] = ALL, weight_dropout: float = 0.0, inplace: bool = True
) -> nn.Module:
    """Drop weights of a model's layers of the given kinds from now on, and return the model.

    `layers` are among "Linear", "Conv" (or "Conv1d", "Conv2d", "Conv3d"), "LSTM", "GRU" and "RNN". The layers keep
    their weights and all else. As in Baal, the model's dropout layers have p = 0 meanwhile, so that DropConnect
    alone is at work; `unpatch_module` gives them their own p back. In place unless told otherwise.

    Attention's projections are no layers that are called, and stay. Warns when there is nothing to patch. Raises
    `ValueError` for kinds that are not known and for layers whose weight is computed (weight norm and the like).
    """
    weight_dropout = _checked(weight_dropout)
    named_layers(module, layers)  # refuse before anything is copied or changed
    module = module if inplace else copy.deepcopy(module)
    found = named_layers(module, layers)
    if not found:
        warnings.warn(
            f"No layer was modified by patch_module! {_advice(module, layers)}",
            UserWarning,
            stacklevel=2,
        )
        return module
    for layer in found.values():
        swap(layer, WeightDropMixin, _weight_dropout=weight_dropout)
    for layer in module.modules():
        if isinstance(layer, _DropoutNd) and "_p_before" not in vars(layer):
            vars(layer).update(_p_before=layer.p, p=0.0)
    unfuse(module, WeightDropMixin)
    return module


def unpatch_module(module: nn.Module, inplace: bool = True) -> nn.Module:
    """Undo `patch_module`: the layers drop no weights, and dropout layers have their own p. Nothing to undo is fine."""
    module = module if inplace else copy.deepcopy(module)
    for layer in module.modules():
        swap_back(layer, WeightDropMixin)
        if "_p_before" in vars(layer):
            vars(layer)["p"] = vars(layer).pop("_p_before")
    fuse(module)
    return module


class MCDropoutConnectModule(BayesianModule):
    """A model whose weights are dropped, in training and in `eval` mode: each call is a draw of the whole model.

    Train it as it is, so that it learns to do with fewer connections. The model that was given is left as it was,
    and shares its weights with this one. See `patch_module` for the arguments; `weight_dropout` is 0.5 unless told
    otherwise. Raises `ValueError` where nothing would be dropped.

    >>> model = nn.Linear(4, 2)
    >>> mc_model = MCDropoutConnectModule(model, layers=["Linear"], weight_dropout=0.5).eval()
    >>> mc_model.sample(torch.ones(3, 4), draws=5).shape
    torch.Size([3, 2, 5])
    """

    patching_function = staticmethod(patch_module)
    unpatch_function = staticmethod(unpatch_module)

    def __init__(self, module: nn.Module, layers: Sequence[str] = ALL, weight_dropout: float = 0.5) -> None:
        if not named_layers(module, layers):
            raise ValueError(f"Every draw of this model would be the same. {_advice(module, layers)}")
        if weight_dropout == 0:
            raise ValueError("Every draw of this model would be the same with weight_dropout=0: try 0.5.")
        super().__init__(module, layers, weight_dropout)


def named_layers(module: nn.Module, layers: Sequence[str], known: Sequence[str] = tuple(KINDS)) -> dict[str, nn.Module]:
    """A model's layers of the kinds called `layers`, by their names in it, whose weights can be put in place.

    The projections of attention are left out, as torch never calls them. Raises `ValueError` for a kind that is
    not among the `known`, and for layers that have no weight of their own yet, or not as a parameter.
    """
    layers = [layers] if isinstance(layers, str) else list(layers)
    unknown = [name for name in layers if name not in known]
    if unknown or not layers:
        raise ValueError(f"Expected layers among {', '.join(known)}, got {', '.join(unknown) or 'none'}.")
    kinds = tuple(kind for name in layers for kind in KINDS[name])
    uncalled = {id(one.out_proj) for one in module.modules() if isinstance(one, nn.MultiheadAttention)}
    found = {
        name: layer for name, layer in module.named_modules() if isinstance(layer, kinds) and id(layer) not in uncalled
    }
    for name, layer in found.items():
        weight = layer._parameters.get("weight_hh_l0" if isinstance(layer, nn.RNNBase) else "weight")
        if weight is None:
            raise ValueError(
                f"Expected layer {name!r} to have its weight as a parameter, but it is computed from others. Remove "
                "the parametrization first: torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')."
            )
        if is_lazy(weight):
            raise ValueError(f"Layer {name!r} has no weight yet: call the model on a batch first.")
    return found


def _checked(weight_dropout: float) -> float:
    if not 0 <= weight_dropout <= 1:
        raise ValueError(f"Expected weight_dropout to be a probability, from 0 to 1, got {weight_dropout}.")
    return weight_dropout


def _advice(module: nn.Module, layers: Sequence[str]) -> str:
    asked = layers if isinstance(layers, str) else ", ".join(layers)
    there = sorted({type(layer).__name__ for layer in module.modules()})
    return f"The model has no layer of {asked}; it has {', '.join(there)}. Name others in layers=[...]."

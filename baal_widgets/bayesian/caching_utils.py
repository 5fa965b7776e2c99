"""Compute once what is the same in every draw: the layers before the first stochastic one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from baal_widgets.bayesian.common import BayesianModule, sample
from baal_widgets.bayesian.dropout import stochastic_layers
from baal_widgets.bayesian.swapping import Swapped, own_class, swap, swap_back
from baal_widgets.utils.structures import map_structure


class LRUCacheModule(nn.Module):
    """A deterministic layer that remembers its last call, in `eval` mode without gradients. `size` is 1, as in Baal.

    A call is the same one when its tensors are the same and unchanged, or equal, and so are the weights. torch counts
    the changes to a tensor except those through `.data` or NumPy: after such, call `forget(layer)`.
    """

    def __init__(self, module: nn.Module, size: int = 1) -> None:
        super().__init__()
        if size != 1:
            raise ValueError(f"Expected size=1: only the last call is remembered; got {size}.")
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return _remembered(self, self.module, args, kwargs)


class Cached(Swapped):
    """Mixed in before a layer's class: remembers as `LRUCacheModule` does, and the layer keeps its name and hooks."""

    prefix = "Cached"
    added = ("_last_call",)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        run = super().forward  # type: ignore[misc]
        assert isinstance(self, nn.Module)
        # dropout or hooks may have come in since it was patched
        return _remembered(self, run, args, kwargs) if _deterministic(self) else run(*args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # what it remembers is not to be saved
        reduced: tuple[Any, ...] = super().__reduce_ex__(protocol)
        state = {name: value for name, value in reduced[2].items() if name != "_last_call"}
        return (*reduced[:2], state, *reduced[3:])


def patch_module(module: nn.Module, inplace: bool = True) -> nn.Module:
    """Let the deterministic layers of torch remember their last call, and return the model. `unpatch_module` undoes it.

    Layers of other makes run every time, since nobody can tell from outside whether they are deterministic.
    """
    module = module if inplace else copy.deepcopy(module)
    for layer in list(_outermost(module)):
        swap(layer, Cached)
    return module


def unpatch_module(module: nn.Module, inplace: bool = True) -> nn.Module:
    """Undo `patch_module`; nothing to undo is fine."""
    module = module if inplace else copy.deepcopy(module)
    for layer in module.modules():
        swap_back(layer, Cached)
    return module


def forget(layer: nn.Module) -> None:
    """Let a layer forget its last call."""
    vars(layer).pop("_last_call", None)


class MCCachingModule(BayesianModule):
    """A stochastic model that runs its deterministic layers once for all draws of a batch.

    `MCCachingModule(MCDropoutModule(model))` gives the draws that the model within gives one after another, as `sample`
    makes them here whatever `replicate` says: then the layers before the first dropout see the same input again. What
    they gave is kept in `eval` mode and without gradients, and forgotten at the end of `sample`. Memory: the
    outputs of those layers for one batch. As a context manager it gives the model within back.
    """

    patching_function = staticmethod(patch_module)
    unpatch_function = staticmethod(unpatch_module)

    def sample(self, data: Any, draws: int, replicate: bool = True) -> Any:
        """Draws of the model within, `[item, class, ..., draw]`, one after another."""
        try:
            return sample(self.parent_module, data, draws, replicate=False)
        finally:
            for layer in self.modules():
                forget(layer)


@dataclass(frozen=True)
class _Call:
    """What a layer was called with and what it gave, each with torch's count of changes to it."""

    arguments: Any
    argument_versions: list[int]
    weights: list[Tensor]
    weight_versions: list[int]
    precision: list[Any]
    output: Any
    output_versions: list[int]
    lent: bool


def _remembered(layer: nn.Module, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    arguments, weights = (args, kwargs), [*layer.parameters(), *layer.buffers()]
    untold = any(one.is_inference() for one in [*_tensors(arguments), *weights])
    if torch.is_grad_enabled() or untold or any(part.training for part in layer.modules()):
        forget(layer)
        return run(*args, **kwargs)
    versions, precision = _versions(arguments), _precision(arguments)
    last: _Call | None = vars(layer).get("_last_call")
    same = last is not None and (
        last.precision == precision
        and _unchanged(last, weights)
        and _versions(last.arguments) == last.argument_versions
        and _equal(last.arguments, arguments)
    )
    if last is not None and same:
        if not last.lent:
            return map_structure(torch.clone, last.output)
        if _versions(last.output) == last.output_versions:
            return last.output
    output = run(*args, **kwargs)
    if _versions(arguments) == versions:
        # the next layer wrote over what it was given: from now on it is given copies
        kept = map_structure(torch.clone, output) if same else output
        vars(layer)["_last_call"] = _Call(
            arguments,
            versions,
            [one.detach() for one in weights],  # holds the memory, so that no other tensor comes to lie there
            [one._version for one in weights],
            precision,
            kept,
            _versions(kept),
            lent=not same,
        )
    else:
        forget(layer)
    return output


def _unchanged(last: _Call, weights: list[Tensor]) -> bool:
    return len(weights) == len(last.weights) and all(
        now.data_ptr() == then.data_ptr() and now.dtype == then.dtype and now._version == version
        for now, then, version in zip(weights, last.weights, last.weight_versions, strict=True)
    )


def _equal(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        alike = (one.shape, one.dtype, one.device, one.layout) == (other.shape, other.dtype, other.device, other.layout)
        return alike and one.layout == torch.strided and torch.equal(one, other)
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(_equal(a, b) for a, b in zip(one, other, strict=True))
    return isinstance(one, (bool, int, float, str)) and one == other


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        yield from _tensors(list(values.values()))
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)


def _versions(values: Any) -> list[int]:
    return [one._version for one in _tensors(values)]


def _precision(arguments: Any) -> list[Any]:
    """What autocast makes of these: the same weights and inputs give other outputs under it."""
    kinds = sorted({one.device.type for one in _tensors(arguments)})
    return [torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) for kind in kinds]


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    """The largest parts of a model that give the same each time, and are called."""
    if _deterministic(module) and type(module).forward is not nn.Module.forward:
        yield module
        return
    for child in module.children():
        yield from _outermost(child)


def _deterministic(module: nn.Module) -> bool:
    """Whether it is all torch's own layers without dropout, and nobody listens to what goes on inside."""
    inside = (part for part in module.modules() if part is not module)
    return (
        all(own_class(part).__module__.startswith("torch.nn.modules.") for part in module.modules())
        and not any(isinstance(part, _DropoutNd) for part in module.modules())
        and not stochastic_layers(module)
        and not any(part._forward_hooks or part._forward_pre_hooks for part in inside)
    )

"""A model in two: what it computes of its input, and the linear layer that makes its output of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from baal_widgets.bayesian.common import evaluating
from baal_widgets.bayesian.layout import laid_out_for


def last_linear(model: nn.Module, data: Any = None) -> tuple[str, nn.Linear]:
    """The name and the layer that a classifier ends in: the linear layer that runs last on a batch of `data`.

    Without `data` it is the one that was registered last, which is the same for most models. One pass in `eval` mode.
    Raises `ValueError` where there is no linear layer.

    >>> last_linear(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    ('2', Linear(in_features=3, out_features=2, bias=True))
    """
    linear = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    if data is None:
        name = next(reversed(linear), None)
    else:
        with torch.no_grad(), evaluating(model):
            calls, _ = _watch(model, linear, data)
        name = calls[-1][0] if calls else None
    if name is None:
        ran = "has" if data is None else "runs"
        raise ValueError(
            f"{type(model).__name__} {ran} no nn.Linear. Expected a model that ends in one; torch.nn.functional.linear "
            "cannot be seen from outside."
        )
    return name, linear[name]


def features_of(model: nn.Module, data: Any, layer: str | nn.Module | None = None) -> Tensor:
    """What goes into a layer, the last linear one unless told otherwise, flattened: `[item, feature]`.

    One pass in `eval` mode and without gradients; the model comes back as it was, also after an error. A layer that
    runs several times counts with its last run.
    """
    if isinstance(layer, nn.Module):
        watched = {name: one for name, one in model.named_modules() if one is layer}
    elif layer is not None:
        watched = {layer: model.get_submodule(layer)}
    else:
        watched = {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear)}
    with torch.no_grad(), evaluating(model):
        calls, _ = _watch(model, watched, laid_out_for(model, data))
    if not calls:
        wanted = "an nn.Linear" if layer is None else f"the layer {layer!r}"
        raise ValueError(f"{type(model).__name__} did not run {wanted} on this batch. Name one that it does: layer=...")
    features: Tensor = calls[-1][1]
    return features.flatten(1) if features.ndim > 1 else features[:, None]


@dataclass(frozen=True)
class FeatureHead:
    """A model whose output is that of one linear layer, so that other weights of it cost one product each."""

    model: nn.Module
    name: str

    @classmethod
    def of(cls, model: nn.Module, data: Any) -> FeatureHead:
        """Split a model, tried on a batch of `data`. Raises `ValueError` where its output is not a linear layer's."""
        name, layer = last_linear(model, data)
        with torch.no_grad(), evaluating(model):
            calls, output = _watch(model, {name: layer}, data)
        same = isinstance(output, Tensor) and output.shape == calls[-1][2].shape and torch.equal(output, calls[-1][2])
        if len(calls) > 1 or not same:
            raise ValueError(
                f"The output of {type(model).__name__} is not that of its last linear layer, {name!r}, run once. "
                "Expected a model that ends in it, without a softmax or another head behind."
            )
        if output.ndim != 2:
            raise ValueError(
                f"Expected one row of outputs an item, [item, class]; layer {name!r} gives {tuple(output.shape)}."
            )
        return cls(model, name)

    @property
    def head(self) -> nn.Linear:
        layer = self.model.get_submodule(self.name)
        assert isinstance(layer, nn.Linear)
        return layer

    def features(self, *args: Any, **kwargs: Any) -> Tensor:
        """What goes into the head, `[item, feature]`. One pass in the model's present mode."""
        calls, _ = _watch(self.model, {self.name: self.head}, *args, **kwargs)
        inputs: Tensor = calls[-1][1]
        return inputs


def _watch(
    model: nn.Module, layers: dict[str, nn.Module] | dict[str, nn.Linear], *args: Any, **kwargs: Any
) -> tuple[list[tuple[str, Any, Any]], Any]:
    """Call a model: each run of the layers, `(name, input, output)`, in the order that they ended, and its output."""
    calls: list[tuple[str, Any, Any]] = []
    entered: dict[str, Any] = {}

    def watch(name: str, layer: nn.Module) -> list[Any]:
        def note_input(_: nn.Module, inputs: Any, named: dict[str, Any]) -> None:
            one = inputs[0] if inputs else next(iter(named.values()))
            # other layers may write over their input
            entered[name] = one if isinstance(layer, nn.Linear) else one.clone()

        def note_output(_: nn.Module, __: Any, output: Any) -> None:
            calls.append((name, entered.pop(name), output))

        return [
            layer.register_forward_pre_hook(note_input, with_kwargs=True),
            layer.register_forward_hook(note_output),
        ]

    handles = [handle for name, layer in layers.items() for handle in watch(name, layer)]
    try:
        output = model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return calls, output

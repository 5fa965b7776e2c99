"""The part of a model that neither learns nor draws, told from the head behind it: what it gives can be kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from baal_widgets.bayesian.common import DrawsOnce
from baal_widgets.bayesian.dropout import stochastic_layers
from baal_widgets.bayesian.layout import laid_out_for
from baal_widgets.utils.structures import batch_size_of


def is_frozen(module: nn.Module) -> bool:
    """Whether a part of a model neither learns nor draws: no parameter of it has a gradient, nothing in it drops.

    Normalisation with running statistics and no weights counts as learning: nobody has frozen it.
    """
    parts = list(module.modules())
    return (
        not any(one.requires_grad for one in module.parameters())
        and not stochastic_layers(module)
        and not any(isinstance(part, DrawsOnce) for part in parts)
        and not any(isinstance(part, _NormBase) and part.track_running_stats and not part.affine for part in parts)
    )


def rest(model: nn.Module) -> None:
    """Put the frozen parts of a model in `eval` mode, so that their statistics stay and their blocks are all there.

    Of BatchNorm the statistics would move, of stochastic depth a part would be missing, in training mode.
    """
    if next(model.parameters(), None) is not None and is_frozen(model):
        model.eval()
        return
    for child in model.children():
        rest(child)


@dataclass(frozen=True, eq=False)
class Split:
    """A model in two: the `head` makes the model's output of what `features` gives, which is frozen.

    Both share the weights of the model.
    """

    model: nn.Module
    head: nn.Sequential

    def features(self, data: Any) -> Tensor:
        """What goes into the head, `[item, ...]`. One pass that ends there, in the model's present mode."""
        with torch.no_grad():
            features: Tensor = _entering(self.model, self.head[0], laid_out_for(self.model, data))
            return features.contiguous()

    def backbone(self) -> Iterator[tuple[str, nn.Module]]:
        """The modules that are not in the head, by name."""
        behind = {id(part) for part in self.head.modules()}
        return ((name, part) for name, part in self.model.named_modules() if id(part) not in behind)


def split(model: nn.Module, data: Any) -> Split | None:
    """A model in two, tried on a batch of `data`, as late as can be; `None` where nothing worth keeping is frozen.

    Looked for is a head that holds all that learns or draws, and whose layers run one after another at the end. The
    model is to be in `eval` mode and without a draw of its own, and comes back so. A few passes.
    """
    if is_frozen(model):
        return None
    for layers in _heads(model):
        head = nn.Sequential(*layers)
        inside = {id(one) for one in head.parameters()}
        kept = any(id(one) not in inside for one in model.parameters())
        if kept and len({id(layer) for layer in layers}) == len(layers) and _is_head(model, head.eval(), data):
            return Split(model, head)
    return None


def _heads(model: nn.Module) -> Iterator[list[nn.Module]]:
    """The layers that might be the head, the shortest first; each list holds all that is not frozen."""
    layers = list(_in_order(model))
    first = next(place for place, layer in enumerate(layers) if not is_frozen(layer))
    lead, behind = layers[first], layers[first + 1 :]
    alive = [child for child in lead.children() if not is_frozen(child)]
    own = any(one.requires_grad for one in lead.parameters(recurse=False)) or "" in stochastic_layers(lead)
    if len(alive) == 1 and not own and not isinstance(lead, DrawsOnce):
        for inner in _heads(alive[0]):
            yield [*inner, *behind]
    if lead is not model:
        yield [lead, *behind]


def _in_order(module: nn.Module) -> Iterator[nn.Module]:
    """The layers that a model runs one after another: those of nested `nn.Sequential`, or the model itself."""
    if type(module).forward is not nn.Sequential.forward:
        yield module
        return
    for child in module.children():
        yield from _in_order(child)


def _is_head(model: nn.Module, head: nn.Sequential, data: Any) -> bool:
    """Whether the head is all that a model does after its first layer, and draws nothing before."""
    calls: list[Any] = []
    state = torch.random.get_rng_state()
    handle = head[0].register_forward_hook(lambda _, inputs, __: calls.append(inputs))
    try:
        with torch.no_grad():
            output = model(data)
    finally:
        handle.remove()
    if len(calls) != 1 or len(calls[0]) != 1 or not isinstance(output, Tensor):
        return False
    with torch.no_grad():
        features, again = (_entering(model, head[0], data) for _ in range(2))
        if not isinstance(features, Tensor) or features.shape[:1] != (batch_size_of(data),):
            return False
        drew = not torch.equal(state, torch.random.get_rng_state())
        made = head(features.clone())
    return not drew and torch.equal(features, again) and made.shape == output.shape and torch.allclose(made, output)


class _ReachedError(Exception):
    """Carries what goes into a layer out of a model's pass."""


def _entering(model: nn.Module, layer: nn.Module, data: Any) -> Any:
    found: list[Any] = []

    def stop(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        found.append(inputs[0])
        raise _ReachedError

    handle = layer.register_forward_pre_hook(stop)
    try:
        model(data)
    except _ReachedError:
        pass
    finally:
        handle.remove()
    return found[0]

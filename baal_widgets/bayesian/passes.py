"""Passes of a model that make several draws of a batch, what comes before its first stochastic layer having run once.

The copies are made as late as they can be. Where a model merely goes on from its first stochastic layer, the input of
that layer is copied (`Copies`), and torch sees nothing but a larger batch. Where what was known before meets what comes
after, as around a residual connection, the pass is mapped over the draws (`Mapped`): what no draw has touched has no
axis for draws, and is broadcast when it meets what has.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from baal_widgets.bayesian.costs import SEQUENCES, Costs
from baal_widgets.bayesian.masks import dropped
from baal_widgets.utils.structures import leaves_of, map_structure

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
_ITEMS = {"input", "key", "memory", "query", "src", "tgt", "value"}


class Pass(Protocol):
    """What the stochastic layers of a model share while it makes several draws at once."""

    def enter(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """The arguments of a stochastic layer for all draws."""
        ...


class DrawsPerItem:
    """Mixed into a layer that can draw for each item of a batch, or each copy of one: `copies` is the pass it is in.

    `can_copy` and `can_map` are False where the model cannot do with a pass of that kind; `surveyed` is what one item
    of a size has been found to cost.
    """

    copies: Pass | None = None
    can_copy: bool = True
    can_map: bool = True
    surveyed: tuple[Any, Costs | None] | None = None

    def entered(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """The arguments of the layer, for all draws of the pass that it is in, if any."""
        return (args, kwargs) if self.copies is None else self.copies.enter(self, args, kwargs)  # type: ignore[arg-type]


class CopyError(Exception):
    """A model does more than pass one row for each item from the first stochastic layer to the last."""


@dataclass
class Copies:
    """A pass in which the input of the first stochastic layer is copied, once for each draw.

    `generators` had the `states` before the pass: where one has moved since, something before that layer was
    stochastic too, and all draws would have it in common.
    """

    items: int
    draws: int
    generators: Sequence[torch.Generator]
    states: Sequence[Tensor]
    axis: int | None = None  # where the copies lie, once they are made

    def enter(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """The arguments for all draws. Raises `CopyError` where they aren't one row for each item, or draw."""
        if isinstance(layer, SEQUENCES):
            return self._sequences(layer, args, kwargs)
        value, first = args[0], self.axis is None
        self._check(value)
        return (torch.cat([value] * self.draws) if first else value, *args[1:]), kwargs

    def masked(self, value: Tensor, p: float) -> Tensor:
        """What `torch.nn.Dropout` gives for all draws, by `dropped`, so that the copies are never held undropped."""
        first = self.axis is None
        self._check(value)
        return dropped(value, p, self.draws).flatten(0, 1) if first else dropped(value, p)[0]

    def _check(self, value: Any) -> None:
        """Refuse what isn't a row for each item, or draw once the copies are made, which is from now on."""
        rows = self.items if self.axis is None else self.items * self.draws
        if not isinstance(value, Tensor) or rows not in value.shape[: 1 + (self.axis or 0)]:
            raise CopyError
        if self.axis is None:
            self._begin(0)

    def _begin(self, axis: int) -> None:
        if not all(torch.equal(one.get_state(), was) for one, was in zip(self.generators, self.states, strict=True)):
            raise CopyError
        self.axis = axis

    def _sequences(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """torch's recurrent and attention layers say on which axis they have their items; their masks may be of all."""
        forwards = (kind for kind in type(layer).__mro__ if "forward" in vars(kind))
        kind = next(kind for kind in forwards if not issubclass(kind, DrawsPerItem))
        if not kind.__module__.startswith("torch.nn."):
            raise CopyError  # a user's own may take its items in another way
        inside = (part for part in layer.modules() if isinstance(part, (nn.RNNBase, nn.MultiheadAttention)))
        axis = 0 if next(inside).batch_first else 1
        if self.axis is None:
            self._begin(axis)
        bound = inspect.signature(kind.forward).bind(layer, *args, **kwargs)  # type: ignore[attr-defined]
        told, copied = bound.arguments, dict[int, Tensor]()
        for name, value in list(told.items())[1:]:  # all but self
            at = axis if name in _ITEMS else 0
            shared = value is None or isinstance(value, bool)
            if name.endswith("mask") and not name.endswith("key_padding_mask"):
                shared = shared or value.ndim == 2
            if shared:
                continue
            if not isinstance(value, Tensor) or value.ndim != (3 if name in _ITEMS else 2):
                raise CopyError
            if id(value) not in copied:  # the same for query and key is cheaper for attention
                copied[id(value)] = self._copied(value, at)
            told[name] = copied[id(value)]
        return bound.args[1:], bound.kwargs

    def _copied(self, value: Tensor, axis: int) -> Tensor:
        if value.shape[axis] == self.items * self.draws:
            return value
        if value.shape[axis] != self.items:
            raise CopyError
        return torch.cat([value] * self.draws, dim=axis)


@dataclass(frozen=True)
class Mapped:
    """A pass that is mapped over the draws, of which `draw` is the number: each layer sees one draw of the batch."""

    draw: Tensor

    def enter(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """The arguments, with an axis for draws where torch can't give them one by itself."""
        if isinstance(layer, nn.RNNBase):
            raise CopyError
        if not isinstance(layer, nn.MultiheadAttention) and not getattr(layer, "inplace", False):
            return args, kwargs
        first = leaves_of((args, kwargs))[0]
        spread = first + (self.draw * 0).to(first.dtype)
        args, kwargs = map_structure(lambda one: spread if one is first else one, (args, kwargs))
        return args, kwargs

"""Give a layer another class in place, and its own back: how a model is made stochastic without being rebuilt.

The layer stays the object that it is, with its name, hooks, weights and attributes, so putting it back is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, ClassVar

from torch import nn

from baal_widgets.bayesian.common import DrawsOnce


class Swapped:
    """Mixed in before the class of a layer in place, so that the layer stays the object that it is.

    A mixin that derives from this makes a class of every kind of layer by `swap`, named by the mixin's `prefix`.
    `swap_back` puts the layer's own class back and removes what the mixin added, which it names in `added`.
    """

    prefix: ClassVar[str]
    added: ClassVar[tuple[str, ...]] = ()

    def __reduce_ex__(self, protocol: Any) -> Any:
        made_of = vars(type(self)).get("_made_of")
        if made_of is None:
            return super().__reduce_ex__(protocol)
        # saving and copying would look the made class up in its module, where it is not
        reduced: tuple[Any, ...] = super().__reduce_ex__(2)  # type: ignore[assignment]
        return (_blank, made_of, *reduced[2:])

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        mixin, *kinds = cls.__bases__
        if kinds and issubclass(mixin, Swapped) and not issubclass(mixin, nn.Module):
            _written.setdefault((mixin, kinds[0]), cls)


_written: dict[tuple[type, type], type] = {}  # the classes that are there by name, such as ConsistentDropout


@cache
def swapped(mixin: type[Swapped], kind: type[nn.Module]) -> type[nn.Module]:
    """The class of layers of some kind with a mixin before it."""
    if (mixin, kind) in _written:
        return _written[mixin, kind]
    told = {"__module__": mixin.__module__, "__doc__": mixin.__doc__, "_made_of": (mixin, kind)}
    return type(f"{mixin.prefix}{kind.__name__}", (mixin, kind), told)


def swap(layer: nn.Module, mixin: type[Swapped], **attributes: Any) -> None:
    """Put a mixin before the class of a layer in place, once, and set the attributes that it works with."""
    if not isinstance(layer, mixin):
        layer.__class__ = swapped(mixin, type(layer))  # type: ignore[arg-type]  # classes are hashable
    vars(layer).update(attributes)


def swap_back(layer: nn.Module, mixin: type[Swapped]) -> None:
    """Undo `swap`. Layers that it was not done to stay, also those of a class that a user derived from a mixed one."""
    bases = type(layer).__bases__
    if bases[0] is not mixin:
        return
    if isinstance(layer, DrawsOnce):
        layer.forget_draws()
    for name in mixin.added:
        vars(layer).pop(name, None)
    layer.__class__ = bases[1]


def _blank(mixin: type[Swapped], kind: type[nn.Module]) -> nn.Module:
    made = swapped(mixin, kind)  # type: ignore[arg-type]
    return made.__new__(made)


def own_class(layer: object) -> type:
    """The class of a layer before it was swapped, however often; its class where it was not."""
    kind = type(layer)
    while (made_of := vars(kind).get("_made_of")) is not None:
        kind = made_of[1]
    return kind


@contextmanager
def holding(layer: nn.Module, **attributes: Any) -> Iterator[None]:
    """Within the block a layer has other attributes; those it had before are put back, the very objects."""
    own = {name: vars(layer)[name] for name in attributes}
    vars(layer).update(attributes)
    try:
        yield
    finally:
        vars(layer).update(own)

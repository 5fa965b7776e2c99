"""What every way of sampling from a posterior shares: a model that is made stochastic and can be put back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any, ClassVar

from torch import nn


class BayesianModule(nn.Module):
    """A stochastic version of a model, also as a context manager.

    Works on a copy of the model's structure that shares its parameters and buffers: training either trains both,
    while the caller's model stays as deterministic as it was. Subclasses name the function that makes a model
    stochastic in place and the one that undoes it.
    """

    patching_function: ClassVar[Callable[..., nn.Module]]
    unpatch_function: ClassVar[Callable[..., nn.Module]]

    def __init__(self, module: nn.Module, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.parent_module = type(self).patching_function(share_structure(module), *args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.parent_module(*args, **kwargs)

    def unpatch(self) -> nn.Module:
        """The deterministic model again."""
        self.parent_module = type(self).unpatch_function(self.parent_module)
        return self.parent_module

    def __enter__(self) -> BayesianModule:
        return self

    def __exit__(self, *_: object) -> None:
        self.unpatch()


def share_structure(module: nn.Module) -> nn.Module:
    """A copy of a model's modules that holds the very same parameters and buffers. Costs no tensor memory.

    Modules used in several places stay shared among them. Lists of layers, and methods put in a model's `forward`,
    lead to the copies. A closure over the model cannot be seen into and still runs the original.
    """
    twins: dict[int, nn.Module] = {}
    twin = _twin(module, twins)
    for one in twins.values():
        one.__dict__.update({name: _led(value, twins) for name, value in one.__dict__.items() if name != "_modules"})
    return twin


def _twin(module: nn.Module, twins: dict[int, nn.Module]) -> nn.Module:
    if id(module) not in twins:
        twin = twins[id(module)] = copy.copy(module)
        children = {name: None if child is None else _twin(child, twins) for name, child in module._modules.items()}
        twin.__dict__["_modules"] = children
        # the dicts themselves are shared, so that a parameter replaced by `.to(device)` is replaced in both
        twin.__dict__["_parameters"] = module._parameters
        twin.__dict__["_buffers"] = module._buffers
    return twins[id(module)]


def _led(value: Any, twins: dict[int, nn.Module]) -> Any:
    """What an attribute holds, with the twins of modules in their place; the very same where there are none."""
    if isinstance(value, nn.Module):
        return twins.get(id(value), value)
    if isinstance(value, MethodType):
        return MethodType(value.__func__, _led(value.__self__, twins))
    if type(value) is partial:
        return partial(_led(value.func, twins), *(_led(one, twins) for one in value.args), **value.keywords)
    if type(value) in (list, tuple) and any(isinstance(one, nn.Module) for one in value):
        return type(value)(_led(one, twins) for one in value)
    if type(value) is dict and any(isinstance(one, nn.Module) for one in value.values()):
        return {key: _led(one, twins) for key, one in value.items()}
    return value

"""What every way of sampling from a posterior shares: a model that is made stochastic and can be put back."""

from __future__ import annotations

import copy
from collections.abc import Callable
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


def share_structure(module: nn.Module, memo: dict[int, nn.Module] | None = None) -> nn.Module:
    """A copy of a model's modules that holds the very same parameters and buffers. Costs no tensor memory.

    Modules used in several places stay shared among them.
    """
    memo = {} if memo is None else memo
    if id(module) not in memo:
        twin = copy.copy(module)
        memo[id(module)] = twin
        children = {
            name: None if child is None else share_structure(child, memo) for name, child in module._modules.items()
        }
        twin.__dict__["_modules"] = children
        # the dicts themselves are shared, so that a parameter replaced by `.to(device)` is replaced in both
        twin.__dict__["_parameters"] = module._parameters
        twin.__dict__["_buffers"] = module._buffers
    return memo[id(module)]

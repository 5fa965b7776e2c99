"""What every way of sampling from a posterior shares.

A posterior is a module that wraps a model, trains as the model does, and of which `sample` gives draws. Where a draw
comes from is its own affair: masks that fall anew for each item (`dropout`), weights drawn once for a whole
call (parts that are `DrawsOnce`), or something fitted after training (`fit`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MethodType
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from baal_widgets.bayesian.passes import DrawsPerItem
from baal_widgets.devices import device_of
from baal_widgets.utils.structures import map_structure


class BayesianModule(nn.Module):
    """A stochastic version of a model, also as a context manager.

    Works on a copy of the model's structure that shares its parameters and buffers: training either trains both,
    while the caller's model stays as deterministic as it was. Subclasses name the function that makes a model
    stochastic in place and the one that undoes it; those whose draws come another way override `sample`, and `fit`
    where something is to be fitted.

    In training mode a call is the model's own training pass; in `eval` mode it is one draw.
    """

    patching_function: ClassVar[Callable[..., nn.Module]]
    unpatch_function: ClassVar[Callable[..., nn.Module]]
    fitted: ClassVar[tuple[str, ...]] = ()  # the attributes that `fit` sets

    def __init__(self, module: nn.Module, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.parent_module = type(self).patching_function(share_structure(module), *args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.parent_module(*args, **kwargs)

    def sample(self, data: Any, draws: int, replicate: bool = True) -> Any:
        """Predictions of a batch by `draws` models from the posterior: `[item, class, ..., draw]`.

        Draw t is one and the same model for every batch until `redraw`, where whole models are drawn.
        """
        return sample_calls(self, data, draws, replicate)

    def fit(
        self,
        dataset: Dataset[Any],
        *,
        criterion: Callable[[Any, Any], torch.Tensor] | None = None,
        batch_size: int = 32,
        collate_fn: Callable[..., Any] | None = None,
        train: Callable[[], None] | None = None,
    ) -> None:
        """What is to be done once the model is trained on `dataset`, `(input, target)` pairs; nothing for most.

        `train` trains the model again from new weights, for those that need several.
        """

    def fitted_state(self) -> dict[str, Any]:
        """What `fit` has set, by name: it belongs to the weights that it was fitted to, and is not in `state_dict`."""
        return {name: getattr(self, name) for name in self.fitted}

    def load_fitted_state(self, state: Mapping[str, Any]) -> None:
        """Take over a copy of what another such module had fitted to the weights that this one has now."""
        for name in self.fitted:
            value = copy.deepcopy(state[name])
            if name in self._buffers and value is not None:
                value = value.to(device_of(self.parent_module))
            setattr(self, name, value)
        redraw(self)

    def penalty(self, n_items: int) -> torch.Tensor | None:
        """What training adds to the mean loss over `n_items` labelled items, if anything."""
        return None

    def unpatch(self) -> nn.Module:
        """The deterministic model again."""
        self.parent_module = type(self).unpatch_function(self.parent_module)
        return self.parent_module

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.unpatch()


class DrawsOnce:
    """Mixed into a layer that draws once for a call, the same for all items in it: weights, or a mask for all.

    Left alone, each call draws anew. While `use_draw(t)` is in force a call is draw number t, the same one
    whenever it is asked for until `redraw`. Seeds come from torch's global generator, so `torch.manual_seed` governs.
    """

    _draw: int | None = None
    _seed: int | None = None

    def use_draw(self, number: int | None) -> None:
        """Let the next calls be draw `number`; `None` draws anew for each."""
        self._draw = number

    def redraw(self) -> None:
        """Forget the numbered draws: from now on other ones bear the numbers."""
        self._seed = None

    def draw_generator(self, device: torch.device | str) -> torch.Generator:
        """The generator that this call's draw is to be made with."""
        if self._draw is None:
            seed = _fresh_seed()
        else:
            self._seed = _fresh_seed() if self._seed is None else self._seed
            seed = int(np.random.SeedSequence([self._seed, self._draw]).generate_state(1, np.uint64)[0] >> 1)
        return torch.Generator(device).manual_seed(seed)

    def forget_draws(self) -> None:
        """Leave nothing of the above in the layer, for when it is put back."""
        self.__dict__.pop("_draw", None)
        self.__dict__.pop("_seed", None)


def sample(model: nn.Module, data: Any, draws: int, replicate: bool = True) -> Any:
    """Predictions of a batch by any stochastic model, `[item, class, ..., draw]`, as nested as its output.

    With `replicate` draws that differ for each item run as one batch `draws` times as large. An ensemble gives as many
    draws as it has members.
    """
    if draws < 1:
        raise ValueError(f"Expected a number of draws from 1 on, got {draws}.")
    if _is_compiled(model) and any(isinstance(part, DrawsPerItem) for part in model.modules()):
        check_not_compiled(model)
    if isinstance(model, BayesianModule):
        return model.sample(data, draws, replicate)
    return sample_calls(model, data, draws, replicate)


def sample_calls(model: nn.Module, data: Any, draws: int, replicate: bool = True) -> Any:
    """`sample` by calling the model, once for each draw or once for all of them."""
    if draws > 1 and replicate and draw_together(model):
        # built upon what is here
        from baal_widgets.bayesian.together import all_draws

        output = all_draws(model, data, draws)
        if output is not None:
            return output
    outputs = []
    for number in range(draws):
        with draw_number(model, number):
            outputs.append(model(data))
    return map_structure(lambda *each: torch.stack(each, dim=-1), *outputs)


def draws_once(model: nn.Module) -> bool:
    """Whether a call of the model is one draw for all of its items, so that draws can't be put in one batch."""
    return any(isinstance(part, DrawsOnce) for part in model.modules())


def draw_together(model: nn.Module) -> bool:
    """Whether several draws can be put in one batch: those that draw once do so by masks."""
    parts = [part for part in model.modules() if isinstance(part, DrawsOnce)]
    return all(isinstance(part, DrawsPerItem) and not vars(part)["training"] for part in parts)


@contextmanager
def draw_number(model: nn.Module, number: int) -> Iterator[None]:
    """Within the block all parts of the model make the draw of that number."""
    parts = [part for part in model.modules() if isinstance(part, DrawsOnce)]
    try:
        for part in parts:
            part.use_draw(number)
        yield
    finally:
        for part in parts:
            part.use_draw(None)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within the block the model is in `eval` mode; afterwards each of its parts is in its own again."""
    # not `.training`, which dropout that stays on says is always so
    modes = [(part, vars(part)["training"]) for part in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for part, mode in modes:
            vars(part)["training"] = mode


def redraw(model: nn.Module) -> None:
    """Let the next samples come from other models of the posterior than the last ones."""
    for part in model.modules():
        if isinstance(part, DrawsOnce):
            part.redraw()


def _fresh_seed() -> int:
    return int(torch.randint(2**62, ()).item())


def replace_layers_in_module(
    module: nn.Module, mapping_fn: Callable[..., nn.Module | None], *args: Any, **kwargs: Any
) -> bool:
    """Put other layers in a model's place of those that `mapping_fn(layer, *args, **kwargs)` gives any for, in place.

    Whether any was replaced. The model itself is not asked about. The layers of a new layer are left alone.
    """
    changed = False
    for name, child in list(module.named_children()):
        new = mapping_fn(child, *args, **kwargs)
        if new is not None:
            new.train(child.training)
            setattr(module, name, new)
            changed = True
        else:
            changed |= replace_layers_in_module(child, mapping_fn, *args, **kwargs)
    return changed


def share_structure(module: nn.Module) -> nn.Module:
    """A copy of a model's modules that holds the very same parameters and buffers. Costs no tensor memory.

    Modules used in several places stay shared among them. Lists of layers, and methods put in a model's `forward`,
    lead to the copies. A closure over the model cannot be seen into and still runs the original. Raises `ValueError`
    for a compiled model, which is one.
    """
    check_not_compiled(module)
    twins: dict[int, nn.Module] = {}
    twin = _twin(module, twins)
    for one in twins.values():
        one.__dict__.update({name: _led(value, twins) for name, value in one.__dict__.items() if name != "_modules"})
    return twin


def check_not_compiled(model: nn.Module) -> None:
    """Raises `ValueError` for a model with parts from `torch.compile`, which run as they were traced."""
    compiled = [name for name, part in model.named_modules() if _is_compiled(part)]
    if compiled:
        raise ValueError(
            f"Expected a model that is not compiled, got one from torch.compile{' at ' if compiled[0] else ''}"
            f"{compiled[0]}: what was traced once would give the same in each draw. Give the model as it was before."
        )


def _is_compiled(module: nn.Module) -> bool:
    # by name: to import the class is to import the compiler
    return type(module).__name__ == "OptimizedModule" and type(module).__module__.startswith("torch._dynamo")


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

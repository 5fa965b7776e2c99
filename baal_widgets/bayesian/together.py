"""All draws of a batch together: by the pass that does least work twice, for as many items as memory is meant for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from torch.func import vmap

from baal_widgets.bayesian.common import DrawsOnce, share_structure
from baal_widgets.bayesian.costs import Costs, Survey
from baal_widgets.bayesian.passes import Copies, DrawsPerItem, Mapped, Pass
from baal_widgets.devices import device_of, is_out_of_memory, parts_of
from baal_widgets.utils.structures import batch_size_of, joined_items, leaves_of, map_structure

MIB = 2**20
BUDGETS = {"cpu": 192 * MIB, "cuda": 4096 * MIB}
"""Bytes that a pass may take beside the weights, by the kind of device, where `within_budget` says nothing."""
# What a call of torch costs more when it is mapped, in operations that could have been done instead.
_MAPPING = 2e6

_budget: ContextVar[int | None] = ContextVar("budget", default=None)


@contextmanager
def within_budget(size: int | None) -> Iterator[None]:
    """Within the block the draws of a batch are made for no more items at once than fit in so many bytes.

    `None` is a default for the device. A single item with all its draws may take more. Random numbers are drawn pass by
    pass: the same seed gives the same draws for the same batches and budget, and others of the same distribution for
    another budget. Draws that all items have in common don't depend on it.
    """
    token = _budget.set(size)
    try:
        yield
    finally:
        _budget.reset(token)


def items_at_once(model: nn.Module, data: Any, draws: int) -> int | None:
    """How many items like those of a batch have all their draws made in one pass; `None` where nobody can tell.

    Takes a pass of one item the first time that a model sees items of a size.
    """
    parts = stochastic_parts(model)
    costs = _surveyed(model, parts, data) if parts else None
    if costs is None:
        return None
    size = _budget.get()
    size = BUDGETS.get(device_of(model).type, BUDGETS["cpu"]) if size is None else size
    if all(part.can_copy for part in parts) or _mappable(parts, costs, draws, batch_size_of(data)):
        return costs.items_at_once(draws, size)
    return max(1, size // max(draws * max(costs.bytes_before, costs.bytes_after), 1))


def items_for_speed(model: nn.Module, data: Any, draws: int, size: int | None = None) -> int:
    """How many items are best passed through a model together, so that its weights are read seldom; 0 if unknown.

    A quarter of the budget `size`: batches are not made larger at any price.
    """
    kind = device_of(model).type
    with within_budget((BUDGETS.get(kind, BUDGETS["cpu"]) if size is None else size) // 4):
        most = items_at_once(model, data, draws)
    return 0 if most is None else min(most, 64 if kind == "cpu" else 512)


def all_draws(model: nn.Module, data: Any, draws: int) -> Any:
    """Draws `[item, class, ..., draw]` of a batch, made together; `None` where the model can't do with that."""
    most = items_at_once(model, data, draws)
    outputs = []
    for part in [data] if most is None else parts_of(data, most):
        output = _in_one_pass(model, part, draws)
        if output is None:
            return None
        outputs.append(output)
    return joined_items(outputs, axes=2)


def stochastic_parts(model: nn.Module) -> list[DrawsPerItem]:
    return [part for part in model.modules() if isinstance(part, DrawsPerItem)]


def _in_one_pass(model: nn.Module, data: Any, draws: int) -> Any:
    size, parts = batch_size_of(data), stochastic_parts(model)
    if parts and all(part.can_copy for part in parts):
        output = _tried(model, parts, "can_copy", lambda states: _copied_late(model, parts, data, draws, states))
        if output is not None:
            return _unfolded(output, size, draws)
    if parts and _mappable(parts, _surveyed(model, parts, data), draws, size):
        output = _tried(model, parts, "can_map", lambda _: _mapped(model, parts, data, draws))
        if output is not None:
            return output
    if any(isinstance(part, DrawsOnce) for part in parts):
        return None  # copies of an item would not be told apart
    output = model(map_structure(lambda one: torch.cat([one] * draws) if one.ndim else one, data))
    # a number for the whole batch is one for all of its draws
    return _unfolded(output, size, draws) if all(one.ndim for one in leaves_of(output)) else None


def _copied_late(
    model: nn.Module, parts: Sequence[DrawsPerItem], data: Any, draws: int, states: Sequence[torch.Tensor]
) -> Any:
    size = batch_size_of(data)
    with _sharing(parts, Copies(size, draws, generators_of(model), states)):
        output = model(data)
    return output if {one.shape[:1] for one in leaves_of(output)} == {(size * draws,)} else None


def _mapped(model: nn.Module, parts: Sequence[DrawsPerItem], data: Any, draws: int) -> Any:
    built: list[Any] = []

    def one_draw(number: torch.Tensor) -> list[torch.Tensor]:
        with _sharing(parts, Mapped(number)):
            built.append(model(data))
        return leaves_of(built[-1])

    numbers = torch.arange(draws, device=device_of(model))
    leaves = iter(vmap(one_draw, randomness="different")(numbers))
    return map_structure(lambda _: next(leaves).movedim(0, -1).contiguous(), built[-1])


def _tried(
    model: nn.Module, parts: Sequence[DrawsPerItem], kind: str, run: Callable[[Sequence[torch.Tensor]], Any]
) -> Any:
    """What a pass gives, or `None` where the model can't do with it: then it isn't tried again.

    torch's generators are then as they were, so that nobody can tell by the numbers which models were tried before.
    """
    generators, (states, seeds) = generators_of(model), _states(model, parts)
    try:
        output = run(states)
        if output is not None:
            return output
    except Exception as error:  # a model may check the sizes in whatever way it likes
        if is_out_of_memory(error):
            raise
    _put_back(generators, states, seeds)
    for part in parts:
        setattr(part, kind, False)
    return None


def _mappable(parts: Sequence[DrawsPerItem], costs: Costs | None, draws: int, size: int) -> bool:
    """Whether a mapped pass is thought to save more than it costs."""
    # a mapped pass has no way to make masks with generators of their own
    able = all(part.can_map and not isinstance(part, DrawsOnce) for part in parts)
    if costs is None or not costs.quiet or not able:
        return False
    whole = draws * size * (costs.flops_before + costs.flops_after)
    saved = (draws - 1) * size * costs.flops_before - costs.calls * _MAPPING
    return saved > 0.05 * whole


def _surveyed(model: nn.Module, parts: Sequence[DrawsPerItem], data: Any) -> Costs | None:
    """What an item of the batch costs, or one of about its size; `None` where a single one can't be passed alone."""
    # asked of the dict: dropout that stays on says that it is training
    if any(vars(part)["training"] for part in model.modules()):
        return None
    kind = device_of(model).type, *(one[:1].numel().bit_length() for one in leaves_of(data) if one.ndim)
    known = parts[0].surveyed
    if known is None or known[0] != kind:
        known = parts[0].surveyed = kind, _survey(model, data)
    return known[1]


def _survey(model: nn.Module, data: Any) -> Costs | None:
    survey = Survey([*model.parameters(), *model.buffers()])
    try:
        with aside(model) as twin, _sharing(stochastic_parts(twin), survey), survey:
            twin(map_structure(lambda one: one[:1] if one.ndim else one, data))
    except Exception as error:  # a model may want more items than one
        if is_out_of_memory(error):
            raise
        return None
    return survey.costs


@contextmanager
def aside(model: nn.Module) -> Iterator[nn.Module]:
    """A copy of a model, with the same weights and without hooks, whose passes within the block are nobody's business.

    torch's generators come back as they were.
    """
    generators, states = generators_of(model), [one.get_state() for one in generators_of(model)]
    twin = share_structure(model)
    for part in twin.modules():
        vars(part).update(_forward_hooks=OrderedDict(), _forward_pre_hooks=OrderedDict())
    try:
        with torch.no_grad():
            yield twin
    finally:
        _put_back(generators, states, [])


@contextmanager
def _sharing(parts: Sequence[DrawsPerItem], copies: Pass) -> Iterator[None]:
    try:
        for part in parts:
            part.copies = copies
        yield
    finally:
        for part in parts:
            part.copies = None


def generators_of(model: nn.Module) -> list[torch.Generator]:
    """Those that torch draws from by itself in a model, where it is."""
    device = device_of(model)
    own = [torch.cuda.default_generators[device.index]] if device.type == "cuda" else []
    return [torch.default_generator, *own]


Seeds = list[tuple[Any, Any]]


def _states(model: nn.Module, parts: Sequence[DrawsPerItem]) -> tuple[list[torch.Tensor], Seeds]:
    """Where torch's generators are, and what seeds the layers have that number their draws."""
    seeds = [(part, vars(part).get("_seed")) for part in parts if isinstance(part, DrawsOnce)]
    return [one.get_state() for one in generators_of(model)], seeds


def _put_back(generators: Sequence[torch.Generator], states: Sequence[torch.Tensor], seeds: Seeds) -> None:
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
    for part, seed in seeds:
        part._seed = seed


def _unfolded(output: Any, size: int, draws: int) -> Any:
    return map_structure(lambda one: one.reshape(draws, size, *one.shape[1:]).movedim(0, -1).contiguous(), output)

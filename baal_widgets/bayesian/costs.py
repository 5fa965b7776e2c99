"""What a pass of a model costs, before its first stochastic layer and after it: what is to be gained by a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from baal_widgets.utils.structures import leaves_of

SEQUENCES: tuple[type[nn.Module], ...] = (
    nn.RNNBase,
    nn.MultiheadAttention,
    nn.TransformerEncoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)
"""torch's layers that may drop inside, of which it is known on which axis they have their items."""


@dataclass(frozen=True)
class Costs:
    """Of one item in one draw: operations, calls of torch, and bytes that one of those takes and gives at most.

    `quiet` is whether no random number was drawn before the first stochastic layer. Weights are not in the bytes.
    """

    flops_before: float = 0.0
    flops_after: float = 0.0
    calls: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    quiet: bool = True

    def items_at_once(self, draws: int, budget: int) -> int:
        """How many items have all their draws made together within a budget of bytes; one at least."""
        return max(1, budget // max(self.bytes_before + draws * self.bytes_after, 1))


class Survey(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what a pass of one item costs. Stochastic layers `enter` it as they do the passes that it is made for."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._weights = {one.untyped_storage().data_ptr() for one in weights}
        self._flops, self._bytes, self._calls = [0.0, 0.0], [0, 0], 0
        self._after, self._entered, self._quiet = 0, False, True

    def enter(
        self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self._entered = True
        if isinstance(layer, SEQUENCES):  # copied on their way in, as a whole
            self._after = 1
        return args, kwargs

    @property
    def costs(self) -> Costs:
        before, after = zip(self._flops, self._bytes, strict=True)
        return Costs(before[0], after[0], self._calls, before[1], after[1], self._quiet)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        given, taken = _tensors(out), _tensors((args, kwargs))
        count: Callable[..., float] | None = flop_registry.get(func._overloadpacket)
        flops = count(*args, **kwargs, out_val=out) if count is not None else sum(one.numel() for one in given)
        if torch.Tag.nondeterministic_seeded in func.tags:
            self._quiet, self._after = self._quiet and self._entered, 1
        self._flops[self._after] += flops
        self._calls += 1
        storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in [*taken, *given]}
        held = sum(size for place, size in storages.items() if place not in self._weights)
        self._bytes[self._after] = max(self._bytes[self._after], held)
        return out


def _tensors(values: Any) -> list[Tensor]:
    return [one for one in leaves_of(values) if one.layout == torch.strided]

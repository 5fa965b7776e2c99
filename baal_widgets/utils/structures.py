"""Batches as models take and give them: tensors, or nests of dicts and sequences of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def map_structure(function: Callable[..., Any], *values: Any) -> Any:
    """Apply a function to the tensors of equally built nests of dicts and sequences; other leaves stay."""
    first = values[0]
    if isinstance(first, Tensor):
        return function(*values)
    if isinstance(first, Mapping):
        return {key: map_structure(function, *(value[key] for value in values)) for key in first}
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(map_structure(function, *parts) for parts in zip(*values, strict=True)))
    if isinstance(first, (list, tuple)):
        return type(first)(map_structure(function, *parts) for parts in zip(*values, strict=True))
    return first


def to_device(data: Any, device: torch.device) -> Any:
    return map_structure(lambda one: one.to(device), data)


def as_arrays(draws: Any, dtype: Any) -> Any:
    """NumPy arrays of draws: one, or a list of them for a model of several outputs."""
    if isinstance(draws, Tensor):
        array = draws.detach().float().cpu().numpy() if draws.dtype == torch.bfloat16 else draws.detach().cpu().numpy()
        return array if dtype is None else array.astype(dtype)
    values = draws.values() if isinstance(draws, Mapping) else draws
    return [as_arrays(one, dtype) for one in values if one is not None]


TARGETS = ("label", "labels", "target", "targets")
"""What the target is called in an item that is a dict."""


def inputs_of(batch: Any) -> Any:
    """The inputs of a batch that may be a pair with targets, or a dict with them; inputs alone come back.

    A list of several inputs and a target is such a pair.
    """
    if isinstance(batch, Mapping):
        return {name: value for name, value in batch.items() if name not in TARGETS}
    return batch[0] if isinstance(batch, (list, tuple)) else batch


def inputs_and_targets(batch: Any) -> tuple[Any, Any]:
    """A batch to train on: a pair, or a dict that holds the target under one of the usual names."""
    if isinstance(batch, Mapping) and len(found := [name for name in TARGETS if name in batch]) == 1:
        return inputs_of(batch), batch[found[0]]
    if isinstance(batch, (list, tuple)) and len(batch) == 2:
        return batch[0], batch[1]
    came = f"the keys {list(batch)}" if isinstance(batch, Mapping) else f"a {type(batch).__name__}"
    if isinstance(batch, (list, tuple)):
        came += f" of {len(batch)}"
    raise ValueError(
        f"Expected batches (inputs, targets), or dicts with one of {', '.join(TARGETS)}, got {came}. For others pass a "
        "collate_fn that makes such pairs; several inputs go in a list or dict, several targets too."
    )


def leaves_of(data: Any) -> list[Tensor]:
    """The tensors of a nest, in its order."""
    leaves: list[Tensor] = []
    map_structure(leaves.append, data)
    return leaves


def batch_size_of(data: Any) -> int:
    """How many items a batch holds: the length of its first tensor that has any axis."""
    sizes = [len(one) for one in leaves_of(data) if one.ndim]
    if not sizes:
        raise ValueError(
            f"Expected a batch with a tensor in it that has an axis for items, got a {type(data).__name__} without. "
            "Pass a collate_fn that makes tensors."
        )
    return sizes[0]


def joined(parts: Sequence[Any], dim: int) -> Any:
    """Outputs of the same kind as one, along an axis; the very same where there is one."""
    return parts[0] if len(parts) == 1 else map_structure(lambda *each: torch.cat(each, dim=dim), *parts)


def joined_items(parts: Sequence[Any], axes: int) -> Any:
    """Outputs for parts of a batch as one; those of fewer axes are of the whole batch, and averaged."""
    if len(parts) == 1:
        return parts[0]
    return map_structure(
        lambda *each: torch.cat(each) if each[0].ndim >= axes else torch.stack(each).float().mean(dim=0), *parts
    )


@dataclass(frozen=True)
class Group:
    """Batches as one, and how many items each had."""

    whole: Any
    sizes: tuple[int, ...]

    def split(self, outputs: Any) -> Iterator[Any]:
        """The outputs for each of the batches, which are rows as the items were."""
        if len(self.sizes) == 1:
            yield outputs
            return
        first = 0
        for size in self.sizes:
            yield map_structure(lambda one, at=first, size=size: one[at : at + size], outputs)
            first += size


def regrouped(batches: Iterable[Any], limit: Callable[[], int]) -> Iterator[Group]:
    """Batches in their order, as many of them in one as have no more items than the limit of the moment.

    Only batches of tensors that differ in nothing but their number of items come together.
    """
    held: list[Any] = []
    for batch in batches:
        most = limit()
        alike = held and _kind(batch) is not None and _kind(batch) == _kind(held[0])
        if held and not (alike and sum(map(batch_size_of, [*held, batch])) <= most):
            yield _group(held)
            held = []
        held.append(batch)
        if batch_size_of(batch) >= limit():
            yield _group(held)
            held = []
    if held:
        yield _group(held)


def _group(batches: Sequence[Any]) -> Group:
    return Group(joined(batches, dim=0), tuple(map(batch_size_of, batches)))


def _kind(data: Any) -> Any:
    """What batches have in common that can be put together: the form of an item; `None` where they can't be."""
    if isinstance(data, Tensor):
        return (data.shape[1:], data.dtype) if data.ndim else None
    if isinstance(data, Mapping):
        kinds: tuple[Any, ...] = tuple(_kind(one) for one in data.values())
        return None if None in kinds else (tuple(data), kinds)
    if isinstance(data, (list, tuple)):
        kinds = tuple(_kind(one) for one in data)
        return None if None in kinds or not kinds else kinds
    return None

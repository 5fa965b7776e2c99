"""Baal's walk over nested batches, at Baal's path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from baal_widgets.utils.structures import map_structure


def map_on_tensor(function: Callable[[Tensor], Any], value: Any) -> Any:
    """The same nest of dicts and sequences with the function applied to its tensors; other leaves stay."""
    return map_structure(function, value)

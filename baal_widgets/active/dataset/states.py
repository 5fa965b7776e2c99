"""States of datasets, saved in types that a safe loader knows."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from baal_widgets.active.dataset.base import as_generator


def generator_in(state: Any) -> np.random.Generator:
    """A generator that goes on from a saved state, ours or Baal's, and leaves that as it is."""
    if isinstance(state, np.random.RandomState):
        return as_generator(copy.deepcopy(state))
    name = state.get("bit_generator") if isinstance(state, Mapping) else None
    kind = getattr(np.random, str(name), None)
    # the name comes from a file: nothing else of numpy is to be called by it
    if not isinstance(kind, type) or not issubclass(kind, np.random.BitGenerator):
        raise ValueError(
            f"Expected the random state that state_dict() gives, or Baal's RandomState, got {state!r:.100}."
        )
    generator = np.random.Generator(kind())
    generator.bit_generator.state = state
    return generator


def plain(value: Any) -> Any:
    """A copy in types that a safe loader knows."""
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    return value.item() if isinstance(value, np.generic) else copied(value)


def copied(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)

"""Baal's way to the GPU, at Baal's path."""

from __future__ import annotations

from typing import Any

import torch

from baal_widgets.utils.structures import to_device


def to_cuda(data: Any) -> Any:
    """The same nest of dicts and sequences with its tensors on the GPU; where there is none, as they are."""
    return to_device(data, torch.device("cuda")) if torch.cuda.is_available() else data

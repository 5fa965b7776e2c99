"""What a model is computed in when it predicts: float32 as it was trained in, or something faster that ranks alike.

Training always is in float32. Half precision is torch's autocast, so that weights stay as they are; `channels_last`
lays out the images, and torch the weights for each pass, which pays where batches are large: on a CPU that is so
known that nobody has to ask for it (`laid_out_for`), elsewhere it is measured. There is no
`torch.inference_mode` here: what a model keeps from such a pass, such as a table of positions, can't be trained with
afterwards, and it was no faster than `torch.no_grad`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from baal_widgets.bayesian.caching_utils import Cached, LRUCacheModule
from baal_widgets.bayesian.layout import channels_last, laid_out_for
from baal_widgets.devices import device_of
from baal_widgets.utils.structures import leaves_of, map_structure

Names = tuple[str, ...]
HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
KNOWN = (*HALVES, "channels_last")
RULES = ("auto", "measured", "plain")


@dataclass(frozen=True)
class Trial:
    """What came of an arithmetic: seconds for the items it was tried on, and how far it ranks them as float32 does.

    `correlation` is the least rank correlation of any score, `overlap` the least share of the tenth to be asked first.
    Numbers that it was refused before they were known are `None`.
    """

    names: Names
    seconds: float | None
    correlation: float | None
    overlap: float | None
    verdict: str


@dataclass(frozen=True)
class Arithmetic:
    """What a model is computed in when it predicts, `names` of `KNOWN` or none for plain, and why.

    `trials` are those of plain first, each on the same `items`; there are none where nothing was measured.
    """

    names: Names = ()
    why: str = "plain unless asked for"
    trials: tuple[Trial, ...] = ()
    items: int = 0

    def __str__(self) -> str:
        lines = [f"{called(self.names)}: {self.why}"]
        for one in self.trials:
            seconds = "not timed" if one.seconds is None else f"{one.seconds:.4g} s for {self.items} items"
            lines.append(f"  {called(one.names)}: {seconds}, {one.verdict}")
        return "\n".join(lines)


def called(names: Names) -> str:
    return " and ".join(names) or "plain"


def named(asked: str | Sequence[str]) -> Names:
    """The names of an arithmetic that is asked for by name, in one order. Raises `ValueError` for unknown ones.

    >>> named(["channels_last", "bfloat16"])
    ('bfloat16', 'channels_last')
    >>> named("plain")
    ()
    """
    wanted = [asked] if isinstance(asked, str) else list(asked)
    wanted = [] if wanted == ["plain"] else wanted
    unknown = [name for name in wanted if name not in KNOWN]
    if unknown or len(set(wanted) & set(HALVES)) > 1:
        raise ValueError(
            f"Expected arithmetic to be one of {', '.join(RULES)}, or names among {', '.join(KNOWN)} with at most one "
            f"half precision, got {asked!r}."
        )
    return tuple(name for name in KNOWN if name in wanted)


def candidates(model: nn.Module, data: Any) -> list[Names]:
    """What may be faster than plain where the model is, for such a batch: the most promising first.

    None for a model that remembers its last call: what it remembers was computed in whatever was in use then.
    """
    if any(isinstance(one, (Cached, LRUCacheModule)) for one in model.modules()):
        return []
    device = device_of(model)
    images = any(one.ndim == 4 for one in leaves_of(data)) and any(isinstance(m, nn.Conv2d) for m in model.modules())
    layout: Names = ("channels_last",) if images and laid_out_for(model, data) is data else ()  # else it is plain
    single = all(one.dtype == torch.float32 for one in model.parameters() if one.is_floating_point())
    found: list[Names] = [(half, *layout) for half in (_native_halves(device) if single else ())]
    return [*found, layout] if layout else found


def kind_of(model: nn.Module) -> Any:
    """What models have in common that take the same time: where they are, their layers and the sizes of weights."""
    return str(device_of(model)), *map(type, model.modules()), *(one.shape for one in model.parameters())


def _native_halves(device: torch.device) -> Sequence[str]:
    """The half precisions that the device computes in by itself; others are emulated, and slow."""
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)  # Ampere; ROCm's numbers are higher
        return ("bfloat16", "float16") if native else ("float16",)
    # no public name says so, and this one may go
    asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return ("bfloat16",) if device.type == "cpu" and asked is not None and asked() else ()


@contextmanager
def computing(names: Names, device: torch.device) -> Iterator[None]:
    """Within the block torch computes in the half precision that is among the names, if any."""
    half = next((HALVES[name] for name in names if name in HALVES), None)
    with nullcontext() if half is None else torch.autocast(device.type, half):
        yield


def laid_out(names: Names, model: nn.Module, data: Any) -> Any:
    """A batch with its images in the layout that the names ask for, else in the one that is faster on a CPU."""
    return channels_last(data) if "channels_last" in names else laid_out_for(model, data)


def widened(names: Names, draws: Any) -> Any:
    """Draws in float32 that were computed in half of it; those of a model that is plain come back as they are."""

    def wide(one: Tensor) -> Tensor:
        return one.float() if one.dtype in HALVES.values() else one

    return map_structure(wide, draws) if set(names) & set(HALVES) else draws


def overflowed(names: Names, draws: Any) -> bool:
    """Whether numbers grew too large for float16, whose range is short, or came out as none for any other reason."""
    return "float16" in names and not all(bool(one.isfinite().all()) for one in leaves_of(draws))

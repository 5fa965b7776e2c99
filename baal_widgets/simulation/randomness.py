"""Chance that is counted rather than consumed: a number is a hash of what it is for.

Nothing here has a state. What a seed draws for a purpose is the same whatever else was drawn before or beside it, in
whatever order, on whatever device; so runs can share a computation and still be paired. The hash is the finaliser of
SplitMix64 (Steele, Lea & Flood, 2014), its streams begin at BLAKE2 digests.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor


def streams(seeds: Sequence[int], purpose: str, *counters: int, device: torch.device | None = None) -> Tensor:
    """Where each seed's stream for the purpose begins, int64 `[seed]`; `counters` number rounds, epochs and the like.

    >>> one, other = streams([0, 1], "weights")
    >>> bool(one == streams([0], "weights")[0]), bool(one == other)
    (True, False)
    """
    return torch.tensor([_start(seed, purpose, counters) for seed in seeds], dtype=torch.int64, device=device)


def generator(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """A generator of NumPy's for what takes one, begun like the stream of the same name."""
    return np.random.default_rng(_start(seed, purpose, counters) % 2**64)


def bits(starts: Tensor, n: int) -> Tensor:
    """The first `n` numbers of each stream, int64 `[stream, n]`: 64 random bits each."""
    z = torch.arange(1, n + 1, device=starts.device) * _signed(0x9E3779B97F4A7C15)
    z = z + starts[:, None]
    z ^= _shifted(z, 30)
    z *= _signed(0xBF58476D1CE4E5B9)
    z ^= _shifted(z, 27)
    z *= _signed(0x94D049BB133111EB)
    z ^= _shifted(z, 31)
    return z


def uniform(starts: Tensor, n: int) -> Tensor:
    """The first `n` numbers of each stream between 0 and 1, 1 excluded: float32 `[stream, n]`, multiples of 2^-24."""
    return _shifted(bits(starts, n), 40).float() * 2.0**-24


def order(starts: Tensor, n: int) -> Tensor:
    """A random order of `n` things for each stream, int64 `[stream, n]`."""
    return bits(starts, n).argsort(dim=1, stable=True)


def masks(starts: Tensor, n: int, dropped: float) -> Tensor:
    """Dropout's factors, float32 `[stream, n]`: 0 for the share `dropped`, the others scaled up to a mean of 1.

    The share is rounded to a multiple of 2^-16, a quarter of a hash being enough for one factor.

    >>> masks(streams([0], "example"), 5, 0.0).tolist()
    [[1.0, 1.0, 1.0, 1.0, 1.0]]
    """
    quarters = bits(starts, -(-n // 4)).view(torch.int16)[:, :n]
    return (quarters >= round(dropped * 2**16) - 2**15).float().mul_(1 / (1 - dropped))


def _start(seed: int, purpose: str, counters: Sequence[int]) -> int:
    told = "/".join([purpose, str(int(seed)), *(str(int(counter)) for counter in counters)])
    return int.from_bytes(blake2b(told.encode(), digest_size=8).digest(), "little", signed=True)


def _shifted(values: Tensor, by: int) -> Tensor:
    """Shifted to the right without its sign, which int64 would drag along."""
    return (values >> by) & ((1 << (64 - by)) - 1)


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number

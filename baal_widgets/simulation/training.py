"""Train a stack of networks in lock-step: one minibatch of every run at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from baal_widgets.simulation import network
from baal_widgets.simulation.network import Shape
from baal_widgets.simulation.protocol import Protocol
from baal_widgets.simulation.randomness import masks, order, streams


@dataclass(frozen=True, eq=False)
class Lanes:
    """The seeds of the runs that are computed together: `seeds`, each once, and `of_run` `[run]`, which one is whose.

    What seeds draw is drawn once and handed to all their runs.
    """

    seeds: tuple[int, ...]
    of_run: Tensor

    @classmethod
    def of(cls, seeds: Sequence[int], device: torch.device) -> Lanes:
        each = tuple(dict.fromkeys(seeds))
        return cls(each, torch.tensor([each.index(seed) for seed in seeds], device=device))

    def spread(self, drawn: Tensor) -> Tensor:
        """`[seed, ...]` to `[run, ...]`."""
        return drawn.index_select(0, self.of_run)


def train(
    shape: Shape, protocol: Protocol, lanes: Lanes, features: Tensor, items: Tensor, labels: Tensor, step: int
) -> Tensor:
    """The weights that each run learns from its items, float32 `[run, n_weights]`, beginning at its seed's own.

    `features` `[item, feature]` are shared; `items` and `labels` are `[run, label]`, in the order asked. Runs of one
    seed meet their labels in the same order of positions, under the same masks; `step` numbers the round of asking.
    """
    n = items.shape[1]
    weights = lanes.spread(network.initial_weights(shape, lanes.seeds, features.device))
    if protocol.patience is None:
        taught, watch = None, None
    else:
        taught, held_out = _split(lanes, n, protocol.validation, step, features.device)
        watch = _Watch(shape, protocol.patience, features, items.gather(1, held_out), labels.gather(1, held_out))
        n = taught.shape[1]
    optimizer = _Optimizer(protocol, weights, total=protocol.epochs * math.ceil(n / protocol.batch_size))
    layers, gradient = shape.layers(weights), shape.layers(optimizer.gradient)
    for epoch in range(protocol.epochs):
        for places, factors in _minibatches(shape, protocol, lanes, n, step, epoch, features.device):
            where = places if taught is None else taught.gather(1, places)
            some = features[items.gather(1, where)]
            network.add_gradient(layers, gradient, some, labels.gather(1, where), factors)
            optimizer.step()
        if watch is not None and watch.look(weights):
            break
    return weights if watch is None else watch.best


def _minibatches(
    shape: Shape, protocol: Protocol, lanes: Lanes, n: int, step: int, epoch: int, device: torch.device
) -> Iterator[tuple[Tensor, list[Tensor] | None]]:
    """For each minibatch of an epoch: which positions it takes, `[run, place]`, and dropout's factors there."""
    shuffled = lanes.spread(order(streams(lanes.seeds, "order", step, epoch, device=device), n))
    factors = [
        masks(streams(lanes.seeds, f"train {layer}", step, epoch, device=device), n * units, shape.dropout).view(
            -1, n, units
        )
        for layer, units in enumerate(shape.hidden)
        if shape.dropout
    ]
    for start in range(0, n, protocol.batch_size):
        part = slice(start, start + protocol.batch_size)
        yield shuffled[:, part], [lanes.spread(factor[:, part]) for factor in factors] or None


def _split(lanes: Lanes, n: int, share: float, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Positions to train on and positions to watch, `[run, place]` each, at least one."""
    shuffled = lanes.spread(order(streams(lanes.seeds, "validation", step, device=device), n))
    held_out = min(n - 1, max(1, round(share * n)))
    if not held_out:
        raise ValueError("Expected at least two labels, one to train on and one to watch, got 1. Raise initial.")
    return shuffled[:, held_out:], shuffled[:, :held_out]


class _Watch:
    """Keeps each run's weights of the epoch with the lowest loss on what it doesn't train on."""

    def __init__(self, shape: Shape, patience: int, features: Tensor, items: Tensor, labels: Tensor) -> None:
        self.shape, self.patience = shape, patience
        self.inputs, self.labels = features[items], labels
        self.best = torch.empty(0)
        self.lowest = torch.full((len(items),), torch.inf, device=features.device)
        self.waited = torch.zeros(len(items), dtype=torch.int64, device=features.device)

    def look(self, weights: Tensor) -> bool:
        """Whether all runs have stopped. One that has stopped is no longer looked at, though it trains on."""
        scores = network.logits(self.shape.layers(weights), self.inputs)
        loss = F.cross_entropy(scores.transpose(1, 2), self.labels, reduction="none").mean(dim=1)
        better = (loss < self.lowest) & (self.waited < self.patience)
        self.best = torch.where(better[:, None], weights, self.best) if len(self.best) else weights.clone()
        self.lowest = torch.where(better, loss, self.lowest)
        self.waited = torch.where(better, 0, self.waited + 1)
        return bool((self.waited >= self.patience).all())


class _Optimizer:
    """torch's SGD with momentum, or Adam, on a stack of weights, in place."""

    def __init__(self, protocol: Protocol, weights: Tensor, total: int) -> None:
        self.protocol, self.weights, self.total, self.done = protocol, weights, total, 0
        self.gradient = torch.zeros_like(weights)
        self.first, self.second = torch.zeros_like(weights), torch.zeros_like(weights)

    def step(self) -> None:
        if self.protocol.weight_decay:
            self.gradient.add_(self.weights, alpha=self.protocol.weight_decay)
        rate = self.protocol.lr
        if self.protocol.schedule == "cosine":
            rate *= (1 + math.cos(math.pi * self.done / self.total)) / 2
        self.done += 1
        if self.protocol.optimizer == "sgd":
            self.first.mul_(self.protocol.momentum).add_(self.gradient)
            self.weights.add_(self.first, alpha=-rate)
        else:
            self.first.lerp_(self.gradient, 0.1)
            self.second.mul_(0.999).addcmul_(self.gradient, self.gradient, value=0.001)
            size = (self.second / (1 - 0.999**self.done)).sqrt_().add_(1e-8)
            self.weights.addcdiv_(self.first, size, value=-rate / (1 - 0.9**self.done))

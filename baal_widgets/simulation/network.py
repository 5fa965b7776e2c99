"""Many small networks of one shape at once: stacked weights, products of stacks, gradients written out.

A stack is `[run, ...]`; nothing mixes runs. The network is a perceptron with ReLU and dropout after each hidden layer,
which is what VGG's classifier is. Gradients are ours because they then cost nothing but their products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from baal_widgets.active.picks import chunks
from baal_widgets.simulation.randomness import masks, streams, uniform

Layers = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Shape:
    """The sizes of a network's layers, inputs first and classes last, and the share of hidden units dropped."""

    sizes: tuple[int, ...]
    dropout: float = 0.5

    @property
    def hidden(self) -> tuple[int, ...]:
        return self.sizes[1:-1]

    @property
    def n_weights(self) -> int:
        return sum((inputs + 1) * outputs for inputs, outputs in self._pairs())

    def layers(self, weights: Tensor) -> Layers:
        """Views of `weights` `[run, n_weights]`: for each layer `[run, input, output]` and `[run, 1, output]`."""
        found, at = [], 0
        for inputs, outputs in self._pairs():
            matrix = weights[:, at : at + inputs * outputs].view(-1, inputs, outputs)
            at += inputs * outputs
            found.append((matrix, weights[:, None, at : at + outputs]))
            at += outputs
        return found

    def _pairs(self) -> Iterator[tuple[int, int]]:
        return zip(self.sizes[:-1], self.sizes[1:], strict=True)


def initial_weights(shape: Shape, seeds: Sequence[int], device: torch.device) -> Tensor:
    """The weights that each seed begins with, float32 `[seed, n_weights]`.

    As `torch.nn.Linear` has them: uniform within one over the square root of the layer's inputs.
    """
    weights = uniform(streams(seeds, "weights", device=device), shape.n_weights) * 2 - 1
    for matrix, bias in shape.layers(weights):
        for part in (matrix, bias):
            part.mul_(matrix.shape[1] ** -0.5)
    return weights


def logits(layers: Layers, inputs: Tensor, factors: Sequence[Tensor] | None = None) -> Tensor:
    """`[run, item, feature]` to `[run, item, class]`; `factors` are dropout's, one tensor a hidden layer."""
    return _forward(layers, inputs, factors)[-1]


def last_hidden(layers: Layers, inputs: Tensor) -> Tensor:
    """What goes into the last layer, without dropout: `[run, item, hidden]`."""
    return _forward(layers[:-1], inputs, None)[-1].relu_()


def add_gradient(
    layers: Layers, gradient: Layers, inputs: Tensor, targets: Tensor, factors: Sequence[Tensor] | None
) -> None:
    """Write the gradient of each run's mean cross-entropy into `gradient`, laid out as `layers`.

    `inputs` are `[run, item, feature]`, `targets` `[run, item]`. What `gradient` held is lost.
    """
    activations = [inputs, *_forward(layers, inputs, factors)]
    error = activations.pop().softmax(dim=2)
    error.scatter_add_(2, targets[..., None], error.new_full((*targets.shape, 1), -1.0))
    error /= targets.shape[1]
    for at in reversed(range(len(layers))):
        matrix, bias = gradient[at]
        matrix.copy_(torch.bmm(activations[at].transpose(1, 2), error))  # out= of a view would go matrix by matrix
        torch.sum(error, dim=1, keepdim=True, out=bias)
        if at:
            error = torch.bmm(error, layers[at][0].transpose(1, 2))
            if factors is not None:
                error *= factors[at - 1]
            error = torch.ops.aten.threshold_backward(error, activations[at], 0)


def draw_logits(layers: Layers, inputs: Tensor, factors: Sequence[Tensor]) -> Iterator[tuple[slice, Tensor]]:
    """The logits of every draw, part by part of the items: which items, and `[run, draw, item, class]`.

    `inputs` are `[run, item, feature]`, or `[1, item, feature]` for the same items in every run; `factors`
    `[run, draw, unit]` for each hidden layer: a draw is one network for all items. What comes before the first
    dropout is computed once for all draws. All parts are of one size, since the rounding of a product may depend on
    its size: the last is filled up with zeros, and its logits cut.
    """
    runs, draws, _ = factors[0].shape
    items = inputs.shape[1]
    rows = next(chunks(items, runs * draws * max(factor.shape[2] for factor in factors), inputs)).stop
    rows = min(256, max(16, rows)) if not inputs.is_cuda else max(256, min(rows, 4096))
    for start in range(0, items, rows):
        part = inputs[:, start : start + rows]
        missing = rows - part.shape[1]
        if missing:
            part = torch.cat([part, part.new_zeros(len(part), missing, part.shape[2])], dim=1)
        hidden = torch.baddbmm(layers[0][1], part.expand(runs, -1, -1), layers[0][0]).relu_()
        values = hidden[:, None] * factors[0][:, :, None]
        for (matrix, bias), factor in zip(layers[1:-1], factors[1:], strict=True):
            values = _each_draw(values, matrix, bias).relu_() * factor[:, :, None]
        yield slice(start, start + rows - missing), _each_draw(values, *layers[-1])[:, :, : rows - missing]


def draw_factors(
    shape: Shape, seeds: Sequence[int], draws: int, purpose: str, step: int, device: torch.device
) -> list[Tensor]:
    """Dropout's factors of `draws` networks for each seed: `[seed, draw, unit]` for each hidden layer."""
    return [
        masks(streams(seeds, f"{purpose} {layer}", step, device=device), draws * units, shape.dropout).view(
            -1, draws, units
        )
        for layer, units in enumerate(shape.hidden)
    ]


def _each_draw(values: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
    """`[run, draw, item, unit]` through a layer: draws of a run share their weights, so they are one product."""
    return torch.baddbmm(bias, values.flatten(1, 2), matrix).view(*values.shape[:3], -1)


def _forward(layers: Layers, inputs: Tensor, factors: Sequence[Tensor] | None) -> list[Tensor]:
    """What each layer gives: after ReLU and dropout, but for the last."""
    values = [torch.baddbmm(layers[0][1], inputs, layers[0][0])]
    for at, (matrix, bias) in enumerate(layers[1:]):
        values[-1].relu_()
        if factors is not None:
            values[-1] *= factors[at]
        values.append(torch.baddbmm(bias, values[-1], matrix))
    return values

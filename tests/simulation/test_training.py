import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from baal_widgets.simulation import Protocol
from baal_widgets.simulation.network import Shape, draw_factors, draw_logits, initial_weights, last_hidden, logits
from baal_widgets.simulation.randomness import masks, order, streams
from baal_widgets.simulation.training import Lanes, train

CPU = torch.device("cpu")
SHAPE = Shape((6, 16, 12, 3), dropout=0.4)
PROTOCOL = Protocol(epochs=7, batch_size=8, lr=0.1, hidden=(16, 12), dropout=0.4)


def as_module(shape, weights):
    """The same network of torch's own layers, without dropout, which the tests apply by hand."""
    layers = []
    for matrix, bias in shape.layers(weights[None]):
        linear = nn.Linear(*matrix.shape[1:])
        linear.weight.data, linear.bias.data = matrix[0].T.clone(), bias[0, 0].clone()
        layers.append(linear)
    return nn.ModuleList(layers)


def forward(module, x, factors=None):
    for at, layer in enumerate(module[:-1]):
        x = layer(x).relu()
        x = x if factors is None else x * factors[at]
    return module[-1](x)


def flat(module):
    return torch.cat([part for layer in module for part in (layer.weight.T.flatten(), layer.bias)]).detach()


def plainly(protocol, seed, x, y, step):
    """One run by torch.nn, autograd and torch.optim."""
    module = as_module(SHAPE, initial_weights(SHAPE, [seed], CPU)[0])
    if protocol.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            module.parameters(), protocol.lr, protocol.momentum, weight_decay=protocol.weight_decay
        )
    else:
        optimizer = torch.optim.Adam(module.parameters(), protocol.lr, weight_decay=protocol.weight_decay)
    per_epoch = -(-len(x) // protocol.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, protocol.epochs * per_epoch)
    for epoch in range(protocol.epochs):
        shuffled = order(streams([seed], "order", step, epoch), len(x))[0]
        kept = [
            masks(streams([seed], f"train {at}", step, epoch), len(x) * units, 0.4).view(len(x), units)
            for at, units in enumerate(SHAPE.hidden)
        ]
        for part in range(0, len(x), protocol.batch_size):
            rows = slice(part, part + protocol.batch_size)
            optimizer.zero_grad()
            some = shuffled[rows]
            F.cross_entropy(forward(module, x[some], [k[rows] for k in kept]), y[some]).backward()
            optimizer.step()
            if protocol.schedule == "cosine":
                schedule.step()
    return flat(module)


@pytest.fixture
def data():
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(50, 6, generator=chance)
    return x, (x[:, :3] + 0.3 * torch.randn(50, 3, generator=chance)).argmax(dim=1)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"schedule": "constant", "momentum": 0.0},
        {"weight_decay": 0.01},
        {"optimizer": "adam", "lr": 0.01},
        {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.01, "schedule": "constant"},
    ],
)
def test_training_in_lock_step_is_training_one_by_one_with_torch(data, changed):
    x, y = data
    protocol = dataclasses.replace(PROTOCOL, **changed)
    items = torch.stack([torch.arange(20), torch.arange(20, 40), torch.arange(20)])
    weights = train(SHAPE, protocol, Lanes.of([5, 5, 9], CPU), x, items, y[items], step=3)
    for run, seed in enumerate([5, 5, 9]):
        alone = plainly(protocol, seed, x[items[run]], y[items[run]], step=3)
        assert torch.allclose(weights[run], alone, atol=2e-5), run
        assert (alone - initial_weights(SHAPE, [seed], CPU)[0]).abs().max() > 0.05


def test_initial_weights_spread_as_those_of_torch_do():
    shape = Shape((100, 50, 10))
    for matrix, bias in shape.layers(initial_weights(shape, range(20), CPU)):
        bound = matrix.shape[1] ** -0.5
        for part in (matrix, bias):
            assert part.abs().max() <= bound
            assert part.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
            assert abs(part.mean().item()) < bound / 5


def test_draws_are_networks_of_their_own_whatever_the_size_of_the_parts(data):
    x, _ = data
    x = x.repeat(30, 1)[:1337]
    weights = initial_weights(SHAPE, [1, 2], CPU)
    factors = draw_factors(SHAPE, [1, 2], 4, "score", 0, CPU)
    whole = torch.cat([part for _, part in draw_logits(SHAPE.layers(weights), x[None], factors)], dim=2)
    assert whole.shape == (2, 4, 1337, 3)
    for run in range(2):
        module = as_module(SHAPE, weights[run])
        for draw in range(4):
            alone = forward(module, x, [factor[run, draw] for factor in factors])
            assert torch.allclose(whole[run, draw], alone, atol=1e-5)


def test_what_goes_into_the_last_layer_makes_the_logits(data):
    x, _ = data
    layers = SHAPE.layers(initial_weights(SHAPE, [1], CPU))
    matrix, bias = layers[-1]
    assert torch.allclose(last_hidden(layers, x[None]) @ matrix + bias, logits(layers, x[None]), atol=1e-6)


def test_stopping_early_gives_the_epoch_with_the_lowest_loss_on_what_is_held_out(data):
    x, y = data
    protocol = dataclasses.replace(PROTOCOL, epochs=40, patience=5, schedule="constant", lr=0.3)
    items = torch.arange(50)[None]
    lanes = Lanes.of([4], CPU)
    shuffled = order(streams([4], "validation", 0), 50)[0]
    held_out, taught = shuffled[:10], shuffled[None, 10:]

    def loss(weights):
        return F.cross_entropy(logits(SHAPE.layers(weights), x[None, held_out])[0], y[held_out]).item()

    stopped = train(SHAPE, protocol, lanes, x, items, y[items], step=0)
    # with a constant rate the first epochs of a long training are a short training
    losses = []
    for epochs in range(1, 41):
        longer = dataclasses.replace(protocol, epochs=epochs, patience=None)
        losses.append(loss(train(SHAPE, longer, lanes, x, taught, y[taught], step=0)))
    running = [loss_at == min(losses[: at + 1]) for at, loss_at in enumerate(losses)]
    patient = next((at for at in range(5, 40) if not any(running[at - 4 : at + 1])), 39)
    assert patient < 39
    assert loss(stopped) == pytest.approx(min(losses[: patient + 1]), rel=1e-4)


def test_one_stopped_run_does_not_wait_for_another_nor_change(data):
    x, y = data
    protocol = dataclasses.replace(PROTOCOL, epochs=40, patience=3, lr=0.3)
    items = torch.arange(50)[None]
    alone = train(SHAPE, protocol, Lanes.of([4], CPU), x, items, y[items], step=0)
    beside = train(SHAPE, protocol, Lanes.of([4, 5], CPU), x, items.repeat(2, 1), y[items].repeat(2, 1), step=0)
    assert torch.allclose(alone[0], beside[0], atol=1e-5)
    with pytest.raises(ValueError, match="at least two labels"):
        train(SHAPE, protocol, Lanes.of([4], CPU), x, items[:, :1], y[items[:, :1]], step=0)


@pytest.mark.gpu
def test_a_gpu_trains_the_same(data):
    x, y = data
    items = torch.stack([torch.arange(20), torch.arange(20, 40)])
    here = train(SHAPE, PROTOCOL, Lanes.of([5, 6], CPU), x, items, y[items], step=0)
    cuda = torch.device("cuda")
    there = train(SHAPE, PROTOCOL, Lanes.of([5, 6], cuda), x.to(cuda), items.to(cuda), y[items].to(cuda), step=0)
    assert torch.allclose(here, there.cpu(), atol=1e-3)

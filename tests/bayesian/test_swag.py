import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset

from baal_widgets.bayesian.common import redraw, sample
from baal_widgets.bayesian.swag import SWAGModule


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn, self.linear = kind(8, 6, num_layers=2, batch_first=True), nn.Linear(6, 2)

    def forward(self, x):
        return self.linear(self.rnn(x)[0][:, -1])


class Tied(nn.Module):
    """Uses one weight in two layers."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.last(self.two(self.one(x)))


def half_frozen():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    model[0].requires_grad_(False)
    return model


def convolutions():
    return nn.Sequential(nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))


VECTORS, WORDS, MAPS = (21, 8), (21, 5, 8), (21, 8, 5, 5)
MODELS = {
    "Linear": (lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2)), VECTORS),
    "root": (lambda: nn.Linear(8, 2), VECTORS),
    "tied": (Tied, VECTORS),
    "half frozen": (half_frozen, VECTORS),
    "BatchNorm1d": (lambda: nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)), VECTORS),
    "BatchNorm2d": (convolutions, MAPS),
    "untracked": (lambda: nn.Sequential(nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 2)), VECTORS),
    "LSTM": (lambda: Recurrent(nn.LSTM), WORDS),
    "GRU": (lambda: Recurrent(nn.GRU), WORDS),
    "encoder": (
        lambda: nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Flatten(), nn.Linear(40, 2)),
        WORDS,
    ),
    "double": (lambda: nn.Linear(8, 2, dtype=torch.float64), VECTORS),
}
models = pytest.mark.parametrize("name", list(MODELS))
whole_batches = pytest.mark.parametrize("name", [name for name in MODELS if name != "untracked"])


def make(name):
    """A model, items and their classes."""
    torch.manual_seed(0)
    build, shape = MODELS[name]
    x = torch.randn(shape, dtype=torch.float64 if name == "double" else None)
    return build().eval(), x, (x.flatten(1).sum(1) > 0).long()


def fitted(name, **options):
    model, x, y = make(name)
    module = SWAGModule(model, **{"snapshots": 5, "steps_between": 2, "lr": 0.1, **options}).eval()
    module.fit(TensorDataset(x, y), criterion=nn.CrossEntropyLoss(), batch_size=10)
    return module, model, x


def walked(weights, max_rank=20, **options):
    """A module that has collected these weights `[snapshot, weight]`, of one linear layer."""
    layer = nn.Linear(weights.shape[1], 1, bias=False)
    module = SWAGModule(layer, max_rank=max_rank, **options).eval()
    for row in weights:
        layer.weight.data.copy_(row)
        module.collect()
    return module


def portrait(model):
    """All that is to be as it was: classes, modes, and what the layers hold beside tensors."""
    return [(name, id(m), type(m), m.training, sorted(vars(m))) for name, m in model.named_modules()]


def same_tensors(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


@models
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_calls_differ_in_eval_mode(name, mode):
    with mode():
        module, model, x = fitted(name)
        first, *others = [module(x).clone() for _ in range(6)]
        assert all(not torch.allclose(first, other) for other in others)
        assert torch.equal(model(x), model(x))


@models
def test_a_draw_is_the_same_for_all_batches_until_the_next_pass(name):
    module, model, x = fitted(name)
    with torch.no_grad():
        whole = sample(module, x, draws=4)
        assert whole.shape == (*model(x).shape, 4)
        assert torch.equal(whole, sample(module, x, draws=4))
        if name != "untracked":  # whose output depends on the batch
            halves = torch.cat([sample(module, x[:5], draws=4), sample(module, x[5:], draws=4)])
            assert torch.allclose(whole, halves, atol=1e-5)
        assert not torch.allclose(whole[..., 0], whole[..., 1])
        redraw(module)
        assert not torch.allclose(sample(module, x, draws=4), whole)


def test_moments_are_those_of_the_snapshots():
    torch.manual_seed(0)
    weights = torch.randn(30, 7)
    module = walked(weights, max_rank=10)
    assert torch.allclose(module.mean, weights.mean(0), atol=1e-6)
    assert torch.allclose(module.squares / 30, weights.var(0, correction=0), rtol=1e-4)
    running = weights.cumsum(0) / torch.arange(1, 31)[:, None]
    assert torch.allclose(module.deviations, (weights - running)[-10:], atol=1e-5)  # three times around


def test_variances_much_smaller_than_the_weights_are_not_lost_in_rounding():
    torch.manual_seed(0)
    weights = 1 + 1e-4 * torch.randn(40, 5)
    module = walked(weights)
    exact = weights.double().var(0, correction=0)
    assert torch.allclose(module.squares.double() / 40, exact, rtol=0.02)


@pytest.mark.parametrize("scale", [0.25, 1.0])
def test_draws_have_the_mean_and_covariance_of_the_paper(scale):
    torch.manual_seed(0)
    weights = torch.randn(12, 4) @ torch.tensor([[1.0, 0.9, 0, 0], [0, 0.3, 0, 0], [0, 0, 2, -1], [0, 0, 0, 0.5]])
    module = walked(weights, max_rank=6, scale=scale)
    running = weights.cumsum(0) / torch.arange(1, 13)[:, None]
    deviations = (weights - running)[-6:]
    expected = scale * (weights.var(0, correction=0).diag() + deviations.T @ deviations / 5) / 2
    with torch.no_grad():
        drawn = torch.stack([module(torch.eye(4))[:, 0] for _ in range(6000)])
    size = expected.diagonal().sqrt()
    assert torch.allclose((drawn.mean(0) - weights.mean(0)) / size, torch.zeros(4), atol=0.06)
    error = (drawn.T.cov() - expected) / (size[:, None] * size)
    assert error.abs().max() < 0.08


def test_without_scale_draws_are_the_mean_of_the_snapshots():
    weights = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    module = walked(weights, scale=0.0)
    assert torch.equal(module(torch.eye(2))[:, 0], torch.tensor([2.0, 4.0]))


@models
def test_the_callers_model_is_left_as_it_was(name):
    model, x, y = make(name)
    before, weights, expected = portrait(model), copy.deepcopy(model.state_dict()), model(x)
    dicts = [(part._parameters, part._buffers) for part in model.modules()]
    with SWAGModule(model, snapshots=3) as module:
        parts = [type(part) for part in module.parent_module.modules()]
        module.fit(TensorDataset(x, y), criterion=nn.CrossEntropyLoss(), batch_size=10)
        sample(module.eval(), x, draws=3)
        assert module.state_dict().keys() == {f"parent_module.{key}" for key in weights}
    assert parts == [type(part) for part in module.parent_module.modules()]
    assert portrait(model) == before
    assert all(p.grad is None for p in model.parameters())
    assert all(
        part._parameters is one and part._buffers is other
        for part, (one, other) in zip(model.modules(), dicts, strict=True)
    )
    assert same_tensors(model.state_dict(), weights)
    assert torch.equal(module(x), expected)
    assert torch.equal(model(x), expected)


def test_the_callers_model_can_be_called_while_a_draw_is_made():
    """As another thread may do, that trains it."""
    module, model, x = fitted("Linear")
    expected, seen = model(x), []
    module.parent_module[0].register_forward_hook(lambda *_: seen.append(model[3].weight))
    module(x)
    assert seen[0] is model[3].weight
    assert torch.equal(model(x), expected)


def test_an_error_in_the_model_leaves_it_as_it_was():
    module, model, x = fitted("BatchNorm1d")
    weights = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="shapes"):
        module(x[:, :3])
    assert same_tensors(module.parent_module.state_dict(), weights)
    assert same_tensors(model.state_dict(), weights)


@models
def test_training_mode_is_that_of_the_model_itself(name):
    module, model, x = fitted(name)
    sample(module, x, draws=2)
    twin = copy.deepcopy(model).train()
    torch.manual_seed(1)
    drawn = module.train()(x)
    torch.manual_seed(1)
    assert torch.equal(drawn, twin(x))
    drawn.sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_snapshots_are_taken_on_the_way_of_sgd():
    """By the same steps, taken one by one."""
    model, x, y = make("root")
    module = SWAGModule(model, snapshots=3, steps_between=4, lr=0.2, momentum=0.5, weight_decay=0.1)
    module.fit(TensorDataset(x, y), criterion=nn.CrossEntropyLoss(), batch_size=len(x))
    twin, seen = copy.deepcopy(model), []
    optimizer = torch.optim.SGD(twin.parameters(), 0.2, 0.5, weight_decay=0.1)
    for step in range(12):
        optimizer.zero_grad()
        F.cross_entropy(twin(x), y).backward()
        optimizer.step()
        if step % 4 == 3:
            seen.append(torch.cat([p.detach().flatten() for p in twin.parameters()]))
    assert module.n_collected == 3
    assert torch.allclose(module.mean, torch.stack(seen).mean(0), atol=1e-6)


def test_an_epoch_lies_between_snapshots_unless_told():
    calls = []
    model, x, y = make("root")
    module = SWAGModule(model, snapshots=4)
    module.fit(TensorDataset(x, y), criterion=lambda *a: calls.append(1) or F.cross_entropy(*a), batch_size=7)
    assert len(calls) == 4 * 3


def test_fitting_again_starts_over_from_the_present_weights():
    module, model, x = fitted("root")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(100.0)
    y = torch.zeros(len(x), dtype=torch.long)
    module.fit(TensorDataset(x, y), criterion=nn.CrossEntropyLoss())
    assert module.n_collected == 5
    assert (module.mean - 100).abs().max() < 50


@pytest.mark.parametrize("name", ["BatchNorm1d", "BatchNorm2d"])
def test_normalisation_uses_the_training_sets_statistics_for_the_mean_weights(name):
    model, x, y = make(name)
    module = SWAGModule(model, snapshots=4, lr=0.1, scale=0.0).eval()
    module.fit(TensorDataset(x, y), criterion=nn.CrossEntropyLoss(), batch_size=len(x))
    mean = copy.deepcopy(model)
    mean.load_state_dict(module._named(module.mean), strict=False)
    update_bn(DataLoader(TensorDataset(x, y), len(x)), mean)
    assert torch.allclose(module(x), mean.eval()(x), atol=1e-5)


def test_without_fit_normalisation_uses_the_models_running_statistics():
    model, x, _ = make("BatchNorm1d")
    module = SWAGModule(model, scale=0.0).eval()
    module.collect()
    module.collect()
    assert torch.allclose(module(x), model(x), atol=1e-6)


def test_what_requires_no_gradient_is_not_drawn():
    module, model, _ = fitted("half frozen")
    assert module.deviations.shape == (20, 18)
    model[0].requires_grad_(True)
    with pytest.raises(RuntimeError, match=r"call forget\(\)"):
        module.collect()
    module.forget()
    module.collect()
    assert module.deviations.shape == (20, 90)


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@models
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), saved])
def test_a_fitted_module_can_be_copied_pickled_and_saved(name, copied):
    module, _, x = fitted(name)
    drawn = sample(module, x, draws=3)
    module(x)  # whose gradients a copy could not hold
    twin = copied(module)
    assert torch.equal(sample(twin, x, draws=3), drawn)
    assert torch.equal(twin.unpatch()(x), module.unpatch()(x))


@pytest.mark.parametrize("name", ["BatchNorm2d", "LSTM"])
def test_moving_or_casting_the_module_moves_all(name):
    module, model, x = fitted(name)
    module.to(torch.float64)
    assert module.mean.dtype == torch.float64
    assert all(one.dtype == torch.float64 for one in (*model.parameters(), module(x.double()), model(x.double())))


@models
def test_seeds_govern_fit_and_draws_and_what_comes_after_them(name):
    model, x, y = make(name)
    outcomes = []
    for _ in range(2):
        torch.manual_seed(5)
        module = SWAGModule(model, snapshots=3).eval()
        module.fit(TensorDataset(x, y), criterion=nn.CrossEntropyLoss(), batch_size=10)
        outcomes.append((module.mean, sample(module, x, draws=3), module(x), torch.rand(3)))
    assert all(torch.equal(one, other) for one, other in zip(*outcomes, strict=True))


def test_draws_without_snapshots_are_refused_with_advice():
    model, x, _ = make("Linear")
    module = SWAGModule(model).eval()
    for n in range(2):
        for draw in (lambda: module(x), lambda: sample(module, x, draws=2)):
            with pytest.raises(RuntimeError, match=rf"There are {n} snapshots .*call fit\(dataset, criterion"):
                draw()
        module.collect()
    assert sample(module, x, draws=2).shape == (21, 2, 2)


def test_fit_refuses_what_it_cannot_use_and_keeps_the_snapshots():
    module, _, x = fitted("root")
    for options, message in (({}, "Expected a criterion"), ({"criterion": nn.MSELoss()}, "empty")):
        with pytest.raises(ValueError, match=message):
            module.fit(TensorDataset(x[:0], x[:0]), **options)
    assert module.n_collected == 5


def test_a_loss_that_is_not_a_number_ends_the_walk():
    model, x, y = make("root")
    with pytest.raises(FloatingPointError, match="try a lower lr"):
        SWAGModule(model).fit(TensorDataset(x, y), criterion=lambda *a: F.cross_entropy(*a) * torch.nan)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_rank": 1}, "max_rank to be from 2 on, got 1"),
        ({"snapshots": 1}, "snapshots to be from 2 on, got 1"),
        ({"steps_between": 0}, "steps_between to be from 1 on, got 0"),
        ({"scale": -1.0}, "scale to be from 0 on, got -1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SWAGModule(nn.Linear(2, 2), **options)


@pytest.mark.parametrize("build", [nn.ReLU, lambda: nn.Linear(2, 2).requires_grad_(False)])
def test_a_model_without_weights_to_draw_is_refused(build):
    with pytest.raises(ValueError, match="Every draw of this model would be the same"):
        SWAGModule(build())


def test_draws_spread_more_far_from_the_data_than_on_it():
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 64)[:, None]
    y = torch.sin(3 * x) + 0.1 * torch.randn(64, 1)
    model = nn.Sequential(nn.Linear(1, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()
    module = SWAGModule(model, snapshots=30, lr=0.05).eval()
    module.fit(TensorDataset(x, y), criterion=nn.MSELoss(), batch_size=8)
    with torch.no_grad():
        near, far = (sample(module, at, draws=60).std(-1).mean() for at in (x, torch.tensor([[-6.0], [6.0]])))
        fit = F.mse_loss(sample(module, x, draws=60).mean(-1), torch.sin(3 * x))
    assert far > 2 * near > 0
    assert fit < 0.05


@pytest.mark.gpu
@whole_batches
def test_a_model_on_the_gpu_is_fitted_and_drawn_from_there(name):
    model, x, y = make(name)
    model, x = model.cuda(), x.cuda()
    expected = model(x)
    module = SWAGModule(model, snapshots=3).eval()
    module.fit(TensorDataset(x, y.cuda()), criterion=nn.CrossEntropyLoss(), batch_size=10)
    drawn = sample(module, x, draws=4)
    assert drawn.device.type == module.mean.device.type == "cuda"
    assert torch.allclose(drawn[:1], sample(module, x[:1], draws=4), atol=1e-4)
    assert torch.allclose(module.unpatch()(x), expected, atol=1e-5)
    assert torch.allclose(model(x), expected, atol=1e-5)

import copy
import io
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from baal_widgets.bayesian.common import redraw, sample
from baal_widgets.bayesian.variational import (
    BayesianConv1d,
    BayesianConv2d,
    BayesianConv3d,
    BayesianLinear,
    VariationalMixin,
    VariationalModule,
    patch_module,
    unpatch_module,
)


class Doubling(nn.Linear):
    """A user's own kind of linear layer."""

    def forward(self, x):
        return 2 * super().forward(x)


class Tied(nn.Module):
    """Uses one weight in two layers."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(self.one(x))


VECTORS, WORDS, MAPS, VOLUMES = (4, 8), (4, 8, 8), (4, 8, 6, 6), (4, 8, 4, 4, 4)
MODELS = {
    "Linear": (lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)), VECTORS),
    "no bias": (lambda: nn.Sequential(nn.Linear(8, 8, bias=False)), VECTORS),
    "root": (lambda: nn.Linear(8, 3), VECTORS),
    "subclass": (lambda: nn.Sequential(Doubling(8, 3)), VECTORS),
    "tied": (Tied, VECTORS),
    "Conv1d": (lambda: nn.Sequential(nn.Conv1d(8, 4, 3, padding="same")), WORDS),
    "Conv2d": (lambda: nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, groups=4, padding_mode="reflect")), MAPS),
    "Conv2d and norm": (lambda: nn.Sequential(nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8)), MAPS),
    "Conv3d": (lambda: nn.Sequential(nn.Conv3d(8, 2, 3)), VOLUMES),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), WORDS),
    "double": (lambda: nn.Sequential(nn.Linear(8, 3, dtype=torch.float64)), VECTORS),
}
models = pytest.mark.parametrize("name", list(MODELS))


def make(name):
    torch.manual_seed(0)
    build, shape = MODELS[name]
    return build().eval(), torch.randn(shape, dtype=torch.float64 if name == "double" else None)


def portrait(model):
    """All that is to be as it was: classes, modes, and what the layers hold."""
    return [
        (name, id(m), type(m), m.training, sorted(vars(m)), list(m._parameters)) for name, m in model.named_modules()
    ]


def same_tensors(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def varies(model, x):
    first, *others = [model(x).clone() for _ in range(6)]
    return any(not torch.allclose(first, other, atol=1e-5) for other in others)


def gaussians(module):
    for layer in module.modules():
        if isinstance(layer, VariationalMixin):
            own = dict(layer.named_parameters())
            for name in ("weight", "bias"):
                if f"{name}_rho" in own:
                    yield own[name], F.softplus(own[f"{name}_rho"])


@models
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("training", [True, False])
def test_calls_differ_in_either_mode(name, mode, training):
    model, x = make(name)
    with mode(), VariationalModule(model).train(training) as module:
        assert varies(module, x)


@models
def test_a_draw_is_the_same_for_all_batches_until_the_next_pass(name):
    model, x = make(name)
    module = VariationalModule(model).eval()
    with torch.no_grad():
        whole = sample(module, x, draws=4)
        halves = torch.cat([sample(module, x[:1], draws=4), sample(module, x[1:], draws=4)])
        assert whole.shape == (*model(x).shape, 4)
        assert torch.allclose(whole, halves, atol=1e-5)
        assert not torch.allclose(whole[..., 0], whole[..., 1])
        redraw(module)
        assert not torch.allclose(sample(module, x, draws=4), whole)


@models
def test_with_hardly_any_scale_it_is_the_trained_model(name):
    model, x = make(name)
    expected = model(x)
    assert torch.allclose(VariationalModule(model, initial_scale=1e-7).eval()(x), expected, atol=1e-5)


@pytest.mark.parametrize("scale", [0.01, 0.3, 40.0])
def test_weights_are_drawn_from_their_gaussian(scale):
    """The unit vectors make of a linear layer without bias a table of its weights."""
    torch.manual_seed(0)
    layer = BayesianLinear(60, 60, bias=False, initial_scale=scale)
    with torch.no_grad():
        noise = (layer(torch.eye(60)).T - layer.weight) / scale
    assert float(noise.mean()) == pytest.approx(0, abs=0.05)
    assert float(noise.std()) == pytest.approx(1, abs=0.05)


@models
@pytest.mark.parametrize("prior", [0.1, 1.0, 3.0])
def test_the_divergence_is_torchs(name, prior):
    module = VariationalModule(make(name)[0], prior_scale=prior, initial_scale=0.2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        terms = [kl_divergence(Normal(mean, scale), Normal(0.0, prior)).sum() for mean, scale in gaussians(module)]
        assert torch.allclose(module.kl(), sum(terms), rtol=1e-5)
        assert torch.allclose(module.penalty(50), sum(terms) / 50, rtol=1e-5)


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.floats(-10, 10))
def test_the_divergence_is_not_negative_and_zero_for_the_prior_itself(prior, scale, mean):
    layer = BayesianLinear(3, 2, prior_scale=prior, initial_scale=scale, dtype=torch.float64)
    nn.init.constant_(layer.weight, mean)
    assert layer.kl() >= -1e-9
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    nn.init.constant_(layer.weight_rho, math.log(math.expm1(prior)))
    nn.init.constant_(layer.bias_rho, math.log(math.expm1(prior)))
    assert layer.kl().item() == pytest.approx(0, abs=1e-9)


@models
def test_the_means_are_the_models_own_parameters_and_the_scales_new_ones(name):
    model, _ = make(name)
    module = VariationalModule(model, initial_scale=0.25)
    own = {id(one) for one in model.parameters()}
    new = [one for one in module.parameters() if id(one) not in own]
    assert own <= {id(one) for one in module.parameters()}
    assert all(torch.allclose(F.softplus(one), torch.full_like(one, 0.25)) for one in new)
    assert len(new) == sum(1 for _ in gaussians(module))


@models
def test_the_callers_model_is_left_as_it_was(name):
    model, x = make(name)
    before, weights, expected = portrait(model), copy.deepcopy(model.state_dict()), model(x)
    with VariationalModule(model) as module:
        sample(module, x, draws=2)
        module.penalty(10)
        assert portrait(model) == before
        assert torch.equal(model(x), expected)
    assert [row[2:] for row in portrait(module.parent_module)] == [row[2:] for row in before]
    assert torch.equal(module(x), expected)
    assert torch.equal(model(x), expected)
    assert same_tensors(model.state_dict(), weights)
    assert float(module.kl()) == 0


@models
def test_patching_in_place_can_be_undone_bit_for_bit(name):
    model, x = make(name)
    before, weights, expected = portrait(model), copy.deepcopy(model.state_dict()), model(x)
    assert patch_module(model) is model
    sample(model, x, draws=2)
    assert varies(model, x)
    keys = list(model.state_dict())
    assert patch_module(model) is model  # once more changes nothing
    assert list(model.state_dict()) == keys
    assert unpatch_module(model) is model
    assert unpatch_module(model) is model
    assert portrait(model) == before
    assert torch.equal(model(x), expected)
    assert list(model.state_dict()) == list(weights)
    assert same_tensors(model.state_dict(), weights)


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@models
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), saved])
def test_a_module_can_be_copied_pickled_and_saved(name, copied):
    model, x = make(name)
    module = VariationalModule(model)
    drawn = sample(module, x, draws=2)
    twin = copied(module)
    assert torch.equal(sample(twin, x, draws=2), drawn)
    assert same_tensors(twin.state_dict(), module.state_dict())
    assert not varies(twin.unpatch(), x)
    assert varies(module, x)


def test_means_and_scales_are_part_of_the_state():
    module, other = VariationalModule(make("Linear")[0]), VariationalModule(make("Linear")[0], initial_scale=0.5)
    assert "parent_module.0.weight_rho" in module.state_dict()
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.kl(), module.kl())


@pytest.mark.parametrize("name", ["Linear", "Conv2d"])
def test_moving_or_casting_the_module_moves_all(name):
    model, x = make(name)
    module = VariationalModule(model).to(torch.float64)
    assert all(one.dtype == torch.float64 for one in (*model.parameters(), *module.parameters()))
    assert varies(module, x.double())


@models
def test_gradients_reach_means_and_scales(name):
    model, x = make(name)
    module = VariationalModule(model).train()
    (module(x).square().mean() + module.penalty(10)).backward()
    assert all(one.grad is not None for one in module.parameters())
    assert all(one.grad is not None for one in model.parameters())


def test_gradients_of_a_draw_are_those_of_its_formula():
    torch.manual_seed(0)
    layer, x = BayesianLinear(3, 2, bias=False, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    layer.use_draw(0)
    layer(x).sum().backward()
    with torch.no_grad():
        drawn = layer(torch.eye(3, dtype=torch.float64)).T
        noise = (drawn - layer.weight) / F.softplus(layer.weight_rho)
    by_weight = x.sum(0).expand(2, 3)
    assert torch.allclose(layer.weight.grad, by_weight)
    assert torch.allclose(layer.weight_rho.grad, by_weight * noise * torch.sigmoid(layer.weight_rho))


def test_only_layers_of_the_named_kinds_are_patched():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv1d(1, 1, 1), nn.Conv3d(1, 1, 1), nn.Linear(4, 4), nn.LSTM(2, 2))

    def kinds(layers):
        return [type(layer) for layer in patch_module(model, layers, inplace=False)]

    assert kinds(["Linear"]) == [nn.Conv2d, nn.Conv1d, nn.Conv3d, BayesianLinear, nn.LSTM]
    assert kinds(["Conv"]) == [BayesianConv2d, BayesianConv1d, BayesianConv3d, nn.Linear, nn.LSTM]
    assert kinds("Conv2d") == [BayesianConv2d, nn.Conv1d, nn.Conv3d, nn.Linear, nn.LSTM]
    with pytest.raises(ValueError, match="Expected layers among Linear, Conv, Conv1d, Conv2d, Conv3d, got LSTM"):
        kinds(["LSTM"])


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: BayesianLinear(8, 3), VECTORS),
        (lambda: BayesianConv1d(8, 3, 3), WORDS),
        (lambda: BayesianConv2d(8, 4, 3, stride=2, groups=2, bias=False, prior_scale=0.5), MAPS),
        (lambda: BayesianConv3d(8, 3, 3, initial_scale=0.1), VOLUMES),
    ],
)
def test_layers_can_be_made_directly(layer, shape):
    model = nn.Sequential(layer()).eval()
    x = torch.randn(shape)
    assert varies(model, x)
    assert varies(copy.deepcopy(model), x)
    assert sample(model, x, draws=3).shape == (*model(x).shape, 3)
    assert not varies(unpatch_module(model), x)
    assert type(model[0]).__module__.startswith("torch.")


def test_a_model_with_no_such_layer_is_refused():
    with pytest.warns(UserWarning, match="No layer was modified by patch_module!"):
        patch_module(nn.ReLU())
    with pytest.raises(ValueError, match="Every draw of this model would be the same"):
        VariationalModule(nn.Linear(2, 2), layers=["Conv"])
    with pytest.raises(ValueError, match="remove_parametrizations"):
        VariationalModule(nn.Sequential(nn.Linear(2, 2), parametrizations.weight_norm(nn.Linear(2, 2))))


@pytest.mark.parametrize("scales", [{"prior_scale": 0.0}, {"initial_scale": 0.0}, {"prior_scale": -1.0}])
def test_scales_that_are_none_are_refused(scales):
    with pytest.raises(ValueError, match="standard deviations above 0"):
        VariationalModule(nn.Linear(2, 2), **scales)
    with pytest.raises(ValueError, match="standard deviations above 0"):
        BayesianLinear(2, 2, **scales)


def test_a_penalty_needs_items():
    with pytest.raises(ValueError, match="from 1 on, got 0"):
        VariationalModule(nn.Linear(2, 2)).penalty(0)


@models
def test_seeds_govern_the_draws_and_what_comes_after_them(name):
    model, x = make(name)
    module, outcomes = VariationalModule(model).eval(), []
    for _ in range(2):
        redraw(module)
        torch.manual_seed(5)
        outcomes.append((sample(module, x, draws=3), module(x), torch.rand(3)))
    assert all(torch.equal(one, other) for one, other in zip(*outcomes, strict=True))


def trained(module, x, y, steps, lr=1e-2):
    optimizer, losses = torch.optim.Adam(module.parameters(), lr=lr), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.mse_loss(module(x), y) / (2 * 0.1**2) + module.penalty(len(x))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_training_finds_the_posterior_of_bayesian_linear_regression():
    """Features that do not correlate make the exact posterior one of independent weights."""
    torch.manual_seed(0)
    x = torch.linalg.qr(torch.randn(40, 3)).Q * torch.tensor([2.0, 1.0, 0.4])
    y = x @ torch.tensor([[0.5], [-0.7], [0.2]]) + 0.1 * torch.randn(40, 1)
    precision = x.square().sum(0) / 0.1**2 + 1
    exact = (x * y).sum(0) / 0.1**2 / precision
    module = VariationalModule(nn.Linear(3, 1, bias=False), initial_scale=0.1)
    losses = trained(module, x, y, 500, lr=2e-2)
    trained(module, x, y, 300, lr=2e-3)
    assert sum(losses[-50:]) < 0.5 * sum(losses[:50])
    ((mean, scale),) = gaussians(module)
    assert torch.allclose(mean[0], exact, atol=0.08)
    assert torch.allclose(scale[0] * precision.sqrt(), torch.ones(3), atol=0.25)


def test_draws_spread_more_far_from_the_data_than_on_it():
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 64)[:, None]
    module = VariationalModule(nn.Sequential(nn.Linear(1, 32), nn.ReLU(), nn.Linear(32, 1)))
    losses = trained(module, x, torch.sin(3 * x), 300)
    with torch.no_grad():
        near, far = (sample(module, at, draws=60).std(-1).mean() for at in (x, torch.tensor([[-6.0], [6.0]])))
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])
    assert far > 3 * near


@pytest.mark.gpu
@models
def test_weights_are_drawn_where_they_are(name):
    model, x = make(name)
    module = VariationalModule(model).cuda()
    drawn = sample(module, x.cuda(), draws=4)
    assert drawn.device.type == module.penalty(5).device.type == "cuda"
    assert torch.allclose(drawn[:1], sample(module, x[:1].cuda(), draws=4), atol=1e-4)

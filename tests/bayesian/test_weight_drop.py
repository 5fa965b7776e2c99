import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from baal_widgets.bayesian.common import redraw, sample
from baal_widgets.bayesian.weight_drop import (
    KINDS,
    MCDropoutConnectModule,
    WeightDropConv2d,
    WeightDropLinear,
    WeightDropMixin,
    get_weight_drop_module,
    patch_module,
    unpatch_module,
)


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.rnn = kind(8, 6, num_layers=2, batch_first=True, **options)

    def forward(self, x):
        return self.rnn(x)[0]


class Doubling(nn.Linear):
    """A user's own kind of linear layer."""

    def forward(self, x):
        return 2 * super().forward(x)


pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

VECTORS, WORDS, MAPS, VOLUMES = (4, 8), (4, 8, 8), (4, 8, 6, 6), (4, 8, 4, 4, 4)
MODELS = {
    "Linear": (lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)), VECTORS),
    "no bias": (lambda: nn.Sequential(nn.Linear(8, 8, bias=False)), VECTORS),
    "root": (lambda: nn.Linear(8, 3), VECTORS),
    "subclass": (lambda: nn.Sequential(Doubling(8, 3)), VECTORS),
    "Conv1d": (lambda: nn.Sequential(nn.Conv1d(8, 4, 3, padding="same")), WORDS),
    "Conv2d": (lambda: nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, groups=4, padding_mode="reflect")), MAPS),
    "Conv2d, no bias": (lambda: nn.Sequential(nn.Conv2d(8, 8, 3, dilation=2, bias=False), nn.BatchNorm2d(8)), MAPS),
    "Conv3d": (lambda: nn.Sequential(nn.Conv3d(8, 2, 3)), VOLUMES),
    "LSTM": (lambda: Recurrent(nn.LSTM), WORDS),
    "two-way LSTM": (lambda: Recurrent(nn.LSTM, bidirectional=True, proj_size=3, bias=False), WORDS),
    "GRU": (lambda: Recurrent(nn.GRU), WORDS),
    "RNN": (lambda: Recurrent(nn.RNN, nonlinearity="relu"), WORDS),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), WORDS),
    "double": (lambda: nn.Sequential(nn.Linear(8, 3, dtype=torch.float64)), VECTORS),
}
models = pytest.mark.parametrize("name", list(MODELS))


def make(name):
    torch.manual_seed(0)
    build, shape = MODELS[name]
    return build().eval(), torch.randn(shape, dtype=torch.float64 if name == "double" else None)


def portrait(model):
    """All that is to be as it was: classes, modes, and what the layers hold beside tensors."""
    return [
        (name, id(m), type(m), m.training, getattr(m, "p", None), sorted(vars(m)))
        for name, m in model.named_modules(remove_duplicate=False)
    ]


def same_tensors(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def varies(model, x):
    first, *others = [model(x).clone() for _ in range(6)]
    return any(not torch.allclose(first, other, atol=1e-5) for other in others)


@models
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("training", [True, False])
def test_calls_differ_in_either_mode(name, mode, training):
    model, x = make(name)
    with mode(), MCDropoutConnectModule(model).train(training) as mc_model:
        assert varies(mc_model, x)


@models
def test_a_call_draws_once_for_all_items(name):
    model, x = make(name)
    drawn = MCDropoutConnectModule(model).eval()(x[:1].expand_as(x))
    assert torch.allclose(drawn, drawn[:1].expand_as(drawn), atol=1e-5)


@models
def test_a_draw_is_the_same_for_all_batches_until_the_next_pass(name):
    model, x = make(name)
    mc_model = MCDropoutConnectModule(model, weight_dropout=0.3).eval()
    with torch.no_grad():
        whole = sample(mc_model, x, draws=4)
        halves = torch.cat([sample(mc_model, x[:1], draws=4), sample(mc_model, x[1:], draws=4)])
        assert whole.shape == (*model(x).shape, 4)
        assert torch.allclose(whole, halves, atol=1e-5)
        assert not torch.allclose(whole[..., 0], whole[..., 1])
        redraw(mc_model)
        assert not torch.allclose(sample(mc_model, x, draws=4), whole)


@models
def test_dropping_nothing_is_the_model_itself(name):
    model, x = make(name)
    expected = model(x)
    assert torch.equal(patch_module(model, list(KINDS), weight_dropout=0.0)(x), expected)


@models
def test_weights_and_all_else_of_the_layers_are_kept(name):
    model, _ = make(name)
    weights, shown = copy.deepcopy(model.state_dict()), [one.extra_repr() for one in model.modules()]
    patched = MCDropoutConnectModule(model, weight_dropout=0.5).parent_module
    assert same_tensors(patched.state_dict(), weights)
    assert all(one is other for one, other in zip(patched.parameters(), model.parameters(), strict=True))
    droppers = (nn.Dropout,)  # which show their p
    told = [one.extra_repr() for one in patched.modules() if not isinstance(one, droppers)]
    assert told == [text for text, one in zip(shown, model.modules(), strict=True) if not isinstance(one, droppers)]


@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
def test_a_share_p_of_the_weights_is_dropped_and_the_others_are_scaled(p):
    """The unit vectors make of a linear layer without bias a table of its weights."""
    torch.manual_seed(0)
    layer = patch_module(nn.Linear(60, 60, bias=False), weight_dropout=p)
    with torch.no_grad():
        used = layer(torch.eye(60)).T
        kept = layer.weight / (1 - p) if p < 1 else torch.zeros(60, 60)
        assert torch.equal(used == 0, ~torch.isclose(used, kept) | (kept == 0))
        assert (used == 0).double().mean() == pytest.approx(p, abs=0.03)


@pytest.mark.parametrize("name", ["no bias", "Conv1d", "Conv2d", "Conv3d"])
def test_the_mean_of_many_draws_is_the_model(name):
    model, x = make(name)
    with torch.no_grad():
        draws = sample(patch_module(model, weight_dropout=0.1, inplace=False), x, draws=100)
        error = (draws.mean(-1) - model(x)) / (draws.std(-1) / 10 + 1e-6)
    assert error.square().mean() < 2  # one, were draws independent among outputs


@pytest.mark.parametrize("name", ["LSTM", "two-way LSTM", "GRU", "RNN"])
def test_of_rnns_the_weights_between_steps_are_dropped(name):
    """With all of them dropped a step knows nothing of the one before."""
    model, x = make(name)
    bare = copy.deepcopy(model)
    with torch.no_grad():
        for key, weight in bare.named_parameters():
            if "weight_hh" in key:
                weight.zero_()
        assert torch.equal(patch_module(model, weight_dropout=1.0)(x), bare(x))


@models
def test_the_callers_model_is_left_as_it_was(name):
    model, x = make(name)
    before, weights, expected = portrait(model), copy.deepcopy(model.state_dict()), model(x)
    with MCDropoutConnectModule(model) as mc_model:
        sample(mc_model, x, draws=2)
        assert portrait(model) == before
        assert torch.equal(model(x), expected)
    assert [row[2:] for row in portrait(mc_model.parent_module)] == [row[2:] for row in before]
    assert torch.equal(mc_model(x), expected)
    assert torch.equal(model(x), expected)
    assert same_tensors(model.state_dict(), weights)


@models
def test_patching_in_place_can_be_undone_bit_for_bit(name):
    model, x = make(name)
    before, weights, expected = portrait(model), copy.deepcopy(model.state_dict()), model(x)
    assert patch_module(model, weight_dropout=0.5) is model
    sample(model, x, draws=2)
    assert varies(model, x)
    assert patch_module(model, weight_dropout=0.4) is model
    assert all(one._weight_dropout == 0.4 for one in model.modules() if isinstance(one, WeightDropMixin))
    assert unpatch_module(model) is model
    assert unpatch_module(model) is model
    assert portrait(model) == before
    assert torch.equal(model(x), expected)
    assert same_tensors(model.state_dict(), weights)


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@models
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), saved])
def test_a_patched_model_can_be_copied_pickled_and_saved(name, copied):
    model, x = make(name)
    patch_module(model, weight_dropout=0.5)
    sample(model, x, draws=2)
    model(x)
    twin = copied(model)
    with torch.no_grad():
        assert torch.allclose(sample(twin, x, draws=2), sample(model, x, draws=2))
        assert [type(m) for m in twin.modules()] == [type(m) for m in model.modules()]
        assert not varies(unpatch_module(twin), x)
        assert varies(model, x)
    assert same_tensors(twin.state_dict(), model.state_dict())


def test_patching_a_copy_leaves_the_model_as_it_was():
    model, x = make("Linear")
    before = portrait(model)
    patched = patch_module(model, ["Linear"], weight_dropout=0.5, inplace=False)
    assert portrait(model) == before
    assert not varies(unpatch_module(patched, inplace=False), x)
    assert varies(patched, x)


@models
def test_gradients_reach_the_weights_of_the_callers_model(name):
    model, x = make(name)
    mc_model = MCDropoutConnectModule(model, weight_dropout=0.3).train()
    mc_model(x).square().mean().backward()
    assert all(one.grad is not None for one in model.parameters())


@pytest.mark.parametrize("kind", [nn.Linear, nn.LSTM])
def test_the_loss_falls_in_training(kind):
    torch.manual_seed(0)
    x = torch.randn(64, 8, 8)
    target = x.sum(dim=(1, 2)).gt(0).long()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    if kind is nn.LSTM:
        model = nn.Sequential(Recurrent(nn.LSTM), nn.Flatten(), nn.Linear(48, 2))
    mc_model = MCDropoutConnectModule(model, weight_dropout=0.2).train()
    optimizer, losses = torch.optim.Adam(mc_model.parameters(), lr=1e-2), []
    for _ in range(60):
        optimizer.zero_grad()
        losses.append(F.cross_entropy(mc_model(x), target))
        losses[-1].backward()
        optimizer.step()
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_dropout_is_off_while_connections_are_dropped():
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.3), nn.Dropout2d(0.2), nn.Dropout(0.0))
    patch_module(model, ["Linear"], weight_dropout=0.5)
    patch_module(model, ["Linear"], weight_dropout=0.5)
    assert [layer.p for layer in model[1:]] == [0, 0, 0]
    unpatch_module(model)
    assert [layer.p for layer in model[1:]] == [0.3, 0.2, 0.0]


def test_only_layers_of_the_named_kinds_are_patched():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv1d(1, 1, 1), nn.Flatten(), nn.Linear(4, 4))

    def patched(layers):
        found = patch_module(model, layers, weight_dropout=0.5, inplace=False)
        return [isinstance(layer, WeightDropMixin) for layer in found]

    assert patched(["Linear"]) == patched("Linear") == [False, False, False, True]
    assert patched(["Conv2d"]) == [True, False, False, False]
    assert patched(["Conv"]) == [True, True, False, False]
    assert patched(["Conv1d", "Linear"]) == [False, True, False, True]


def test_patched_layers_are_of_the_named_classes():
    model = patch_module(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Linear(4, 4)), ["Conv2d", "Linear"], 0.5)
    assert [type(layer) for layer in model] == [WeightDropConv2d, WeightDropLinear]
    assert type(model[1].unpatch()) is nn.Linear
    assert "_weight_dropout" not in vars(model[1])


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("Linear", {"in_features": 8, "out_features": 3, "bias": False}, VECTORS),
        ("Conv2d", {"in_channels": 8, "out_channels": 4, "kernel_size": 3, "stride": 2, "groups": 2}, MAPS),
        ("LSTM", {"input_size": 8, "hidden_size": 4, "num_layers": 2}, WORDS),
    ],
)
def test_new_layers_with_dropconnect_can_be_made(name, options, shape):
    layer = get_weight_drop_module(name, 0.5, **options)
    model, x = (nn.Sequential(layer) if name != "LSTM" else layer), torch.randn(shape)
    run = (lambda x: model(x)[0]) if name == "LSTM" else model
    assert varies(run, x)
    unpatch_module(model)
    assert not varies(run, x)
    assert isinstance(layer, getattr(nn, name))


def test_unknown_kinds_are_refused_with_those_that_are_known():
    model = nn.Linear(2, 2)
    for refuse in (lambda: patch_module(model, ["Dense"]), lambda: MCDropoutConnectModule(model, ["Linear", "Dense"])):
        with pytest.raises(ValueError, match="Expected layers among Linear, Conv, .*LSTM.*, got Dense"):
            refuse()
    with pytest.raises(ValueError, match="got none"):
        patch_module(model, [])
    with pytest.raises(ValueError, match="Expected one of Conv1d, .*, got 'Conv'"):
        get_weight_drop_module("Conv", 0.5)
    assert type(model) is nn.Linear


@pytest.mark.parametrize("p", [-0.1, 1.5])
def test_a_rate_that_is_no_probability_is_refused(p):
    with pytest.raises(ValueError, match="from 0 to 1"):
        patch_module(nn.Linear(2, 2), weight_dropout=p)
    with pytest.raises(ValueError, match="from 0 to 1"):
        WeightDropLinear(p, in_features=2, out_features=2)


def test_a_model_with_nothing_to_drop_is_refused():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Dropout(0.5))
    with pytest.warns(UserWarning, match=r"No layer was modified by patch_module! .*it has Conv2d, Dropout"):
        patch_module(model, ["Linear"], weight_dropout=0.5)
    assert model[1].p == 0.5
    with pytest.raises(ValueError, match="Every draw of this model would be the same"):
        MCDropoutConnectModule(model, ["Linear"], weight_dropout=0.5)
    with pytest.raises(ValueError, match="weight_dropout=0"):
        MCDropoutConnectModule(model, ["Conv"], weight_dropout=0)
    assert unpatch_module(model) is model  # nothing to undo is fine


def test_attentions_projections_are_not_called_and_so_are_not_counted():
    with pytest.raises(ValueError, match="Every draw"):
        MCDropoutConnectModule(nn.MultiheadAttention(8, 2))
    encoder = MCDropoutConnectModule(make("encoder")[0])
    names = [name for name, one in encoder.parent_module.named_modules() if isinstance(one, WeightDropMixin)]
    assert names == ["linear1", "linear2"]


@pytest.mark.parametrize(
    ("layer", "advice"),
    [
        (lambda: parametrizations.weight_norm(nn.Linear(2, 2)), "remove_parametrizations"),
        (lambda: nn.LazyLinear(2), "call the model on a batch"),
    ],
)
def test_layers_without_a_weight_of_their_own_are_refused_and_left_alone(layer, advice):
    model = nn.Sequential(nn.Linear(2, 2), layer())
    with pytest.raises(ValueError, match=advice):
        patch_module(model, ["Linear"], weight_dropout=0.5)
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize("name", ["Linear", "LSTM"])
def test_seeds_govern_the_draws_and_what_comes_after_them(name):
    model, x = make(name)
    mc_model = MCDropoutConnectModule(model).eval()
    outcomes = []
    for _ in range(2):
        redraw(mc_model)
        torch.manual_seed(5)
        outcomes.append((sample(mc_model, x, draws=3), mc_model(x), torch.rand(3)))
    assert all(torch.equal(one, other) for one, other in zip(*outcomes, strict=True))


@pytest.mark.parametrize("name", ["Linear", "LSTM"])
def test_moving_or_casting_the_twin_moves_both(name):
    model, x = make(name)
    mc_model = MCDropoutConnectModule(model).to(torch.float64)
    assert all(one.dtype == torch.float64 for one in model.parameters())
    assert varies(mc_model, x.double())
    assert not varies(model, x.double())


def test_draws_spread_more_far_from_the_data_than_on_it():
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 64)[:, None]
    model = nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 1))
    mc_model = MCDropoutConnectModule(model, ["Linear"], weight_dropout=0.1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        F.mse_loss(mc_model(x), torch.sin(3 * x)).backward()
        optimizer.step()
    with torch.no_grad():
        near, far = (mc_model.sample(at, draws=100).std(-1).mean() for at in (x, torch.tensor([[-6.0], [6.0]])))
    assert far > 3 * near


@pytest.mark.gpu
@models
def test_masks_are_drawn_where_the_weights_are(name):
    model, x = make(name)
    model, x = model.cuda(), x.cuda()
    expected = model(x)
    with MCDropoutConnectModule(model) as mc_model:
        drawn = sample(mc_model, x, draws=4)
        assert drawn.device.type == "cuda"
        assert torch.allclose(drawn[:1], sample(mc_model, x[:1], draws=4), atol=1e-4)
        mc_model.train()(x).square().mean().backward()
    assert torch.allclose(model(x), expected)

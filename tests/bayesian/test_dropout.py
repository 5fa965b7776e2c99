import copy
import functools
import io
import pickle
import types

import pytest
import torch
from torch import nn

from baal_widgets.bayesian import BayesianModule
from baal_widgets.bayesian.common import sample, share_structure
from baal_widgets.bayesian.dropout import Dropout, MCDropoutModule, patch_module, stochastic_layers, unpatch_module


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)[0]


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn = kind(8, 6, num_layers=2, dropout=0.5, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0]


class Doubling(nn.Dropout):
    """A user's own kind of dropout."""

    def forward(self, x):
        return 2 * super().forward(x)


class Twice(nn.Module):
    """Uses one dropout layer in two places."""

    def __init__(self):
        super().__init__()
        self.one = nn.Dropout(0.5)
        self.two = self.one
        self.nothing = None

    def forward(self, x):
        return self.two(self.one(x))


def encoder_layer(**options):
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True, **options)


VECTORS, MAPS, VOLUMES, WORDS = (4, 8), (4, 8, 5, 5), (4, 8, 3, 3, 3), (4, 6, 8)
MODELS = {
    "Dropout": (lambda: nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)), VECTORS),
    "Dropout1d": (lambda: nn.Sequential(nn.Dropout1d(0.5)), WORDS),
    "Dropout2d": (lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.Dropout2d(0.5)), MAPS),
    "Dropout3d": (lambda: nn.Sequential(nn.Dropout3d(0.5)), VOLUMES),
    "AlphaDropout": (lambda: nn.Sequential(nn.AlphaDropout(0.5)), VECTORS),
    "FeatureAlphaDropout": (lambda: nn.Sequential(nn.FeatureAlphaDropout(0.5)), MAPS),
    "root": (lambda: nn.Dropout(0.5), VECTORS),
    "in place": (lambda: nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5, inplace=True)), VECTORS),
    "subclass": (lambda: nn.Sequential(Doubling(0.5)), VECTORS),
    "shared": (Twice, VECTORS),
    "LSTM": (lambda: Recurrent(nn.LSTM), WORDS),
    "GRU": (lambda: Recurrent(nn.GRU), WORDS),
    "RNN": (lambda: Recurrent(nn.RNN), WORDS),
    "attention": (Attention, WORDS),
    "encoder layer": (encoder_layer, WORDS),
    "encoder layer, norm first": (lambda: encoder_layer(norm_first=True, activation="gelu"), WORDS),
    "encoder": (lambda: nn.TransformerEncoder(encoder_layer(), 2, enable_nested_tensor=False), WORDS),
    "nested encoder": (lambda: nn.TransformerEncoder(encoder_layer(), 2), WORDS),
    "encoder in a model": (lambda: nn.Sequential(nn.Linear(8, 8), encoder_layer(), nn.Linear(8, 3)), WORDS),
    "beside a norm": (lambda: nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.5)), VECTORS),
}
models = pytest.mark.parametrize("name", list(MODELS))


def make(name):
    torch.manual_seed(0)
    build, shape = MODELS[name]
    return build().eval(), torch.randn(shape)


class MyDropout(Dropout):
    """A user's own kind of always-on dropout."""


class Listed(nn.Module):
    """Runs its layers by way of a plain list or dict."""

    def __init__(self, kind):
        super().__init__()
        self.linear, self.dropout = nn.Linear(8, 8), nn.Dropout(0.5)
        layers = [self.linear, self.dropout]
        self.layers = dict(enumerate(layers)) if kind is dict else kind(layers)

    def forward(self, x):
        for layer in self.layers.values() if isinstance(self.layers, dict) else self.layers:
            x = layer(x)
        return x


def given_forward(wrap):
    """A model whose `forward` was put into it, as libraries do that hook into others' models."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5))
    model.forward = wrap(lambda self, x: self[1](self[0](x)), model)
    return model


def varies(model, x):
    first, *others = [model(x).clone() for _ in range(6)]
    return any(not torch.allclose(first, other, atol=1e-5) for other in others)


def portrait(model):
    """All that is to be as it was: classes, modes, tensors and what is shared."""
    return [(name, id(m), type(m), m.training) for name, m in model.named_modules(remove_duplicate=False)]


@models
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_draws_differ_in_eval_mode(name, mode):
    model, x = make(name)
    mc_model = MCDropoutModule(model).eval()
    with mode():
        assert varies(mc_model, x)
        assert not varies(model, x)


@models
def test_draws_have_the_mean_scale_of_training(name):
    """The draws are those of the model in training mode, with the same seed."""
    model, x = make(name)
    mc_model = MCDropoutModule(copy.deepcopy(model).eval())
    if name != "beside a norm":  # which is to stay in eval mode
        torch.manual_seed(1)
        drawn = mc_model(x)
        torch.manual_seed(1)
        assert torch.allclose(drawn, model.train()(x), atol=1e-6)


@models
def test_the_callers_model_is_left_as_it_was(name):
    model, x = make(name)
    before, weights, expected = portrait(model), copy.deepcopy(model.state_dict()), model(x)
    mc_model = MCDropoutModule(model)
    mc_model.train()
    mc_model(x.clone())
    mc_model.eval()
    assert portrait(model) == before
    mc_model.load_state_dict(mc_model.state_dict())
    if name != "beside a norm":  # whose statistics are shared
        assert torch.equal(model(x), expected)
        assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


@models
def test_patching_in_place_can_be_undone_bit_for_bit(name):
    model, x = make(name)
    next(iter(model.modules())).train(False)
    before, weights, expected = portrait(model), copy.deepcopy(model.state_dict()), model(x)
    patched = patch_module(model)
    assert patched is model
    with torch.no_grad():
        assert varies(model, x)
    assert patch_module(model) is model  # once more changes nothing
    assert unpatch_module(model) is model
    assert portrait(model) == before
    assert torch.equal(model(x), expected)
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


@models
def test_patching_a_copy_leaves_the_model_as_it_was(name):
    model, x = make(name)
    before = portrait(model)
    patched = patch_module(model, inplace=False)
    assert portrait(model) == before
    with torch.no_grad():
        assert varies(patched, x)
        unpatched = unpatch_module(patched, inplace=False)
        assert varies(patched, x)
        assert not varies(unpatched, x)
    assert [type(m) for m in unpatched.modules()] == [type(m) for m in model.modules()]


@models
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_patched_model_can_be_copied_and_pickled(name, copied):
    model, x = make(name)
    twin = copied(patch_module(model))
    with torch.no_grad():
        assert varies(twin, x)
        assert not varies(unpatch_module(twin), x)
        assert varies(model, x)
    assert all(torch.equal(value, twin.state_dict()[key]) for key, value in model.state_dict().items())


@models
def test_modes_that_were_set_while_patched_are_kept(name):
    model, _ = make(name)
    patch_module(model).train()
    unpatch_module(model)
    assert all(layer.training for layer in model.modules())


@pytest.mark.parametrize("name", ["Dropout", "LSTM", "encoder layer"])
def test_one_optimizer_trains_the_model_and_its_stochastic_twin(name):
    model, x = make(name)
    mc_model = MCDropoutModule(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = copy.deepcopy(model.state_dict())
    mc_model.train()
    mc_model(x).square().mean().backward()
    optimizer.step()
    assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(one is other for one, other in zip(model.parameters(), mc_model.parameters(), strict=True))


@models
def test_moving_or_casting_the_twin_moves_both(name):
    model, x = make(name)
    mc_model = MCDropoutModule(model).to(torch.float64)
    assert all(p.dtype == torch.float64 for p in model.parameters())
    x = x.double()
    with torch.no_grad():
        assert varies(mc_model, x)
        assert not varies(model, x)


def test_the_draws_end_with_the_block():
    model, x = make("Dropout")
    with MCDropoutModule(model) as mc_model:
        assert isinstance(mc_model, BayesianModule)
        assert varies(mc_model, x)
    assert not varies(mc_model, x)
    assert not varies(model, x)


@pytest.mark.parametrize("name", ["Dropout", "root", "encoder", "shared"])
def test_an_error_in_the_block_puts_everything_back_too(name):
    model, x = make(name)
    before = portrait(model)
    with pytest.raises(RuntimeError, match="in the block"), MCDropoutModule(model) as mc_model:
        raise RuntimeError("in the block")
    assert portrait(model) == before
    assert [type(m) for m in mc_model.parent_module.modules()] == [type(m) for m in model.modules()]
    assert not varies(mc_model, x)


def test_what_was_unpatched_in_the_block_can_be_left():
    model, x = make("Dropout")
    with MCDropoutModule(model) as mc_model:
        assert not varies(mc_model.unpatch(), x)


def test_shared_layers_stay_shared():
    model, _ = make("shared")
    twin = MCDropoutModule(model).parent_module
    assert twin.one is twin.two
    assert twin.one is not model.one
    assert twin.nothing is None


LED = {
    "list": lambda: Listed(list),
    "tuple": lambda: Listed(tuple),
    "dict": lambda: Listed(dict),
    "method": lambda: given_forward(types.MethodType),
    "partial": lambda: given_forward(functools.partial),
}


@pytest.mark.parametrize("kind", list(LED))
def test_layers_that_a_model_reaches_by_another_way_are_stochastic_too(kind):
    model, x = LED[kind]().eval(), torch.ones(4, 8)
    before = portrait(model)
    with torch.no_grad():
        assert varies(MCDropoutModule(model).eval(), x)
        assert not varies(model, x)
    assert portrait(model) == before


def test_what_a_model_keeps_beside_its_layers_stays_the_very_same():
    model = nn.Sequential(nn.Dropout(0.5))
    model.seen, model.names = [], {"a": 1}
    twin = MCDropoutModule(model).parent_module
    assert twin.seen is model.seen
    assert twin.names is model.names


def test_a_class_derived_from_always_on_dropout_stays_on():
    model = nn.Sequential(MyDropout(0.5)).eval()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), unpatch_module(patch_module(model))):
        assert type(twin[0]) is MyDropout
        assert varies(twin, torch.ones(50))


def test_always_on_dropout_can_be_used_as_a_layer_and_turned_off():
    model, x = nn.Sequential(Dropout(0.5)).eval(), torch.ones(50)
    assert varies(model, x)
    assert not varies(unpatch_module(model), x)
    assert type(model[0]) is nn.Dropout


def test_tied_weights_stay_tied():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    twin = share_structure(model)
    assert twin[2].weight is twin[0].weight is model[0].weight


def test_a_users_own_dropout_keeps_its_forward():
    model = patch_module(nn.Sequential(Doubling(0.5))).eval()
    assert set(model(torch.ones(100)).tolist()) == {0.0, 4.0}
    assert isinstance(model[0], Doubling)
    assert isinstance(model[0], nn.Dropout)


def test_only_what_drops_is_named():
    model = nn.Sequential(
        nn.Linear(2, 2), nn.Dropout(0), nn.Dropout(0.1), nn.LSTM(2, 2, dropout=0, num_layers=2), nn.GRU(2, 2)
    )
    assert stochastic_layers(model) == ["2"]
    assert stochastic_layers(nn.Dropout(0.1)) == [""]
    assert "self_attn" in stochastic_layers(encoder_layer())


NOTHING = [
    lambda: nn.Linear(2, 2),
    lambda: nn.Sequential(nn.Dropout(0)),
    lambda: nn.LSTM(2, 2, num_layers=2),
    lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0),
]


@pytest.mark.parametrize("build", NOTHING)
def test_a_model_without_dropout_is_warned_of_and_refused(build):
    with pytest.warns(UserWarning, match="No layer was modified by patch_module"):
        patch_module(build())
    with pytest.raises(ValueError, match="has no dropout that is on"):
        MCDropoutModule(build())
    assert unpatch_module(build())  # nothing to undo is fine


def test_weights_are_saved_without_a_trace_of_the_patch():
    model, _ = make("Dropout")
    file = io.BytesIO()
    torch.save(patch_module(model).state_dict(), file)
    file.seek(0)
    make("Dropout")[0].load_state_dict(torch.load(file, weights_only=True))


def test_arguments_by_name_reach_the_model():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.dropout = nn.Dropout(0.5)

        def forward(self, x, *, scale):
            return self.dropout(x) * scale

    assert set(MCDropoutModule(Named())(torch.ones(50), scale=3).tolist()) == {0.0, 6.0}


@pytest.mark.parametrize(("draws", "replicate"), [(1, True), (5, False), (5, True)])
def test_dropout_in_place_leaves_the_batch_and_drops_no_more_in_later_draws(draws, replicate):
    model, x = MCDropoutModule(nn.Sequential(nn.Dropout(0.5, inplace=True))).eval(), torch.ones(4, 100)
    dropped = model.sample(x, draws, replicate)
    assert torch.equal(x, torch.ones(4, 100))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert (dropped == 0).float().mean(dim=(0, 1)).max() < 0.7


@pytest.mark.parametrize(
    "compiled", [torch.compile, lambda model, **_: nn.Sequential(torch.compile(model, backend="eager"))]
)
def test_a_compiled_model_is_refused_since_it_would_go_on_without_dropout(compiled):
    model = compiled(nn.Sequential(nn.Linear(3, 8), nn.Dropout(), nn.Linear(8, 2)).eval(), backend="eager")
    with pytest.raises(ValueError, match="Expected a model that is not compiled, got one from torch.compile"):
        MCDropoutModule(model)


def test_a_stochastic_model_that_is_compiled_is_refused_when_it_is_to_draw():
    model = torch.compile(MCDropoutModule(nn.Sequential(nn.Dropout(), nn.Linear(3, 2))).eval(), backend="eager")
    with pytest.raises(ValueError, match="Give the model as it was before"):
        sample(model, torch.ones(4, 3), 5)
    plain = torch.compile(nn.Linear(3, 2).eval(), backend="eager")
    assert sample(plain, torch.ones(4, 3), 5).shape == (4, 2, 5)

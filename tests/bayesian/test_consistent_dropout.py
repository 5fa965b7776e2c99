import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from baal_widgets.bayesian.common import draw_number, redraw, sample
from baal_widgets.bayesian.consistent_dropout import (
    ConsistentDropout,
    ConsistentDropout2d,
    MCConsistentDropoutModule,
    consistent_layers,
    patch_module,
    unpatch_module,
)
from baal_widgets.bayesian.dropout import MCDropoutModule
from baal_widgets.bayesian.dropout import patch_module as keep_on


class Doubling(nn.Dropout):
    """A user's own kind of dropout."""

    def forward(self, x):
        return 2 * super().forward(x)


class MyConsistent(ConsistentDropout):
    """A user's own kind of consistent dropout."""


class Twice(nn.Module):
    """Uses one dropout layer in two places."""

    def __init__(self):
        super().__init__()
        self.one = nn.Dropout(0.5)
        self.two = self.one

    def forward(self, x):
        return self.two(self.one(x) + 1)


def encoder_layer(**options):
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True, **options)


VECTORS, WORDS, MAPS, VOLUMES = (4, 8), (4, 8, 8), (4, 8, 5, 5), (4, 8, 3, 3, 3)
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
    "encoder": (lambda: nn.TransformerEncoder(encoder_layer(), 2, enable_nested_tensor=False), WORDS),
    "nested encoder": (lambda: nn.TransformerEncoder(encoder_layer(), 2), WORDS),
    "encoder, norm first": (lambda: encoder_layer(norm_first=True, activation="gelu"), WORDS),
    "beside a norm": (lambda: nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.5)), VECTORS),
}
models = pytest.mark.parametrize("name", list(MODELS))
LAYERS = {
    "Dropout": (nn.Dropout, (5, 6, 7), (6, 7)),
    "Dropout1d": (nn.Dropout1d, (5, 6, 7), (6, 1)),
    "Dropout2d": (nn.Dropout2d, (5, 6, 7, 8), (6, 1, 1)),
    "Dropout2d of sequences": (nn.Dropout2d, (5, 6, 7), (6, 1)),
    "Dropout3d": (nn.Dropout3d, (5, 6, 2, 3, 4), (6, 1, 1, 1)),
    "AlphaDropout": (nn.AlphaDropout, (5, 6, 7), (6, 7)),
    "FeatureAlphaDropout": (nn.FeatureAlphaDropout, (5, 6, 7, 8), (6, 1, 1)),
    "one sequence": (nn.Dropout1d, (6, 7), None),
    "one volume": (nn.Dropout3d, (6, 2, 3, 4), None),
}


def make(name):
    torch.manual_seed(0)
    build, shape = MODELS[name]
    return build().eval(), torch.randn(shape)


def portrait(model):
    """All that is to be as it was: classes, modes, and what the layers hold beside tensors."""
    return [
        (name, id(m), type(m), m.training, sorted(vars(m))) for name, m in model.named_modules(remove_duplicate=False)
    ]


def same_tensors(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def varies(model, x):
    first, *others = [model(x.clone()).clone() for _ in range(6)]
    return any(not torch.allclose(first, other, atol=1e-5) for other in others)


@models
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_each_call_has_a_new_mask_that_all_items_share(name, mode):
    model, x = make(name)
    same = x[:1].expand_as(x).clone()
    mc_model = MCConsistentDropoutModule(model).eval()
    with mode():
        drawn = mc_model(same.clone())
        assert torch.allclose(drawn, drawn[:1].expand_as(drawn), atol=1e-6)
        assert varies(mc_model, x)
        assert not varies(model, x)


@models
def test_a_draw_is_the_same_for_all_batches_until_the_next_pass(name):
    model, x = make(name)
    mc_model = MCConsistentDropoutModule(model).eval()
    with torch.no_grad():
        whole = sample(mc_model, x, draws=6)
        halves = torch.cat([sample(mc_model, x[:1].clone(), draws=6), sample(mc_model, x[1:].clone(), draws=6)])
        assert whole.shape == (*model(x).shape, 6)
        assert torch.allclose(whole, halves, atol=1e-6)
        assert any(not torch.allclose(whole[..., 0], whole[..., draw]) for draw in range(1, 6))
        redraw(mc_model)
        assert not torch.allclose(sample(mc_model, x, draws=6), whole)


@pytest.mark.filterwarnings("ignore:dropout2d. Received a 3D input")
@pytest.mark.parametrize("name", list(LAYERS))
def test_what_is_dropped_has_the_shape_of_one_item(name):
    kind, shape, item = LAYERS[name]
    x = torch.ones(shape)
    drawn = patch_module(kind(0.5)).eval()(x)
    features = (6, *(1 for _ in shape[1:])) if item is None else (1, *item)
    values = drawn[tuple(slice(0, size) if size == 1 else slice(None) for size in features)]
    assert torch.equal(drawn, values.expand(shape))
    assert len(values.unique()) == 2
    assert len(values) == (6 if item is None else 1)


@pytest.mark.filterwarnings("ignore:dropout2d. Received a 3D input")
@pytest.mark.parametrize("name", list(LAYERS))
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_values_are_those_of_torchs_own_dropout(name, p):
    kind, shape, _ = LAYERS[name]
    torch.manual_seed(0)
    x, layer = torch.full(shape, 0.7), kind(p)
    own = torch.cat([layer(x.clone()).flatten() for _ in range(100)])
    consistent = patch_module(kind(p)).eval()
    drawn = torch.cat([consistent(x.clone()).flatten() for _ in range(100)])
    assert torch.allclose(drawn.unique(), own.unique(), atol=1e-5)
    assert (drawn == drawn.min()).double().mean() == pytest.approx(p, abs=0.08)  # the least value is the dropped one


def test_alpha_dropout_keeps_mean_and_variance():
    torch.manual_seed(0)
    x = torch.randn(4000, 200)
    drawn = patch_module(nn.AlphaDropout(0.3)).eval()(F.selu(x))
    assert float(drawn.mean()) == pytest.approx(float(F.selu(x).mean()), abs=0.15)
    assert float(drawn.std()) == pytest.approx(float(F.selu(x).std()), abs=0.15)


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout2d, nn.AlphaDropout])
def test_what_is_always_dropped_is_zero(kind):
    assert torch.equal(patch_module(kind(1.0)).eval()(torch.ones(2, 3, 4, 5)), torch.zeros(2, 3, 4, 5))


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_the_mean_of_many_draws_is_the_input(p):
    torch.manual_seed(0)
    layer, x = ConsistentDropout(p).eval(), torch.ones(2, 50)
    assert float(sample(layer, x, draws=400).mean()) == pytest.approx(1, abs=0.02)


@models
def test_training_mode_is_that_of_the_model_itself(name):
    model, x = make(name)
    mc_model = MCConsistentDropoutModule(copy.deepcopy(model)).train()
    torch.manual_seed(1)
    drawn = mc_model(x.clone())
    torch.manual_seed(1)
    assert torch.equal(drawn, model.train()(x.clone()))


def test_inputs_of_another_shape_within_a_draw_have_a_mask_of_their_own():
    layer = ConsistentDropout2d(0.5).eval()
    with draw_number(layer, 3):
        small, large = layer(torch.ones(2, 64, 4, 4)), layer(torch.ones(3, 64, 8, 8))
        wide = layer(torch.ones(2, 128, 4, 4))
        assert torch.equal(small, layer(torch.ones(2, 64, 4, 4)))
    assert torch.equal(small[0, :, 0, 0], large[0, :, 0, 0])  # of channels there are as many
    assert wide.shape == (2, 128, 4, 4)
    assert set(wide.unique().tolist()) == {0.0, 2.0}


@models
def test_seeds_govern_the_draws_and_what_comes_after_them(name):
    model, x = make(name)
    mc_model = MCConsistentDropoutModule(model).eval()
    outcomes = []
    for _ in range(2):
        redraw(mc_model)
        torch.manual_seed(5)
        outcomes.append((sample(mc_model, x.clone(), draws=3), mc_model(x.clone()), torch.rand(3)))
    assert all(torch.equal(one, other) for one, other in zip(*outcomes, strict=True))


@models
def test_the_callers_model_is_left_as_it_was(name):
    model, x = make(name)
    before, weights, expected = portrait(model), copy.deepcopy(model.state_dict()), model(x.clone())
    with MCConsistentDropoutModule(model) as mc_model:
        sample(mc_model.eval(), x.clone(), draws=2)
    assert portrait(model) == before
    assert portrait(mc_model.parent_module)[0][2:4] == before[0][2:4]
    assert torch.equal(model(x.clone()), expected)
    assert torch.equal(mc_model(x.clone()), expected)
    assert same_tensors(model.state_dict(), weights)


@models
def test_patching_in_place_can_be_undone_bit_for_bit(name):
    model, x = make(name)
    before, weights, expected = portrait(model), copy.deepcopy(model.state_dict()), model(x.clone())
    assert patch_module(model) is model
    with torch.no_grad():
        sample(model, x.clone(), draws=2)
        assert varies(model, x)
    patched = [type(m) for m in model.modules()]
    assert patch_module(model) is model  # once more changes nothing
    assert [type(m) for m in model.modules()] == patched
    assert unpatch_module(model) is model
    assert unpatch_module(model) is model
    assert portrait(model) == before
    assert torch.equal(model(x.clone()), expected)
    assert same_tensors(model.state_dict(), weights)


@models
def test_modes_that_were_set_while_patched_are_kept(name):
    model, _ = make(name)
    patch_module(model).train()
    unpatch_module(model)
    assert all(layer.training for layer in model.modules())


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@models
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), saved])
def test_a_patched_model_can_be_copied_pickled_and_saved(name, copied):
    model, x = make(name)
    patch_module(model)
    sample(model, x.clone(), draws=2)
    twin = copied(model)
    with torch.no_grad():
        assert torch.allclose(sample(twin, x.clone(), draws=2), sample(model, x.clone(), draws=2))
        assert varies(twin, x)
        assert [type(m) for m in twin.modules()] == [type(m) for m in model.modules()]
        assert not varies(unpatch_module(twin), x)
        assert varies(model, x)
    assert same_tensors(twin.state_dict(), model.state_dict())


def test_a_patched_copy_leaves_the_model_as_it_was():
    model, x = make("Dropout")
    before = portrait(model)
    patched = patch_module(model, inplace=False)
    assert portrait(model) == before
    unpatched = unpatch_module(patched, inplace=False)
    assert varies(patched, x)
    assert not varies(unpatched, x)


def test_patched_layers_are_of_the_named_classes_and_can_be_made_directly():
    model = patch_module(nn.Sequential(nn.Dropout(0.3), nn.Dropout2d(0.4)))
    assert [type(layer) for layer in model] == [ConsistentDropout, ConsistentDropout2d]
    direct = nn.Sequential(ConsistentDropout(0.3), ConsistentDropout2d(0.4))
    assert [type(layer) for layer in unpatch_module(direct)] == [nn.Dropout, nn.Dropout2d]
    assert [layer.p for layer in direct] == [0.3, 0.4]


def test_a_class_derived_from_consistent_dropout_stays():
    model = nn.Sequential(MyConsistent(0.5)).eval()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), unpatch_module(patch_module(model))):
        assert type(twin[0]) is MyConsistent
        assert varies(twin, torch.ones(2, 50))


def test_a_users_own_dropout_keeps_its_forward():
    model = patch_module(nn.Sequential(Doubling(0.5))).eval()
    assert set(model(torch.ones(2, 100)).unique().tolist()) == {0.0, 4.0}


def test_dropout_in_place_leaves_its_input_as_it_was():
    x = torch.ones(2, 100)
    drawn = patch_module(nn.Dropout(0.5, inplace=True)).eval()(x)
    assert set(drawn.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(x, torch.ones(2, 100))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", [nn.Dropout, nn.AlphaDropout])
def test_the_type_of_numbers_is_kept_and_the_mask_does_not_depend_on_it(dtype, kind):
    layer, x = patch_module(kind(0.5)).eval(), torch.ones(2, 30)
    with draw_number(layer, 0):
        drawn = layer(x.to(dtype))
        assert drawn.dtype == dtype
        assert torch.allclose(drawn.float(), layer(x), rtol=1e-2)


def test_gradients_flow_through_a_draw():
    layer, x = ConsistentDropout(0.5).eval(), torch.ones(2, 30, requires_grad=True)
    drawn = layer(x)
    drawn.sum().backward()
    assert torch.equal(x.grad, drawn.detach())


@pytest.mark.parametrize(
    "build", [lambda: nn.Linear(2, 2), lambda: nn.Dropout(0), lambda: nn.LSTM(2, 2, 2, dropout=0.5)]
)
def test_a_model_without_dropout_layers_is_refused(build):
    with pytest.warns(UserWarning, match=r"No layer was modified by patch_module! .*put nn.Dropout"):
        patch_module(build())
    with pytest.raises(ValueError, match="Every draw of this model would be the same"):
        MCConsistentDropoutModule(build())
    assert unpatch_module(build())  # nothing to undo is fine
    assert consistent_layers(build()) == []


def test_a_model_with_dropout_that_stays_on_is_refused_and_left_alone():
    model = keep_on(nn.Sequential(nn.Dropout(0.5)))
    before = portrait(model)
    with pytest.raises(ValueError, match="unpatch_module"):
        patch_module(model)
    assert portrait(model) == before


def test_mc_dropout_of_a_consistent_model_has_a_mask_for_each_item():
    model = nn.Sequential(ConsistentDropout(0.5)).eval()
    drawn = MCDropoutModule(model).eval()(torch.ones(2, 100))
    assert not torch.equal(drawn[0], drawn[1])


def test_draws_spread_more_far_from_the_data_than_on_it():
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 64)[:, None]
    model = nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        F.mse_loss(model(x), torch.sin(3 * x)).backward()
        optimizer.step()
    with torch.no_grad(), MCConsistentDropoutModule(model) as mc_model:
        mc_model.eval()
        near, far = (sample(mc_model, at, draws=100).std(-1).mean() for at in (x, torch.tensor([[-6.0], [6.0]])))
    assert far > 3 * near


@pytest.mark.gpu
def test_masks_are_drawn_where_the_items_are():
    layer, x = ConsistentDropout(0.5).eval(), torch.ones(3, 50, device="cuda")
    drawn = sample(layer, x, draws=4)
    assert drawn.device.type == "cuda"
    assert torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn, sample(layer, x, draws=4))

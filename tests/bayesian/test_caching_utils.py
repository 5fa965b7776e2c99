import copy
import pickle

import pytest
import torch
from torch import nn
from torch.func import functional_call

from baal_widgets.bayesian.caching_utils import Cached, LRUCacheModule, MCCachingModule, patch_module, unpatch_module
from baal_widgets.bayesian.common import sample, sample_calls
from baal_widgets.bayesian.dropout import MCDropoutModule
from baal_widgets.bayesian.features import features_of
from baal_widgets.bayesian.swapping import swapped
from baal_widgets.modelwrapper import ModelWrapper


class Counting(nn.Module):
    """A layer of the user's own, not known to be deterministic, that counts its calls."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, x):
        self.calls += 1
        return self.inner(x)


class Residual(nn.Module):
    """Convolutions with arithmetic and in-place layers between them."""

    def __init__(self):
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)
        self.relu, self.drop, self.last = nn.ELU(inplace=True), nn.Dropout(0.5), nn.Linear(32, 3)

    def forward(self, x):
        out = self.two(self.relu(self.norm(self.one(x))))
        out += x
        return self.last(self.drop(self.relu(out).flatten(1)))


def chain():
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ELU(inplace=True), nn.Flatten()),
        nn.Linear(64, 16),
        nn.ELU(inplace=True),
        nn.Dropout(0.5, inplace=True),
        nn.Linear(16, 3),
    )


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.drop, self.last = nn.LSTM(16, 6, batch_first=True), nn.Dropout(0.5), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.drop(self.rnn(input=x.flatten(2))[0][:, -1]))


MODELS = {"chain": chain, "residual": Residual, "words": Words}


def images(n=5, seed=0):
    return torch.randn(n, 2, 4, 4, generator=torch.Generator().manual_seed(seed))


def make(kind):
    torch.manual_seed(0)
    model = kind().train()
    for _ in range(3):
        model(images(8))  # statistics that are not the initial ones
    return model.eval()


def runs(monkeypatch, *kinds):
    """Counts how often the layers of a kind really compute."""
    count = dict.fromkeys(kinds, 0)
    for kind in kinds:
        original = kind.forward

        def forward(self, *args, kind=kind, original=original, **kwargs):
            count[kind] += 1
            return original(self, *args, **kwargs)

        monkeypatch.setattr(kind, "forward", forward)
    return count


@pytest.mark.parametrize("kind", MODELS.values(), ids=MODELS)
def test_draws_are_bit_for_bit_those_of_the_model_within(kind):
    model = MCDropoutModule(make(kind)).eval()
    with torch.no_grad():
        torch.manual_seed(1)
        expected = [sample_calls(model, images(seed=seed), 6, replicate=False) for seed in (0, 1, 0)]
        caching = MCCachingModule(model).eval()
        torch.manual_seed(1)
        for seed, draws in zip((0, 1, 0), expected, strict=True):
            assert torch.equal(sample(caching, images(seed=seed), 6), draws)
        torch.manual_seed(1)
        for seed, draws in zip((0, 1, 0), expected, strict=True):  # by calls, with nothing forgotten between
            x = images(seed=seed)
            assert torch.equal(torch.stack([caching(x) for _ in range(6)], -1), draws)
    assert expected[0].std(-1).min() > 0


def test_layers_before_the_first_dropout_run_once_a_batch(monkeypatch):
    model = MCCachingModule(MCDropoutModule(make(chain))).eval()
    count = runs(monkeypatch, nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    with torch.no_grad():
        model.sample(images(), 10)
        # the first linear layer's output is written over, which is seen the second time
        assert count == {nn.Conv2d: 1, nn.BatchNorm2d: 1, nn.Linear: 2 + 10}
        model.sample(images(), 10)
    assert count[nn.Conv2d] == 2  # and nothing outlives `sample`


def test_equal_inputs_are_as_good_as_the_same_ones(monkeypatch):
    model = MCCachingModule(MCDropoutModule(make(Residual))).eval()
    count = runs(monkeypatch, nn.Conv2d)
    with torch.no_grad():
        model.sample(images(), 10)
        assert count[nn.Conv2d] <= 4
        before = count[nn.Conv2d]
        for _ in range(5):
            model(images())
        assert count[nn.Conv2d] <= before + 4


@pytest.mark.parametrize("kind", MODELS.values(), ids=MODELS)
def test_the_block_gives_the_model_back(kind):
    model = make(kind)
    model.train()
    list(model.modules())[1].eval()
    classes, modes = [type(m) for m in model.modules()], [m.training for m in model.modules()]
    names = [sorted(vars(m)) for m in model.modules()]
    with MCCachingModule(model) as caching:
        caching.eval()
        with torch.no_grad():
            caching(images())
    back = caching.parent_module
    for other in (model, back):
        assert [type(m) for m in other.modules()] == classes
        assert [sorted(vars(m)) for m in other.modules()] == names
    assert [m.training for m in model.modules()] == modes
    patched = patch_module(model)
    assert patched is model
    assert [type(m) for m in model.modules()] != classes
    assert [type(m) for m in unpatch_module(model).modules()] == classes
    assert [m.training for m in model.modules()] == modes
    other = patch_module(model, inplace=False)
    assert [type(m) for m in model.modules()] == classes
    assert [type(m) for m in unpatch_module(other, inplace=False).modules()] == classes
    assert [type(m) for m in other.modules()] != classes


def changes(layer):
    """Ways in which a layer's weights change."""

    def step():
        optimizer = torch.optim.SGD(layer.parameters(), 0.5)
        for one in layer.parameters():
            one.grad = torch.ones_like(one)
        optimizer.step()

    def load():
        layer.load_state_dict({name: one + 1 for name, one in layer.state_dict().items()})

    def replace():
        layer.weight.data = layer.weight.data + 1

    def renew():
        layer.weight = nn.Parameter(layer.weight.detach() + 1)

    def cast():
        layer.double().weight.data.mul_(1.5)
        layer.float()

    return {"step": step, "load": load, "data": replace, "new parameter": renew, "cast": cast}


@pytest.mark.parametrize("way", changes(nn.Linear(1, 1)))
def test_other_weights_give_other_outputs(way):
    layer = nn.Linear(4, 3).eval()
    for caching in (LRUCacheModule(layer), patch_module(nn.Sequential(layer))):
        x = torch.randn(2, 4)
        with torch.no_grad():
            before = caching.eval()(x)
            assert caching(x) is before
        changes(layer)[way]()
        with torch.no_grad():
            after = caching(x)
            assert not torch.equal(after, before)
            assert torch.equal(after, nn.functional.linear(x, layer.weight, layer.bias))


def test_statistics_count_as_weights():
    layer = patch_module(nn.Sequential(nn.BatchNorm1d(4))).eval()
    x = torch.randn(8, 4)
    with torch.no_grad():
        before = layer(x)
        layer.train()(x)
        assert not torch.equal(layer.eval()(x), before)


def test_weights_lent_for_a_call_count_too():
    layer = patch_module(nn.Sequential(nn.Linear(4, 3))).eval()
    x = torch.randn(2, 4)
    with torch.no_grad():
        before = layer(x)
        other = {name: one + 1 for name, one in layer.named_parameters()}
        assert not torch.equal(functional_call(layer, other, (x,)), before)
        assert torch.equal(layer(x), before)


def test_an_input_that_changed_in_place_is_another_input():
    layer, x = patch_module(nn.Sequential(nn.Linear(4, 3))).eval(), torch.randn(2, 4)
    with torch.no_grad():
        before = layer(x)
        x += 1
        after = layer(x)
        assert not torch.equal(after, before)
        assert torch.equal(after, unpatch_module(layer, inplace=False)(x))
        x -= 1  # equal to the first again, and not to what is remembered
        assert torch.allclose(layer(x), before)


def test_an_output_that_was_written_over_is_not_given_again():
    layer, x = patch_module(nn.Sequential(nn.Linear(4, 3))).eval(), torch.randn(2, 4)
    with torch.no_grad():
        expected = layer(x).clone()
        for _ in range(4):
            output = layer(x)
            assert torch.equal(output, expected)
            output.zero_()


def test_a_layer_that_writes_over_its_input_runs_each_time():
    layer = patch_module(nn.Sequential(nn.ELU(inplace=True), nn.Linear(4, 3))).eval()
    x = torch.randn(2, 4)
    with torch.no_grad():
        layer(x)
        once = x.clone()
        layer(x)
    assert torch.equal(x, nn.functional.elu(once))
    assert not torch.equal(x, once)


def test_gradients_and_training_are_never_remembered():
    model, x = patch_module(make(chain)), images()
    for _ in range(2):
        model.zero_grad()
        model(x).sum().backward()
        assert model[0][0].weight.grad.abs().sum() > 0
    model.train()
    with torch.no_grad():
        first, second = model[0](x).clone(), model[0][1].running_mean.clone()
        model[0](x)
        assert not torch.equal(model[0][1].running_mean, second)
        model.eval()
        model[0][1].train()  # one part alone
        assert torch.equal(model[0](x), first)
        third = model[0][1].running_mean.clone()
        model[0](x)
        assert not torch.equal(model[0][1].running_mean, third)


def test_inference_mode_is_fine():
    layer = patch_module(nn.Sequential(nn.Linear(4, 3))).eval()
    with torch.inference_mode():
        x = torch.randn(2, 4)
        before = layer(x).clone()
        x += 1
        assert not torch.equal(layer(x), before)


def test_autocast_is_told_apart():
    layer, x = patch_module(nn.Sequential(nn.Linear(4, 3))).eval(), torch.randn(2, 4)
    with torch.no_grad():
        assert layer(x).dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        assert layer(x).dtype == torch.float32


def test_hooks_run_on_every_call_and_keywords_work():
    model, x, heard = patch_module(make(chain)), images(), []
    model[0].register_forward_hook(lambda *_: heard.append("outside"))
    with torch.no_grad():
        expected = model(x).clone()
        for _ in range(3):
            assert torch.equal(model(input=x), expected)
        assert heard == ["outside"] * 4
        model[0][0].register_forward_hook(lambda *_: heard.append("inside"))
        for _ in range(3):
            model(x)
    assert heard[4:] == ["inside", "outside"] * 3
    assert features_of(model, x, "0.0").shape == (5, 32)


def test_keywords_tell_calls_apart():
    class Scaled(nn.Linear):
        def forward(self, x, scale=1.0, also=None):
            return scale * super().forward(x)

    layer, x = LRUCacheModule(Scaled(4, 3)).eval(), torch.randn(2, 4)
    with torch.no_grad():
        one, two = layer(x, scale=1.0), layer(x, scale=2.0)
        assert torch.equal(2 * one, two)
        assert layer(x, scale=2.0) is two
        assert layer(x, scale=2.0, also={"a": [x]}) is not two
        three = layer(x, scale=2.0, also={"a": [x]})
        assert layer(x.clone(), scale=2.0, also={"a": [x.clone()]}) is three
        assert layer(x, scale=2.0, also={"b": [x]}) is not three


def test_layers_of_other_makes_run_each_time():
    inner = Counting(nn.Linear(32, 3))
    model = MCCachingModule(nn.Sequential(nn.Flatten(), inner)).eval()
    with torch.no_grad():
        model.sample(images(), 4)
    assert model.parent_module[1].calls == 4


def test_dropout_put_on_after_the_cache_stays_random():
    model = MCDropoutModule(MCCachingModule(make(chain)).eval()).eval()
    with torch.no_grad():
        assert sample(model, images(), 8, replicate=False).std(-1).min() > 0

    sequence = patch_module(nn.Sequential(nn.Linear(4, 4), nn.Identity())).eval()
    sequence[1] = nn.Dropout(0.5).train()
    x = torch.randn(2, 4)
    with torch.no_grad():
        assert not torch.equal(sequence(x), sequence(x))


def test_only_one_call_is_remembered():
    with pytest.raises(ValueError, match="size=1"):
        LRUCacheModule(nn.Linear(2, 2), size=2)


def test_copies_and_files_hold_no_memory_of_calls():
    model, x = MCCachingModule(make(chain)).eval(), images()
    with torch.no_grad():
        expected = model(x)
        lean = len(pickle.dumps(MCCachingModule(make(chain)).eval()))
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert type(other.parent_module[0]) is swapped(Cached, nn.Sequential)
            assert all("_last_call" not in vars(layer) for layer in other.modules())
            assert torch.equal(other(x), expected)
        assert len(pickle.dumps(model)) == lean
    assert torch.equal(copy.deepcopy(patch_module(make(Words)))(x), make(Words)(x))


def test_the_state_keeps_the_models_own_keys():
    model = make(chain)
    assert list(MCCachingModule(model).state_dict()) == [f"parent_module.{name}" for name in model.state_dict()]


def test_a_wrapper_predicts_through_it(monkeypatch):
    model = MCCachingModule(MCDropoutModule(make(chain)))
    wrapper = ModelWrapper(model, device="cpu", replicate_in_memory=False)
    count = runs(monkeypatch, nn.Conv2d)
    got = wrapper.predict_on_dataset(list(images(12)), batch_size=4, iterations=10)
    assert got.shape == (12, 3, 10)
    assert count[nn.Conv2d] == 3
    assert got.std(-1).min() > 0

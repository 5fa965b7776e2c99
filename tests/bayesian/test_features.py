import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from baal_widgets.bayesian.common import evaluating
from baal_widgets.bayesian.dropout import MCDropoutModule
from baal_widgets.bayesian.features import FeatureHead, features_of, last_linear

D, H, C = 4, 6, 3


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, H), nn.BatchNorm1d(H), nn.ReLU(), nn.Dropout(0.5), nn.Linear(H, C))


def batch(n=5):
    return torch.randn(n, D, generator=torch.Generator().manual_seed(1))


class Backwards(nn.Module):
    """Registers its output layer first."""

    def __init__(self, after=lambda out: out):
        super().__init__()
        self.out, self.first, self.after = nn.Linear(H, C), nn.Linear(D, H), after

    def forward(self, x):
        return self.after(self.out(self.first(x).relu()))


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(D, C)

    def forward(self, x):
        self.one(x)
        raise ArithmeticError("after the layer")


def hooks(model):
    return [len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in model.modules()]


def everything(model):
    tensors = {name: one.detach().numpy().tobytes() for name, one in model.state_dict().items()}
    return tensors, [vars(layer)["training"] for layer in model.modules()], hooks(model)


def test_the_last_layer_is_the_one_that_runs_last():
    model = Backwards()
    assert last_linear(model, batch()) == ("out", model.out)
    assert last_linear(model) == ("first", model.first)  # all that can be said without an example
    assert last_linear(plain())[0] == last_linear(plain(), batch())[0] == "4"


def test_a_model_without_a_linear_layer_is_refused():
    for data in (None, batch()):
        with pytest.raises(ValueError, match=r"no nn\.Linear"):
            last_linear(nn.Sequential(nn.ReLU()), data)
    with pytest.raises(ValueError, match=r"did not run an nn\.Linear"):
        features_of(nn.ReLU(), batch())


def test_features_are_what_goes_into_the_last_layer():
    model, x = plain(), batch()
    features = features_of(model, x)
    assert features.shape == (5, H)
    assert not features.requires_grad
    assert torch.equal(model[4](features), model.eval()(x))


def test_any_layer_may_be_asked_for_by_itself_or_by_name():
    model, x = plain(), batch()
    assert torch.equal(features_of(model, x, "0"), x)
    assert torch.equal(features_of(model, x, model[1]), model[0](x))
    with pytest.raises(AttributeError):
        features_of(model, x, "nowhere")
    with pytest.raises(ValueError, match="did not run"):
        features_of(model, x, nn.Linear(2, 2))


def test_a_layer_that_writes_over_its_input_is_told_of_before_it_does():
    model, x = nn.Sequential(nn.Linear(D, H), nn.ReLU(inplace=True), nn.Linear(H, C)), batch()
    assert torch.equal(features_of(model, x, "1"), model[0](x))


def test_features_are_flattened_to_one_row_an_item():
    model, words = nn.Sequential(nn.Linear(D, H), nn.Linear(H, C)), torch.randn(5, 7, D)
    assert features_of(model, words).shape == (5, 7 * H)
    assert features_of(
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, C)), torch.randn(3, 1, 4, 4), "0"
    ).shape == (3, 16)


def test_features_do_not_depend_on_the_batch_or_the_mode():
    model, x = plain(), batch(8)
    whole = features_of(model.train(), x)
    assert torch.allclose(whole, torch.cat([features_of(model.eval(), half) for half in x.chunk(2)]), atol=1e-6)


def test_asking_leaves_weights_statistics_modes_and_hooks_as_they_were():
    model = plain().train()
    model[1].eval()
    before = everything(model)
    features_of(model, batch())
    last_linear(model, batch())
    FeatureHead.of(model, batch())
    assert everything(model) == before


def test_an_error_leaves_the_model_as_it_was():
    model = Failing().train()
    before = everything(model)
    for ask in (features_of, last_linear, FeatureHead.of):
        with pytest.raises(ArithmeticError):
            ask(model, batch())
    assert everything(model) == before


def test_dropout_that_stays_on_keeps_its_own_mode():
    model = MCDropoutModule(plain().train())
    with evaluating(model):
        assert not vars(model.parent_module[3])["training"]
    assert vars(model.unpatch()[3])["training"]


def test_models_with_nested_input_are_fine():
    class Both(Backwards):
        def forward(self, x):
            return super().forward(x["a"] + x["b"][0])

    data = {"a": batch(), "b": [batch()]}
    assert features_of(Both(), data).shape == (5, H)


def test_the_body_and_the_head_make_the_model():
    for model in (plain().eval(), Backwards().eval()):
        split = FeatureHead.of(model, batch())
        features = split.features(batch(9))
        assert torch.equal(split.head(features), model(batch(9)))


def test_a_copy_of_the_model_has_a_head_of_its_own():
    split = FeatureHead.of(plain(), batch())
    other = copy.deepcopy(split)
    assert other.head is not split.head
    assert other.head is other.model[4]


@pytest.mark.parametrize(
    "after",
    [lambda out: out.softmax(1), lambda out: out * 1.0001, lambda out: out[:, :2], lambda out: (out, out)],
    ids=["softmax", "scaled", "cut", "tuple"],
)
def test_a_model_whose_output_is_not_the_last_layers_is_refused(after):
    with pytest.raises(ValueError, match="not that of its last linear layer, 'out'"):
        FeatureHead.of(Backwards(after), batch())


def test_a_head_that_runs_twice_is_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(D, D)

        def forward(self, x):
            return self.one(self.one(x))

    with pytest.raises(ValueError, match="run once"):
        FeatureHead.of(Twice(), batch())


def test_outputs_of_more_axes_are_refused():
    with pytest.raises(ValueError, match=r"\[item, class\]"):
        FeatureHead.of(nn.Sequential(nn.Linear(D, C)), torch.randn(2, 5, D))


def test_features_of_a_functional_head_cannot_be_seen():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(C, D))

        def forward(self, x):
            return F.linear(x, self.weight)

    with pytest.raises(ValueError, match="functional"):
        last_linear(Functional(), batch())

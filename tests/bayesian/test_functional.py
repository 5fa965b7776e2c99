import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.functional import dropout

from baal_widgets.bayesian.dropout import MCDropoutModule, patch_module, stochastic_layers, unpatch_module


class ByFunction(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.linear, self.p = nn.Linear(8, 8), p

    def forward(self, x):
        return F.dropout(self.linear(x), p=self.p, training=self.training)


class Bare(ByFunction):
    def forward(self, x):
        return dropout(self.linear(x), training=self.training)


class Entangled(ByFunction):
    """Its outputs have another form in training."""

    def forward(self, x):
        x = nn.functional.dropout(self.linear(x), 0.5, self.training)
        return (x, x) if self.training else x


class ByLayer(ByFunction):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Identity()

    def forward(self, x):
        return self.dropout(self.linear(x))


@pytest.mark.parametrize("kind", [ByFunction, Bare])
def test_functional_dropout_is_kept_on_where_it_alone_asks_for_training(kind):
    model, x = kind().eval(), torch.randn(4, 8)
    before = model(x)
    with MCDropoutModule(nn.Sequential(model)).eval() as mc_model:
        assert not torch.equal(mc_model(x), mc_model(x))
    assert torch.equal(model(x), before)
    patch_module(model)
    assert not torch.equal(model(x), model(x))
    assert type(unpatch_module(model)) is kind
    assert torch.equal(model(x), before)


def test_functional_dropout_of_nothing_does_not_count():
    assert stochastic_layers(ByFunction(p=0.0)) == []
    assert stochastic_layers(ByLayer()) == []
    assert stochastic_layers(nn.Sequential(ByFunction())) == ["0"]


def test_functional_dropout_that_cannot_be_kept_on_is_reported():
    with pytest.raises(ValueError, match=r"functional dropout in 1 \(Entangled\) can't be kept on"):
        MCDropoutModule(nn.Sequential(nn.Linear(8, 8), Entangled()))
    with pytest.warns(UserWarning, match=r"functional dropout in 1 \(Entangled\) stays off"):
        model = MCDropoutModule(nn.Sequential(nn.Dropout(0.5), Entangled())).eval()
    assert torch.is_tensor(model(torch.randn(2, 8)))


def test_a_model_without_dropout_is_refused_with_advice():
    with pytest.raises(ValueError, match=r"nn\.Dropout\(0\.5\) before its last linear layer.*LaplaceModule"):
        MCDropoutModule(nn.Linear(2, 2))


def test_a_drop_rate_of_torchvisions_densenet_is_seen():
    from torchvision.models import DenseNet

    options = {"growth_rate": 4, "block_config": (2,), "num_init_features": 8, "num_classes": 3}
    assert stochastic_layers(DenseNet(**options)) == []
    model = DenseNet(drop_rate=0.5, **options).eval()
    x = torch.randn(2, 3, 32, 32)
    draws = MCDropoutModule(model).eval()
    assert not torch.equal(draws(x), draws(x))
    assert torch.equal(model(x), model(x))

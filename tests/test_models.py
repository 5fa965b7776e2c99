import pytest
import torch
from torch import nn
from torchvision import models

from baal_widgets.bayesian.dropout import stochastic_layers
from baal_widgets.models import replace_head, small_cnn, torchvision_backbone


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 64), (3, (40, 96)), (3, 7), (1, 1)])
def test_the_small_cnn_takes_images_of_any_size(channels, side):
    height, width = (side, side) if isinstance(side, int) else side
    model = small_cnn(5, channels=channels, side=side)
    assert model(torch.zeros(2, channels, height, width)).shape == (2, 5)
    assert len(stochastic_layers(model)) == 2


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vgg11", "vit_b_16"])
def test_a_backbone_gets_a_head_of_its_own_and_keeps_the_rest(name):
    model = replace_head(models.get_model(name, weights=None), 4).eval()
    assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 4)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2


def test_a_pretrained_backbone_normalises_and_trains_its_head_alone(monkeypatch):
    weights = models.resnet18(weights=None).state_dict()
    monkeypatch.setattr(models._api, "load_state_dict_from_url", lambda *_, **__: weights)
    model = torchvision_backbone("resnet18", 3).eval()
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 3)
    gray = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1).expand(1, 3, 8, 8)
    assert model[0](gray).abs().max() < 1e-6
    assert torch.equal(model.state_dict()["1.conv1.weight"], weights["conv1.weight"])


def test_a_model_without_a_linear_layer_has_no_head_to_replace():
    with pytest.raises(ValueError, match="no linear layer"):
        replace_head(nn.Sequential(nn.Conv2d(3, 4, 3)), 4)

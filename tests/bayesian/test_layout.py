"""Images lie as a CPU convolves them fastest, where the model can do with it; numbers stay what they were."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchvision.models import efficientnet_b0, mobilenet_v3_small, resnet18, vgg11

from baal_widgets import MCDropoutModule, ModelWrapper, TrainingArgs
from baal_widgets.bayesian import layout
from baal_widgets.bayesian.caching_utils import MCCachingModule
from baal_widgets.bayesian.features import features_of
from baal_widgets.bayesian.layout import ENOUGH, laid_out_for
from baal_widgets.models import small_cnn

SIDE = 32
ITEMS = ENOUGH // SIDE**2


def images(n=ITEMS, channels=3, side=SIDE):
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(0))


class Viewed(nn.Module):
    """Cuts its activations up by `view`, which wants the channels one after another."""

    def __init__(self):
        super().__init__()
        self.conv, self.dropout, self.last = nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.Linear(4 * 900, 3)

    def forward(self, x):
        x = self.conv(x)
        return self.last(self.dropout(x.view(len(x), -1)))


class Stacked(Viewed):
    """Lays items and channels side by side by `view`, which goes well for a single item in any layout."""

    def forward(self, x):
        x = self.conv(x)
        return self.last(self.dropout(x.view(len(x) * 4, 30, 30).reshape(len(x), -1)))


def seen(model):
    """Whether each batch that the model is given is channels-last."""
    found = []
    model.register_forward_pre_hook(lambda _, args: found.append(not args[0].is_contiguous()))
    return found


def model_of(name):
    torch.manual_seed(0)
    made = {
        "resnet18": lambda: nn.Sequential(resnet18(num_classes=20), nn.Dropout(), nn.Linear(20, 4)),
        "mobilenet_v3_small": lambda: mobilenet_v3_small(num_classes=4),
        "efficientnet_b0": lambda: efficientnet_b0(num_classes=4),
        "vgg11": lambda: vgg11(num_classes=4),
        "small_cnn": lambda: small_cnn(4, side=SIDE),
    }[name]()
    return made.eval()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "efficientnet_b0", "vgg11", "small_cnn"])
def test_the_same_masks_give_the_same_numbers_in_the_faster_layout(name, monkeypatch):
    draws = []
    for enough in (1, 10**9):
        monkeypatch.setattr(layout, "ENOUGH", enough)
        model = MCDropoutModule(model_of(name))
        wrapper = ModelWrapper(model, TrainingArgs(batch_size=4), device="cpu")
        found = seen(model.parent_module)
        torch.manual_seed(1)
        draws.append(wrapper.predict_on_dataset(TensorDataset(images(8), torch.zeros(8)), iterations=5))
        assert set(found) == {enough == 1}
    torch.testing.assert_close(torch.tensor(draws[0]), torch.tensor(draws[1]), rtol=1e-3, atol=1e-4)
    assert draws[0].std(-1).min() > 0


@pytest.mark.parametrize("kind", [Viewed, Stacked])
def test_a_model_that_cannot_do_with_it_gets_its_images_as_they_are(kind):
    model = MCDropoutModule(kind()).eval()
    found = seen(model.parent_module)
    torch.manual_seed(1)
    draws = ModelWrapper(model, device="cpu").predict_on_batch(images(), 5)
    assert draws.shape == (ITEMS, 3, 5)
    assert not any(found)
    assert all(part.can_copy for part in model.modules() if isinstance(part, nn.Dropout))


def test_whether_a_model_can_is_tried_once_and_behind_its_back(monkeypatch):
    tried = []
    passes = layout._passes
    monkeypatch.setattr(layout, "_passes", lambda *args: tried.append(1) or passes(*args))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout2d(), nn.Flatten())
    model.eval()
    found = seen(model)
    state = torch.get_rng_state()
    for _ in range(2):
        data = laid_out_for(model, images())
    assert data.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(data, images())
    assert torch.equal(torch.get_rng_state(), state)
    assert (tried, found) == ([1], [])


def test_batches_stay_as_they_are_where_nothing_is_gained_or_something_lost():
    conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()).eval()
    x = images()
    assert laid_out_for(conv, x) is not x
    for model, data in (
        (conv, x[:-1]),
        (conv.train(), x),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 2)).eval(), x),
        (MCCachingModule(MCDropoutModule(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout2d()).eval())), x),
        (nn.Linear(3, 2).eval(), torch.zeros(ENOUGH, 3)),
    ):
        assert laid_out_for(model, data) is data


def test_features_come_in_the_usual_order_of_their_channels():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 900, 2)).eval()
    with torch.no_grad():
        torch.testing.assert_close(features_of(model, images()), model[:2](images()))

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from baal_widgets import FileDataset
from baal_widgets.bayesian.common import replace_layers_in_module
from baal_widgets.utils.array_utils import stack_in_memory, to_prob
from baal_widgets.utils.cuda_utils import to_cuda
from baal_widgets.utils.iterutils import map_on_tensor
from baal_widgets.utils.transforms import BaaLCompose, BaaLTransform, GetCanvas, PILToLongTensor


class Placed(BaaLTransform):
    def get_requires(self):
        return ["idx", "image_shape"]

    def __call__(self, x, idx, image_shape):
        return x, idx, image_shape


@pytest.fixture
def files(tmp_path):
    for name in "ab":
        Image.new("RGB", (4, 6), "red").save(tmp_path / f"{name}.png")
    return [str(tmp_path / f"{name}.png") for name in "ab"]


def test_a_transform_is_told_what_it_asks_for(files):
    dataset = FileDataset(files, [0, 1], transform=np.asarray, target_transform=Placed())
    assert dataset[1][1] == (1, 1, (4, 6))
    both = BaaLCompose([lambda x: x + 1, GetCanvas()])
    assert both.get_requires() == ["image_shape"]
    label, canvas = FileDataset(files, [0, 1], target_transform=both)[1][1]
    assert label == 2
    assert canvas.shape == (4, 6)
    assert FileDataset(files, [0, 1], transform=Placed())[0][0][1:] == (0, (4, 6))


def test_colours_become_classes():
    colours = [(0, 0, 0), (255, 0, 0)]
    picture = Image.new("RGB", (3, 2), "red")
    picture.putpixel((0, 0), (0, 0, 0))
    assert PILToLongTensor(colours)(picture).tolist() == [[0, 1, 1], [1, 1, 1]]
    assert PILToLongTensor()(picture).shape == (3, 2, 3)
    assert PILToLongTensor()(picture).dtype == torch.long


def test_nests_are_walked_and_batches_stacked():
    nest = {"a": [torch.ones(2), "text"], "b": 3}
    assert map_on_tensor(lambda one: one + 1, nest)["a"][0].tolist() == [2, 2]
    assert to_cuda(nest)["b"] == 3
    assert stack_in_memory(torch.arange(3), 2).tolist() == [0, 1, 2, 0, 1, 2]
    assert np.allclose(to_prob(np.array([[0.0, 0.0]])), 0.5)


def test_layers_are_replaced_and_keep_their_mode():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.5), nn.ReLU())).eval()

    def mapping(layer, p):
        return nn.Dropout(p) if isinstance(layer, nn.Dropout) else None

    assert replace_layers_in_module(model, mapping, 0.1)
    assert model[1][0].p == 0.1
    assert not model[1][0].training
    assert not replace_layers_in_module(nn.Sequential(nn.ReLU()), mapping, 0.1)

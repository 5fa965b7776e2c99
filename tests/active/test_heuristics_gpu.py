import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from baal_widgets import ModelWrapper, TrainingArgs
from baal_widgets.active.heuristics import BALD, Precomputed
from baal_widgets.active.heuristics.heuristics_gpu import AbstractGPUHeuristic, BALDGPUWrapper
from baal_widgets.bayesian.consistent_dropout import MCConsistentDropoutModule

N, D, C = 10, 4, 3


@pytest.fixture
def dataset():
    return TensorDataset(torch.randn(N, D, generator=torch.Generator().manual_seed(0)), torch.zeros(N))


def make_model(*last):
    return MCConsistentDropoutModule(nn.Sequential(nn.Linear(D, 8), nn.Dropout(0.5), nn.Linear(8, C), *last))


@pytest.mark.parametrize("last", [(), (nn.Softmax(dim=1),)])
@pytest.mark.parametrize("style", ["wrapper", "1.x", "2.x"])
def test_predictions_are_the_scores_that_bald_gives(dataset, last, style):
    model = make_model(*last)
    wrapper = ModelWrapper(model, nn.CrossEntropyLoss())
    made = {
        "wrapper": lambda: BALDGPUWrapper(wrapper),
        "1.x": lambda: BALDGPUWrapper(model, nn.CrossEntropyLoss()),
        "2.x": lambda: BALDGPUWrapper(ModelWrapper(model, TrainingArgs(criterion=nn.CrossEntropyLoss()))),
    }[style]()
    torch.manual_seed(1)
    scores = made.predict_on_dataset(dataset, iterations=6, batch_size=4)
    torch.manual_seed(1)
    expected = BALD().get_uncertainties(wrapper.predict_on_dataset(dataset, iterations=6, batch_size=4))
    assert scores.shape == (N,)
    assert np.allclose(scores, expected, atol=1e-6)
    assert scores.max() > 0
    assert np.array_equal(Precomputed(reverse=True)(scores), np.argsort(-scores, kind="stable"))


@pytest.mark.parametrize("reduction", ["max", "min", "mean", "sum", lambda scores: scores.amax(dim=(1, 2))])
def test_pixels_are_reduced_to_one_score_an_item(reduction):
    maps = MCConsistentDropoutModule(nn.Sequential(nn.Conv2d(1, C, 3), nn.Dropout(0.5)))
    x = torch.randn(4, 1, 5, 5)
    assert BALDGPUWrapper(maps, reduction=reduction).predict_on_batch(x, 3).shape == (4,)
    assert BALDGPUWrapper(maps).predict_on_batch(x, 3).shape == (4, 3, 3)


def test_it_trains_and_tests_as_the_wrapper_does(dataset):
    targets = TensorDataset(dataset.tensors[0], torch.zeros(N, dtype=torch.long))
    made = BALDGPUWrapper(make_model(), nn.CrossEntropyLoss())
    assert len(made.train_on_dataset(targets, epoch=2)) == 2
    assert made.test_on_dataset(targets, average_predictions=3) > 0


def test_an_item_with_nan_is_asked_last():
    class Spoiled(nn.Module):
        def forward(self, x):
            return torch.where(x[:, :1] > 0, x, torch.nan)

    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert BALDGPUWrapper(Spoiled()).predict_on_batch(x, 2).tolist() == [0.0, -np.inf]


def test_a_subclass_says_what_the_score_is():
    class Doubt(AbstractGPUHeuristic):
        def compute_score(self, predictions):
            return predictions.mean(dim=-1).amax(dim=1)

    scores = Doubt(nn.Identity()).predict_on_batch(torch.tensor([[0.9, 0.1], [0.5, 0.5]]), 2)
    assert scores.tolist() == pytest.approx([0.9, 0.5])
    with pytest.raises(NotImplementedError, match="needs a `compute_score`"):
        AbstractGPUHeuristic(nn.Identity()).predict_on_batch(torch.ones(1, 2), 2)
    with pytest.raises(ValueError, match="reduction"):
        BALDGPUWrapper(nn.Identity(), reduction="median")

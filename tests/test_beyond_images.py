"""The same loop on data that are no images: texts, tables, time series and segmentation masks."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from baal_widgets import ActiveLearningDataset, MCDropoutModule, ModelWrapper, TrainingArgs
from baal_widgets.active.heuristics import BALD, Variance
from baal_widgets.experiments import ActiveLearningExperiment

WORDS = {
    0: ["cheap", "dull", "broken", "poor"],
    1: ["lovely", "bright", "fine", "great"],
    2: ["the", "film", "was", "a"],
}
VOCABULARY = {word: place for place, word in enumerate(word for words in WORDS.values() for word in words)}


def texts(n, rng):
    """Sentences of a few words for or against, among words that say nothing; padded word numbers."""
    target = rng.integers(0, 2, n)
    kinds = np.where(rng.random((n, 8)) < 0.3, target[:, None], 2)
    kinds[:, 0] = target
    words = [[VOCABULARY[rng.choice(WORDS[kind])] for kind in row] for row in kinds]
    return torch.tensor(words), torch.from_numpy(target)


def tables(n, rng):
    """Rows of numbers, of which two decide."""
    rows = rng.normal(size=(n, 10)).astype(np.float32)
    return torch.from_numpy(rows), torch.from_numpy((rows[:, 0] * rows[:, 1] > 0).astype(np.int64))


def series(n, rng):
    """Noisy waves, slow or fast."""
    target = rng.integers(0, 2, n)
    time = np.arange(24) / 24 + rng.random((n, 1))
    waves = np.sin(2 * np.pi * time * np.where(target, 5, 2)[:, None]) + 0.3 * rng.normal(size=(n, 24))
    return torch.from_numpy(waves[..., None].astype(np.float32)), torch.from_numpy(target)


def masks(n, rng):
    """Squares on noise; each pixel is to be told whether it is of the square."""
    target = np.zeros((n, 12, 12), np.int64)
    for one, (row, column) in zip(target, rng.integers(0, 7, (n, 2)), strict=True):
        one[row : row + 5, column : column + 5] = 1
    images = target + 0.4 * rng.normal(size=target.shape)
    return torch.from_numpy(images[:, None].astype(np.float32)), torch.from_numpy(target)


class Sequence(nn.Module):
    """The last state of an LSTM, with dropout between its layers."""

    def __init__(self, features):
        super().__init__()
        self.lstm = nn.LSTM(features, 32, num_layers=2, dropout=0.3, batch_first=True)
        self.head = nn.Linear(32, 2)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class BagOfWords(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.EmbeddingBag(len(VOCABULARY), 16)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(16, 2))

    def forward(self, words):
        return self.head(self.embedding(words))


def pixelwise():
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.Dropout2d(0.2), nn.Conv2d(16, 16, 5, padding=2), nn.ReLU(),
        nn.Conv2d(16, 2, 1),
    )  # fmt: skip


def of_rows():
    return nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))


KINDS = {
    "texts": (texts, BagOfWords, BALD(), 15, 1e-2, 0.85),
    "tables": (tables, of_rows, BALD(), 25, 1e-2, 0.7),
    "time series": (series, lambda: Sequence(1), BALD(), 20, 4e-3, 0.85),
    "segmentation masks": (masks, pixelwise, BALD(reduction="mean"), 6, 1e-2, 0.95),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_loop_learns(kind):
    make_data, make_model, heuristic, epoch, rate, enough = KINDS[kind]
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    pool, test = TensorDataset(*make_data(300, rng)), TensorDataset(*make_data(200, rng))
    model = MCDropoutModule(make_model())
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    wrapper = ModelWrapper(
        model, TrainingArgs(optimizer, 32, epoch=epoch, criterion=nn.CrossEntropyLoss(), use_cuda=False)
    )
    dataset = ActiveLearningDataset(pool, labelled=np.arange(300) < 20, random_state=0)
    experiment = ActiveLearningExperiment(wrapper, dataset, test, heuristic, query_size=60, iterations=8)
    rounds = experiment.rounds()
    first = next(rounds)
    for _ in range(3):
        last = next(rounds)
    mean = wrapper.predict_on_dataset(test, iterations=8).mean(axis=-1)
    accuracy = float((mean.argmax(axis=1) == test.tensors[1].numpy()).mean())
    assert last["n_labelled"] == 200
    assert last["test_loss"] < first["test_loss"]
    assert accuracy > enough


def test_the_loop_learns_a_regression_by_its_variance():
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    x = torch.from_numpy(rng.uniform(-3, 3, (300, 1)).astype(np.float32))
    model = MCDropoutModule(nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Dropout(0.1), nn.Linear(64, 1)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    wrapper = ModelWrapper(model, TrainingArgs(optimizer, 32, epoch=60, criterion=nn.MSELoss(), use_cuda=False))
    # nothing right of zero is labelled, and that is where the draws spread
    dataset = ActiveLearningDataset(TensorDataset(x, x.sin()), labelled=(x[:, 0] < 0).numpy())
    wrapper.train_on_dataset(dataset)
    uncertainty = Variance().get_uncertainties(wrapper.predict_on_dataset(dataset.pool, iterations=30))
    place = np.array([float(dataset.pool[item][0]) for item in range(len(dataset.pool))])
    assert uncertainty[place > 2].mean() > 1.4 * uncertainty[place < 0.5].mean()

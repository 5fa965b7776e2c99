"""The code that Baal's README and FAQ show, as written there but for the name of the package.

What those pages leave to the reader (`your_dataset`, `YourModel`, `query_human`) is defined before each snippet, and
`...` and `CUDA` are filled in. A machine without CUDA warns of `use_cuda=True` and goes on.
"""

import contextlib
import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from baal_widgets import ModelWrapper
from baal_widgets.active import ActiveLearningDataset, ActiveLearningLoop, heuristics
from baal_widgets.active.heuristics import BALD
from baal_widgets.bayesian.dropout import MCDropoutModule
from baal_widgets.utils.metrics import ECE

N, C = 24, 3


class YourDataset(Dataset):
    """Takes labels, as the FAQ's dataset does."""

    def __init__(self, transform=None):
        self.transform = transform
        self.x = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
        self.targets = [0] * N

    def __len__(self):
        return N

    def __getitem__(self, item):
        x = self.x[item]
        return x if self.transform is None else self.transform(x), self.targets[item]

    def label(self, idx, value):
        self.targets[idx] = value


def YourModel():  # noqa: N802  the FAQ's name
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, C))


def known_labels():
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(N, 4, generator=generator), torch.randint(0, C, (N,), generator=generator))


@contextlib.contextmanager
def warned_of_missing_cuda() -> Iterator[None]:
    if torch.cuda.is_available():
        yield
    else:
        with pytest.warns(UserWarning, match="no CUDA device"):
            yield


def test_the_script_of_the_readme_runs():
    your_dataset, your_model, your_criterion = known_labels(), YourModel(), nn.CrossEntropyLoss()
    INITIAL_POOL, NDATA_TO_LABEL, N_ALSTEP, BATCH_SIZE = 6, 5, 10, 4  # noqa: N806
    optimizer, use_cuda = torch.optim.SGD(your_model.parameters(), lr=0.1), torch.cuda.is_available()
    sizes = []

    dataset = ActiveLearningDataset(your_dataset)
    dataset.label_randomly(INITIAL_POOL)  # label some data
    model = MCDropoutModule(your_model)
    model = ModelWrapper(model, your_criterion)
    active_loop = ActiveLearningLoop(
        dataset,
        get_probabilities=model.predict_on_dataset,
        heuristic=heuristics.BALD(shuffle_prop=0.1),
        ndata_to_label=NDATA_TO_LABEL,
    )
    for _al_step in range(N_ALSTEP):
        model.train_on_dataset(dataset, optimizer, BATCH_SIZE, use_cuda=use_cuda)
        sizes.append(len(dataset))
        if not active_loop.step():
            # We're done!
            break

    assert sizes == [6, 11, 16, 21, 24]


def test_the_script_of_the_readme_runs_where_cuda_is_asked_for_and_absent():
    dataset = ActiveLearningDataset(known_labels(), labelled=[True] * 8 + [False] * (N - 8))
    model = MCDropoutModule(YourModel())
    wrapper = ModelWrapper(model, nn.CrossEntropyLoss())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with warned_of_missing_cuda():
        wrapper.train_on_dataset(dataset, optimizer, 4, use_cuda=True)


def test_uncertainty_per_sample():
    ITERATIONS, input = 5, torch.randn(2, 4)  # noqa: N806, A001

    model = YourModel()
    # If not done already, you can wrap your model with our MCDropoutModule
    model = MCDropoutModule(model)
    dataset = YourDataset()
    wrapper = ModelWrapper(model, criterion=None)

    heuristic = BALD()

    with warned_of_missing_cuda():
        predictions = wrapper.predict_on_dataset(dataset, batch_size=32, iterations=20, use_cuda=True)
    uncertainty = heuristic.get_uncertainties(predictions)
    assert predictions.shape == (N, C, 20)  # the FAQ's comment has the axes in another order; its example has these
    assert uncertainty.shape == (N,)
    assert (uncertainty > 0).any()

    # If your model or dataset is too large:
    with warned_of_missing_cuda():
        pred_generator = wrapper.predict_on_dataset_generator(dataset, batch_size=32, iterations=20, use_cuda=True)
        uncertainty = heuristic.get_uncertainties_generator(pred_generator)
    assert np.shape(uncertainty) == (N,)

    # It is also possible to only temporarily modify the dropout layers.
    model = YourModel().eval()
    with MCDropoutModule(model) as mcdropout_model:
        # this is stochastic
        predictions = [mcdropout_model(input) for _ in range(ITERATIONS)]
    # this is deterministic
    output = model(input)

    assert not all(torch.equal(predictions[0], one) for one in predictions)
    assert torch.equal(output, model(input))


@pytest.mark.parametrize("reduction", ["max", "mean", "sum", lambda scores: scores.reshape(len(scores), -1).mean(-1)])
def test_segmentation_reduces_the_uncertainty_of_the_pixels(reduction, rng):
    probabilities = rng.dirichlet(np.ones(C), size=(5, 4, 4, 6)).transpose(0, 4, 1, 2, 3)
    assert BALD(reduction=reduction).get_uncertainties(probabilities).shape == (5,)


def test_calibration_is_measured_by_a_metric_that_is_added():
    your_model = ModelWrapper(YourModel(), nn.CrossEntropyLoss())

    your_model.add_metric("ece", lambda: ECE(n_bins=20))
    your_model.train_on_dataset(known_labels())
    your_model.test_on_dataset(known_labels())
    metrics = your_model.metrics

    assert 0 <= metrics["test_ece"].value <= 1
    assert 0 <= metrics["train_ece"].value <= 1


def test_draws_in_a_loop_do_not_need_more_memory_than_one():
    wrapper = ModelWrapper(MCDropoutModule(YourModel()), nn.CrossEntropyLoss(), replicate_in_memory=False)
    assert wrapper.predict_on_dataset(known_labels(), iterations=3).shape == (N, C, 3)


def test_the_pool_is_the_whole_less_what_is_labelled():
    # Let ds = D, the entire dataset with labelled/unlabelled data.
    ds = YourDataset()
    al_dataset = ActiveLearningDataset(ds, labelled=[item < 10 for item in range(N)])
    pool = al_dataset.pool

    assert len(al_dataset) + len(pool) == len(ds)


def test_a_human_labels_what_ranks_first():
    active_dataset = ActiveLearningDataset(YourDataset(), labelled=[item < 4 for item in range(N)])
    model = ModelWrapper(MCDropoutModule(YourModel()), criterion=None)
    asked = {}

    def query_human(ranks, pool):
        labels = [int(rank) % C for rank in ranks]
        asked.update(zip([4 + int(rank) for rank in ranks], labels, strict=True))
        assert len(pool) == len(ranks) == N - 4
        return labels

    # Some definitions
    your_heuristic = BALD()
    pool = active_dataset.pool
    your_predictions = model.predict_on_dataset(pool)
    # The shape of `your_predictions` is [len(pool), n_classes, ..., iterations]
    # Get the next batch of samples to label. Note: These indices are according to the pool.
    ranks = your_heuristic(your_predictions)

    # Now let's ask a human to label those samples.
    labels = query_human(ranks, pool)

    # To edit the dataset labels, you can now add those labels to your dataset. Still, the indices are according to
    # the pool.
    active_dataset.label(ranks, labels)

    assert your_predictions.shape[:2] == (N - 4, C)
    assert len(active_dataset) == N
    assert {item: active_dataset.get_raw(item)[1] for item in range(4, N)} == asked


def test_the_pool_has_a_transform_of_its_own():
    ADataset = YourDataset  # noqa: N806

    def transform(x):
        return x + torch.rand(())

    test_transform = torch.zeros_like

    your_dataset = ADataset(transform=transform)
    active_dataset = ActiveLearningDataset(your_dataset, pool_specifics={"transform": test_transform})

    # active_dataset will use data augmentation
    # the pool will use the `test_transform`
    pool = active_dataset.pool
    active_dataset.label(0, 1)

    assert not pool[0][0].any()
    assert not torch.equal(active_dataset[0][0], active_dataset[0][0])


def test_weights_go_back_to_the_original_at_each_step():
    model = ModelWrapper(MCDropoutModule(YourModel()), nn.CrossEntropyLoss())
    dataset, NUM_AL_STEP = ActiveLearningDataset(known_labels(), labelled=[i < 6 for i in range(N)]), 2  # noqa: N806

    # Make a deep copy of the initial weights
    initial_weights = copy.deepcopy(model.state_dict())
    loop = ActiveLearningLoop(dataset, model.predict_on_dataset, BALD(), query_size=3, iterations=4)

    for _al_step in range(NUM_AL_STEP):
        # Reset the weights to its initial value
        model.load_state_dict(initial_weights)
        assert all(torch.equal(value, initial_weights[name]) for name, value in model.state_dict().items())
        # Train to convergence
        model.train_on_dataset(dataset)
        # Test on the validation set.
        model.test_on_dataset(known_labels())
        # Label the next set of labels.
        loop.step()

    assert len(dataset) == 12
    assert sorted(model.active_learning_metrics) == [6, 9]


def test_bayesian_model_average_when_testing():
    wrapper = ModelWrapper(MCDropoutModule(YourModel()), nn.CrossEntropyLoss())
    assert np.isfinite(wrapper.test_on_dataset(known_labels(), average_predictions=20))


@pytest.mark.parametrize("name", ["max_sample", "max_samples"])
def test_a_random_subset_of_the_pool_is_predicted_on(name):
    dataset, asked = ActiveLearningDataset(known_labels()), []

    def get_probabilities(pool):
        asked.append(len(pool))
        return np.random.default_rng(0).dirichlet(np.ones(C), size=(len(pool), 4)).transpose(0, 2, 1)

    assert ActiveLearningLoop(dataset, get_probabilities, BALD(), **{name: 7}).step()
    assert asked == [7]


def test_the_pool_gives_a_random_part_of_itself():
    dataset = ActiveLearningDataset(known_labels(), labelled=[item < 4 for item in range(N)], random_state=0)
    part = dataset.pool.sample(max_samples=5)
    assert len(part) == 5
    loop = ActiveLearningLoop(dataset, ModelWrapper(MCDropoutModule(YourModel())).predict_on_dataset, BALD(), 3)
    loop.step(part)
    assert len(dataset) == 7
    assert {int(item) - 4 for item in np.flatnonzero(dataset.labelled)[4:]} <= set(part.indices)
    assert len(dataset.pool.sample(max_samples=10**6)) == len(dataset.pool)

"""Models that do not fit: a fake one that has room for so many rows at once."""

import itertools
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from baal_widgets import ModelWrapper
from baal_widgets.bayesian.batchnorm import MCBatchNormModule
from baal_widgets.bayesian.dropout import MCDropoutModule
from baal_widgets.bayesian.gaussian_process import GaussianProcessModule
from baal_widgets.bayesian.swag import SWAGModule
from baal_widgets.devices import Fitting, is_out_of_memory, parts_of
from baal_widgets.ensemble import EnsembleModule

D, C = 4, 3


class Cramped(nn.Module):
    """Has room for `room` rows; tells how many came."""

    def __init__(self, room, dropout=0.5):
        super().__init__()
        self.body, self.dropout, self.room, self.came = nn.Linear(D, C), nn.Dropout(dropout), room, []

    def forward(self, x):
        x = self.dropout(self.body(x))
        self.came.append(len(x))
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return x


def wrap(model, **options):
    return ModelWrapper(MCDropoutModule(model), nn.CrossEntropyLoss(), device="cpu", **options)


@pytest.mark.parametrize("room", [1, 3, 5, 8, 40])
@pytest.mark.parametrize("replicate", [True, False])
def test_a_batch_that_does_not_fit_is_halved_until_it_does(room, replicate):
    model, x = Cramped(room), torch.randn(7, D)
    wrapper = wrap(model, replicate_in_memory=replicate)
    fits = room >= (7 * 5 if replicate else 7)
    if fits:
        draws = wrapper.predict_on_batch(x, 5)
    else:
        with pytest.warns(UserWarning, match="do not fit in memory: going on with"):
            draws = wrapper.predict_on_batch(x, 5)
    assert draws.shape == (7, C, 5)
    kept = draws != 0
    assert torch.allclose(draws[kept], (2 * model.body(x))[..., None].expand(-1, -1, 5)[kept], atol=1e-6)
    assert kept.any()
    assert not kept.all()


def test_the_size_that_fits_is_remembered():
    model = Cramped(4)
    wrapper = wrap(model, replicate_in_memory=False)
    with pytest.warns(UserWarning, match="fit in memory"):
        wrapper.predict_on_batch(torch.randn(8, D), 2)
    model.came.clear()
    wrapper.predict_on_dataset(TensorDataset(torch.randn(16, D), torch.zeros(16)), batch_size=8, iterations=2)
    assert set(model.came) == {4}


def test_training_in_parts_moves_the_weights_as_training_at_once_does():
    x, y = torch.randn(10, D), torch.randint(0, C, (10,))
    moved = []
    for room in (10, 3):
        torch.manual_seed(0)
        model = Cramped(room, dropout=1e-9)
        wrapper = wrap(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        if room == 3:
            with pytest.warns(UserWarning, match="fit in memory"):
                loss = wrapper.train_on_batch(x, y, optimizer)
        else:
            loss = wrapper.train_on_batch(x, y, optimizer)
        moved.append((loss, model.body.weight.detach().clone()))
    assert torch.allclose(moved[0][0], moved[1][0])
    assert torch.allclose(moved[0][1], moved[1][1], atol=1e-6)


LABELS = torch.tensor([0, 0, 0, 0, 1, 2, 2, 2, 2, 2])
SOME = torch.tensor([0, -100, 0, 1, 1, -100, 2, 2, -100, -100])
CRITERIA = {
    "weighted": (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 20.0, 0.05])), LABELS),
    "some ignored": (nn.CrossEntropyLoss(), SOME),
    "a part ignored": (nn.CrossEntropyLoss(), torch.tensor([0, 1, 2, 0, 1, 2, -100, -100, -100, -100])),
    "another index": (nn.CrossEntropyLoss(ignore_index=1, label_smoothing=0.1, weight=torch.ones(3)), LABELS),
    "function": (F.cross_entropy, SOME),
    "sum": (nn.CrossEntropyLoss(reduction="sum"), SOME),
    "probabilities": (nn.CrossEntropyLoss(torch.tensor([1.0, 20.0, 0.05])), F.one_hot(LABELS).float()),
    "squares": (nn.MSELoss(), F.one_hot(LABELS).float()),
    "log-likelihood": (nn.NLLLoss(torch.tensor([1.0, 2.0, 3.0])), SOME),
}


@pytest.mark.parametrize("name", CRITERIA)
def test_the_loss_and_gradients_of_parts_are_those_of_the_batch(name):
    criterion, y = CRITERIA[name]
    x, got = torch.randn(len(y), D, generator=torch.Generator().manual_seed(0)), []
    for room in (10, 4):
        torch.manual_seed(0)
        model = Cramped(room, dropout=0)
        wrapper = ModelWrapper(model, criterion, device="cpu")
        wrapper._fits_to_train.rows = room
        loss = wrapper.train_on_batch(x, y, torch.optim.SGD(model.parameters(), lr=0))
        got.append((loss, model.body.weight.grad))
    assert torch.allclose(got[0][0], got[1][0])
    assert torch.allclose(got[0][1], got[1][1], atol=1e-6)


def test_a_batch_of_which_nothing_counts_has_no_loss_in_parts_either():
    wrapper = ModelWrapper(Cramped(2), nn.CrossEntropyLoss(), device="cpu")
    wrapper._fits_to_train.rows = 2
    loss = wrapper.train_on_batch(torch.randn(4, D), torch.full((4,), -100), torch.optim.SGD(wrapper.get_params(), 0.1))
    assert loss.isnan()


def normed(room):
    return nn.Sequential(nn.Linear(D, D), nn.BatchNorm1d(D), Cramped(room, dropout=0))


def test_nine_items_with_room_for_four_train_with_batch_normalisation():
    wrapper = ModelWrapper(normed(4), nn.CrossEntropyLoss(), device="cpu")
    wrapper.train()
    with pytest.warns(UserWarning, match="fit in memory"):
        wrapper.train_on_batch(torch.randn(9, D), torch.zeros(9).long(), torch.optim.SGD(wrapper.get_params(), 0.1))
    assert wrapper.model[2].came == [9, 3, 3, 3]


def test_an_attempt_that_does_not_fit_leaves_no_trace_in_the_statistics():
    wrapper = ModelWrapper(normed(4), nn.CrossEntropyLoss(), device="cpu")
    wrapper.train()
    with pytest.warns(UserWarning, match="fit in memory"):
        wrapper.train_on_batch(torch.randn(8, D), torch.zeros(8).long(), torch.optim.SGD(wrapper.get_params(), 0.1))
    assert wrapper.model[1].num_batches_tracked == 2


FITTED = {
    "ensemble": lambda model: EnsembleModule(model, 2),
    "SWAG": lambda model: SWAGModule(model, snapshots=3),
    "MC-BatchNorm": lambda model: MCBatchNormModule(model, 4),
    "Gaussian process": lambda model: GaussianProcessModule(model, n_features=16),
}


def ending(room):
    """A model whose last layer is a linear one."""
    return nn.Sequential(Cramped(room, dropout=0), nn.BatchNorm1d(C), nn.Linear(C, C))


@pytest.mark.parametrize("posterior", FITTED.values(), ids=FITTED)
def test_what_is_fitted_after_training_fits_in_memory_too(posterior):
    wrapper = ModelWrapper(posterior(ending(4)), nn.CrossEntropyLoss(), device="cpu")
    dataset = TensorDataset(torch.randn(16, D), torch.arange(16) % C)
    with pytest.warns(UserWarning, match="fit in memory"):
        wrapper.train_on_dataset(dataset, batch_size=8)
    assert wrapper.predict_on_dataset(dataset, batch_size=4, iterations=2).shape == (16, C, 2)


def test_a_posterior_of_the_last_layer_is_fitted_in_parts_to_the_very_same():
    dataset, draws = TensorDataset(torch.randn(16, D), torch.arange(16) % C), []
    for room in (16, 3):
        torch.manual_seed(0)
        module = GaussianProcessModule(ending(room), n_features=16).eval()
        with pytest.warns(UserWarning, match="fit in memory") if room < 16 else nullcontext():
            module.fit(dataset, batch_size=16)
        draws.append(module.sample(dataset.tensors[0][:3], 4))
    assert torch.allclose(*draws, atol=1e-4)


def test_features_of_a_batch_that_does_not_fit_are_those_of_one_that_does():
    dataset, features = TensorDataset(torch.randn(16, D)), []
    for room in (16, 3):
        torch.manual_seed(0)
        wrapper = ModelWrapper(ending(room), device="cpu")
        with pytest.warns(UserWarning, match="fit in memory") if room < 16 else nullcontext():
            features.append(wrapper.features_on_dataset(dataset, batch_size=16))
    assert np.allclose(*features, atol=1e-6)


class Auxiliary(Cramped):
    """Also gives a number for the whole batch."""

    def forward(self, batch):
        out = super().forward(batch["x"]) * batch["scale"]
        return [out, out.mean()]


def test_numbers_for_the_whole_batch_do_not_hinder_halving():
    model = Auxiliary(3)
    wrapper = ModelWrapper(MCDropoutModule(model), lambda out, y: F.cross_entropy(out[0], y), device="cpu")
    batch = {"scale": torch.tensor(2.0), "x": torch.randn(8, D)}
    with pytest.warns(UserWarning, match="fit in memory"):
        draws = wrapper.predict_on_batch(batch, 5)
    assert [one.shape for one in draws] == [(8, C, 5), (5,)]
    with pytest.warns(UserWarning, match="fit in memory"):
        wrapper.train_on_batch(batch, torch.zeros(8).long(), torch.optim.SGD(model.parameters(), 0.1))


def test_an_item_that_does_not_fit_alone_is_said_so():
    with (
        pytest.warns(UserWarning, match="fit in memory"),
        pytest.raises(torch.OutOfMemoryError, match="Not even a single item"),
    ):
        wrap(Cramped(0)).predict_on_batch(torch.randn(2, D), 2)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        wrap(nn.Sequential(nn.Linear(D, C), nn.Dropout())).predict_on_batch(torch.randn(2, D + 1), 2)
    assert not is_out_of_memory(RuntimeError("shapes"))
    assert not is_out_of_memory(ValueError("MPS backend out of memory"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"))


def test_the_processors_own_lack_of_memory_counts():
    with pytest.raises(RuntimeError) as told:
        torch.empty(2**60)
    assert is_out_of_memory(told.value)


def test_work_that_fits_is_done_at_once():
    assert Fitting().run(lambda most: most, 12) == 12


def test_parts_are_as_few_as_can_be_and_equal_but_for_one_item():
    for n, size in itertools.product(range(1, 14), range(1, 14)):
        sizes = [len(part) for part in parts_of(torch.arange(n), size)]
        assert sum(sizes) == n
        assert len(sizes) == -(-n // size)
        assert max(sizes) <= size
        assert max(sizes) - min(sizes) <= 1


def test_a_number_for_the_whole_batch_is_in_every_part():
    parts = list(parts_of({"scale": torch.tensor(2.0), "x": torch.arange(3)}, 2))
    assert [float(part["scale"]) for part in parts] == [2.0, 2.0]
    assert [part["x"].tolist() for part in parts] == [[0, 1], [2]]


def test_parts_hold_all_items_of_every_kind_of_batch():
    batch = {"a": torch.arange(5), "b": [torch.arange(10).reshape(5, 2)]}
    parts = list(parts_of(batch, 2))
    assert [len(part["a"]) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([part["b"][0] for part in parts]), batch["b"][0])
    assert next(parts_of(batch, 5)) is batch

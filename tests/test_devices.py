"""Models that do not fit: a fake one that has room for so many rows at once."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from baal_widgets import ModelWrapper
from baal_widgets.bayesian.dropout import MCDropoutModule
from baal_widgets.devices import Fitting, is_out_of_memory, parts_of

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


def test_parts_hold_all_items_of_every_kind_of_batch():
    batch = {"a": torch.arange(5), "b": [torch.arange(10).reshape(5, 2)]}
    parts = list(parts_of(batch, 2))
    assert [len(part["a"]) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([part["b"][0] for part in parts]), batch["b"][0])
    assert next(parts_of(batch, 5)) is batch

from itertools import islice

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch.utils.data import DataLoader, Dataset

from baal_widgets import ActiveLearningDataset
from baal_widgets.utils.ssl_iterator import AlternateIterator, SemiSupervisedIterator, labelled_share


class Items(Dataset):
    def __init__(self, n, first=0):
        self.n, self.first = n, first

    def __len__(self):
        return self.n

    def __getitem__(self, item):
        if item >= self.n:
            raise IndexError(item)
        return self.first + item


class Dicts(Items):
    def __getitem__(self, item):
        return {"x": super().__getitem__(item)}


def make_dataset(kind=Items, n_labelled=4, n=12):
    return ActiveLearningDataset(kind(n), labelled=[item < n_labelled for item in range(n)])


def test_loaders_take_turns_and_begin_again():
    both = AlternateIterator(DataLoader(Items(2)), DataLoader(Items(3, first=10)), num_steps=8)
    told = [(int(batch), which) for batch, which in both]
    assert told == [(0, 0), (10, 1), (1, 0), (11, 1), (0, 0), (12, 1), (1, 0), (10, 1)]
    assert len(both) == 8
    assert len(AlternateIterator(DataLoader(Items(2)), DataLoader(Items(3)))) == 5


def test_a_share_decides_how_often_the_first_is_taken():
    both = AlternateIterator(DataLoader(Items(2)), DataLoader(Items(3)), num_steps=2000, p=0.3, random_state=0)
    first = sum(which == 0 for _, which in both)
    assert binomtest(first, 2000, 0.3).pvalue > 1e-3
    same = AlternateIterator(DataLoader(Items(2)), DataLoader(Items(3)), num_steps=50, p=0.3, random_state=1)
    again = AlternateIterator(DataLoader(Items(2)), DataLoader(Items(3)), num_steps=50, p=0.3, random_state=1)
    assert [which for _, which in same] == [which for _, which in again]
    with pytest.raises(ValueError, match="between 0 and 1"):
        AlternateIterator(DataLoader(Items(2)), DataLoader(Items(3)), p=1.5)


def test_without_a_second_loader_all_is_of_the_first():
    assert [which for _, which in AlternateIterator(DataLoader(Items(3)), None)] == [0, 0, 0]


def test_a_loader_that_begins_again_is_shuffled_anew():
    torch.manual_seed(0)
    loader = DataLoader(Items(30), batch_size=30, shuffle=True)
    orders = [
        batch.tolist() for batch, which in AlternateIterator(loader, DataLoader(Items(1)), num_steps=6) if which == 0
    ]
    assert len({tuple(order) for order in orders}) == 3


def test_no_batch_is_kept_for_later():
    kept = []

    class Watched(Items):
        def __getitem__(self, item):
            kept.append(item)
            return torch.zeros(1)

    both = AlternateIterator(DataLoader(Watched(3)), DataLoader(Items(1)), num_steps=12)
    assert len(list(both)) == 12
    assert kept == [0, 1, 2, 0, 1, 2]


def test_an_empty_loader_is_told():
    with pytest.raises(ValueError, match="Loader 2 of 2 has no batches"):
        list(AlternateIterator(DataLoader(Items(3)), DataLoader(Items(3), batch_size=4, drop_last=True)))


@pytest.mark.parametrize("kind", [Items, Dicts])
def test_labelled_and_pool_batches_are_told_apart(kind):
    seen = {True: set(), False: set()}
    iterator = SemiSupervisedIterator(make_dataset(kind), batch_size=2)
    for batch in iterator:
        inner = iterator.get_batch(batch)
        values = inner["x"] if kind is Dicts else inner
        assert kind is Items or set(inner) == {"x"}
        seen[iterator.is_labeled(batch)] |= set(values.tolist())
    assert seen[True] == {0, 1, 2, 3}
    assert seen[False] == {4, 5, 6, 7}
    assert len(iterator) == 4


def test_what_is_labelled_meanwhile_counts_from_the_next_epoch():
    dataset = make_dataset()
    iterator = SemiSupervisedIterator(dataset, batch_size=4, num_steps=4)
    assert [len(batch) for batch, which in iterator if which == 0] == [4, 4]
    dataset.label(range(4))
    iterator = SemiSupervisedIterator(dataset, batch_size=4, num_steps=4)
    assert {int(item) for batch, which in iterator if which == 0 for item in batch} == set(range(8))


def test_the_share_sets_the_length_of_an_epoch():
    assert len(SemiSupervisedIterator(make_dataset(), batch_size=2, p=0.25)) == 8
    assert len(SemiSupervisedIterator(make_dataset(), batch_size=2, p=1)) == 2
    assert all(which == 0 for _, which in SemiSupervisedIterator(make_dataset(), batch_size=2, p=1))
    assert len(SemiSupervisedIterator(make_dataset(n_labelled=12), batch_size=2)) == 6
    assert labelled_share(4, 8) == pytest.approx(1 / 3)


def test_foreign_batches_and_nothing_to_train_on_are_refused():
    with pytest.raises(ValueError, match="gave out"):
        SemiSupervisedIterator.is_labeled(np.zeros(2))
    with pytest.raises(ValueError, match="label something first"):
        SemiSupervisedIterator(make_dataset(n_labelled=0), batch_size=2)


def test_an_iterator_can_be_left_early():
    assert len(list(islice(SemiSupervisedIterator(make_dataset(), batch_size=2), 3))) == 3

"""Which items are labelled, at a million items and more: access, the pool, labelling, translation."""

from __future__ import annotations

import numpy as np
from torch.utils.data import Dataset

from baal_widgets import ActiveLearningDataset
from benchmarks.harness import Comparison, Growth, whatever


class Rows(Dataset):
    """Small images in memory, whose labels are known."""

    def __init__(self, items, width=96):
        self.images = np.zeros((items, width), np.uint8)
        self.images[:, 0] = np.arange(items) % 251

    def __len__(self):
        return len(self.images)

    def __getitem__(self, item):
        return self.images[item], int(item)


def split(kind, items, labelled=1_000):
    dataset = kind(Rows(items), labelled=np.arange(items) % (items // labelled) == 0)
    assert len(dataset) >= labelled
    return dataset


def both(items):
    from baal.active.dataset import ActiveLearningDataset as Baals

    labelled = max(min(1_000, items // 10), 1)
    return {"baal_widgets": split(ActiveLearningDataset, items, labelled), "Baal 2.1": split(Baals, items, labelled)}


def access(device, items, times):
    def reading(dataset):
        places = np.random.default_rng(0).integers(len(dataset), size=times).tolist()
        return lambda: [dataset[place][1] for place in places]

    return {name: reading(dataset) for name, dataset in both(items).items()}


def translating(device, items, times):
    """Where in the whole dataset are the items at positions of the pool, one by one: what an answer is told by."""

    def asking(find):
        places = np.random.default_rng(0).integers(items // 2, size=times).tolist()
        return lambda: np.array([find(place) for place in places]).ravel()

    datasets = both(items)
    finds = {"baal_widgets": "pool_to_dataset", "Baal 2.1": "_pool_to_oracle_index"}
    return {name: asking(getattr(dataset, finds[name])) for name, dataset in datasets.items()}


def pools(device, items, times):
    def reading(dataset):
        return lambda: [int(dataset.pool[place][0][0]) for place in range(times)]

    return {name: reading(dataset) for name, dataset in both(items).items()}


def labelling(device, items, times):
    """Label an item of the pool, look at the next, tell how many are left: what a click does."""

    def clicking(dataset):
        rng = np.random.default_rng(0)

        def run():
            for _ in range(times):
                dataset.label(int(rng.integers(dataset.n_unlabelled)))
            return len(dataset)

        return run

    return {name: clicking(dataset) for name, dataset in both(items).items()}


def accessing(device, items):
    return access_of(split(ActiveLearningDataset, items, max(items // 100, 1)))


def access_of(dataset):
    places = np.random.default_rng(0).integers(len(dataset), size=1_000).tolist()
    return lambda: [dataset[place] for place in places]


def clicking(device, items):
    dataset = split(ActiveLearningDataset, items, max(items // 100, 1))
    places = np.random.default_rng(0).integers(dataset.n_unlabelled // 2, size=100).tolist()

    def run():
        for place in places:
            item = dataset.pool_to_dataset(place)
            dataset.label_items(item)
            assert dataset.is_labelled(item)
            dataset.unlabel(item)
            assert dataset.dataset_to_pool(item) == place

    return run


COMPARISONS = [
    Comparison(
        "item access",
        "{times} labelled items out of {items:,}",
        "Baal 2.1",
        100,
        access,
        sizes={"items": 1_000_000, "times": 100},
        quick={"items": 1_000, "times": 3},
    ),
    Comparison(
        "translation",
        "{times} positions of the pool, of {items:,} items, to their indices in the whole dataset",
        "Baal 2.1",
        100,
        translating,
        sizes={"items": 1_000_000, "times": 100},
        quick={"items": 1_000, "times": 3},
    ),
    Comparison(
        "pool",
        "`.pool` and an item of it, {times} times, of {items:,} items of 96 bytes",
        "Baal 2.1",
        100,
        pools,
        sizes={"items": 1_000_000, "times": 5},
        quick={"items": 1_000, "times": 3},
    ),
    Comparison(
        "labelling",
        "{times} labels one by one, of {items:,} items",
        "Baal 2.1",
        10,
        labelling,
        sizes={"items": 1_000_000, "times": 20},
        quick={"items": 1_000, "times": 3},
        agree=whatever,
    ),
    Growth(
        "item access over items",
        "1,000 items of so many",
        [10_000, 100_000, 1_000_000],
        accessing,
        at_most=0.2,
        quick=[1_000, 2_000],
    ),
    Growth(
        "labelling over items",
        "label, unlabel and translate 100 items of so many",
        [10_000, 100_000, 1_000_000, 10_000_000],
        clicking,
        at_most=0.2,
        quick=[1_000, 2_000],
        repetitions=3,
    ),
]

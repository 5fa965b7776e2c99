"""The dataset of a session is brought in step with many answers at once."""

import time

import torch
from torch.utils.data import TensorDataset

from baal_widgets.sources import open_source

N = 20_000


def make_source(n=N):
    return open_source(TensorDataset(torch.zeros(n, 2)))


def test_answers_put_at_once_are_as_those_put_one_by_one():
    steps = [{0: 1, 1: 0, 2: 2}, {0: None, 1: 2, 3: 0}, {0: 1, 2: None, 4: None, 1: 1}]
    one, other = make_source(6), make_source(6)
    for step, answers in enumerate(steps, start=1):
        one.put(answers, step)
        for item, target in answers.items():
            other.put({item: target}, step)
        assert one.dataset.labelled_map.tolist() == other.dataset.labelled_map.tolist()
        assert one.dataset.dataset.targets == other.dataset.dataset.targets
    assert one.dataset.dataset.targets == {0: 1, 1: 1, 3: 0}
    assert one.dataset.labelled_map.tolist() == [3, 1, 0, 2, 0, 0]


def test_taking_back_or_changing_twenty_thousand_labels_looks_at_the_dataset_a_few_times():
    source = make_source()
    maps, replaced = [], source.dataset._replace_map
    source.dataset._replace_map = lambda steps: maps.append(1) or replaced(steps)
    began = time.process_time()
    source.put(dict.fromkeys(range(N), 1), 1)
    source.put(dict.fromkeys(range(N), 2), 1)
    source.put(dict.fromkeys(range(N)), 2)
    assert (len(maps), source.dataset.n_labelled, source.dataset.dataset.targets) == (2, 0, {})
    assert time.process_time() - began < 3  # 10 s and more, were it item by item

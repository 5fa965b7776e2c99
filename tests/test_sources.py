"""The dataset of a session is brought in step with many answers at once."""

from collections import Counter

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


def test_twenty_thousand_labels_are_given_changed_and_taken_back_by_one_call_each():
    source, calls = make_source(), Counter()
    for name in ("label_items", "relabel", "unlabel"):
        setattr(source.dataset, name, counted(calls, name, getattr(source.dataset, name)))
    source.put(dict.fromkeys(range(N), 1), 1)
    source.put(dict.fromkeys(range(N), 2), 1)
    assert set(source.dataset.dataset.targets.values()) == {2}
    source.put(dict.fromkeys(range(N)), 2)
    assert (source.dataset.n_labelled, source.dataset.dataset.targets) == (0, {})
    assert calls == {"label_items": 1, "relabel": 1, "unlabel": 1}


def counted(calls, name, method):
    def call(*told, **named):
        calls[name] += 1
        return method(*told, **named)

    return call

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from baal_widgets.active.heuristics import BALD
from baal_widgets.jobs import Job
from baal_widgets.learning import Learner
from baal_widgets.sources import open_source
from baal_widgets.training import Training
from baal_widgets.twin import RandomTwin

QUICK = Training(batch_size=16, lr=1e-2, min_steps=20, max_steps=40, window=10)


def make_data(n, seed):
    x = torch.rand(n, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return TensorDataset(x, torch.bucketize(x.sum(1), torch.tensor([-0.7, 0.7])))


POOL, TEST = make_data(60, 1), make_data(50, 2)
ORACLE = POOL.tensors[1].tolist()


def make_model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 3))


def make_learner(**options):
    told = {"n_classes": 3, "test_set": TEST, "heuristic": BALD(), "iterations": 5, "training": QUICK, "seed": 0}
    return Learner(open_source(POOL), make_model(), **{**told, "device": "cpu", **options})


def job():
    return Job(lambda _: None)


def test_more_random_labels_are_those_before_and_some():
    twin = RandomTwin(make_learner(), ORACLE, seed=3)
    assert sorted(twin.order) == list(range(60))
    assert twin.order == RandomTwin(make_learner(), ORACLE, seed=3).order != RandomTwin(make_learner(), ORACLE).order


def test_the_twin_is_measured_as_the_learner_is():
    learner = make_learner()
    twin = RandomTwin(learner, ORACLE, seed=3)
    row = twin.learn(12, 1, job())
    straight = learner.learn({item: ORACLE[item] for item in twin.order[:12]}, (), 1, job()).metrics
    untimed = row.keys() - {"seconds", "pool", "agreement"}
    assert {key: row[key] for key in untimed} == {key: straight[key] for key in untimed}
    assert twin.history == [row]
    assert row["n_labelled"] == 12


def test_the_learner_is_left_alone():
    learner = make_learner()
    targets = {item: ORACLE[item] for item in range(10)}
    learner.learn(targets, range(10, 60), 1, job())
    held = copy.deepcopy(learner.wrapper.state_dict())
    RandomTwin(learner, ORACLE).learn(20, 2, job())
    assert all(torch.equal(value, held[name]) for name, value in learner.wrapper.state_dict().items())


def test_the_twin_knows_of_classes_that_were_added():
    learner = make_learner()
    learner.set_classes(4)
    twin = RandomTwin(learner, dict.fromkeys(range(60), 3))
    assert twin.learn(12, 1, job())["accuracy"] < 0.5


def test_only_what_the_oracle_knows_is_picked():
    twin = RandomTwin(make_learner(), {5: 0, 7: 1, 9: 2})
    assert sorted(twin.order) == [5, 7, 9]
    assert twin.learn(100, 1, job())["n_labelled"] == 3


def test_a_cancelled_twin_keeps_its_history():
    twin, cancelled = RandomTwin(make_learner(), ORACLE), job()
    cancelled.cancel()
    with pytest.raises(Exception, match="cancelled"):
        twin.learn(12, 1, cancelled)
    assert twin.history == []

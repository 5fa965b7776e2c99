"""Other training libraries in a session."""

import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from torch.utils.data import TensorDataset

from baal_widgets import LabellingSession, Training
from baal_widgets.active.scores import bald
from baal_widgets.widgets import Labeller

CLASSES = ["low", "middle", "high"]


def make_data(n, seed):
    x = torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (n, 4)).astype(np.float32))
    return TensorDataset(x, torch.bucketize(x.sum(1), torch.tensor([-0.7, 0.7])))


POOL, TEST = make_data(80, 1), make_data(50, 2)
ORACLE = POOL.tensors[1].tolist()


def stacked(inputs):
    return np.stack([np.asarray(inputs[place]) for place in range(len(inputs))])


class Forest:
    """A forest whose trees are the draws."""

    def __init__(self):
        self.forest = RandomForestClassifier(10, random_state=0)

    def train(self, dataset):
        inputs, targets = zip(*(dataset[place] for place in range(len(dataset))), strict=True)
        self.forest.fit(np.stack(inputs), targets)

    def predict(self, dataset, iterations):
        draws = np.zeros((len(dataset), 3, 10))
        for tree, one in enumerate(self.forest.estimators_):
            draws[:, self.forest.classes_, tree] = one.predict_proba(stacked(dataset))
        return draws


class Constant:
    """Says the same of everything; keeps what it was called with."""

    def __init__(self, losses=None, shape=lambda n: (n, 3, 2)):
        self.losses, self.shape, self.calls = losses, shape, []

    def train(self, dataset):
        self.calls.append(("train", len(dataset)))
        return self.losses

    def predict(self, dataset, iterations):
        self.calls.append(("predict", len(dataset), iterations))
        return np.full(self.shape(len(dataset)), 1 / 3)


def make_session(trainer, **options):
    return LabellingSession(
        POOL, trainer, CLASSES, **{"query_size": 12, "iterations": 5, "test_set": TEST, "journal": None, **options}
    )


def test_a_forest_learns_in_a_session_and_asks_where_its_trees_disagree():
    given = Forest()
    session = make_session(given)
    first, *_, last = session.simulate(ORACLE, rounds=4)
    assert last["accuracy"] > first["accuracy"] > 1 / 3
    assert (last["loss"], last["losses"], last["steps"], last["converged"]) == (None, [], 0, None)
    query, pool = session.ask(), [item for item in range(80) if item not in session.labels]
    disagreement = bald(session.model.predict(torch.stack([POOL[item][0] for item in pool]), 5))
    assert query.scores[0] == pytest.approx(disagreement.max())
    assert session.explain(query.items[0]).epistemic == pytest.approx(disagreement.max(), abs=1e-5)
    assert not hasattr(given.forest, "estimators_"), "the session works on a copy"


def test_a_trainer_is_asked_for_items_without_targets_and_as_many_draws_as_wanted():
    session = make_session(Constant())
    session.simulate(ORACLE, rounds=1)
    assert session.model.calls == [("train", 12), ("predict", 50, 5), ("predict", 68, 5), ("predict", 12, 5)]


def test_batches_are_as_good_as_the_whole():
    class InBatches(Forest):
        def predict(self, dataset, iterations):
            return iter(np.array_split(super().predict(dataset, iterations), 4))

    whole, parts = make_session(Forest()), make_session(InBatches())
    assert [row["nll"] for row in whole.simulate(ORACLE, 2)] == [row["nll"] for row in parts.simulate(ORACLE, 2)]
    assert whole.ask().items == parts.ask().items


@given(st.lists(st.floats(0, 10), max_size=200))
def test_losses_are_told_whether_they_come_at_once_or_one_by_one(losses):
    rows = [make_session(Constant(made)).simulate(ORACLE, 1)[0] for made in (losses, Lazy(losses))]
    assert rows[0]["losses"] == rows[1]["losses"]
    assert rows[0]["steps"] == len(losses)
    assert rows[0]["loss"] == (pytest.approx(np.mean(losses[-50:]), abs=1e-5) if losses else None)


class Lazy:
    """Losses that are made when they are asked for."""

    def __init__(self, losses):
        self.losses = losses

    def __iter__(self):
        return iter(self.losses)


def test_an_adapter_of_an_experiment_is_a_trainer():
    class Adapter(Constant):
        def reset_weights(self):
            self.calls.append(("reset",))

        def train(self, dataset):
            super().train(dataset)
            return {"train_loss": 0.5}

    session = make_session(Adapter())
    session.simulate(ORACLE, rounds=2)
    assert [call[0] for call in session.model.calls if call[0] != "predict"] == ["reset", "train"] * 2
    assert session.history[-1]["loss"] is None


def test_a_lesson_is_cancelled_between_two_losses():
    began, steps = threading.Event(), []

    class Endless(Constant):
        def __deepcopy__(self, memo):
            return Endless()

        def train(self, dataset):
            while True:
                steps.append(1)
                began.set()
                yield 1.0

    session = make_session(Endless())
    for item in session.ask().items:
        session.label(item, ORACLE[item])
    job = session.learn(wait=False)
    assert began.wait(30)
    job.cancel()
    with pytest.raises(CancelledError):
        job.result(timeout=30)
    assert session.round == 0
    assert len(session.labels) == 12


def test_features_of_a_trainer_serve_the_heuristics_that_look_at_them():
    class WithFeatures(Forest):
        def features(self, dataset):
            return stacked(dataset)

    session = make_session(WithFeatures(), heuristic="coreset")
    far = POOL.tensors[0][list(session.ask().items)]  # chosen before there is any label
    session.simulate(ORACLE, rounds=1)
    assert session.explain(session.ask().items[0]).neighbours
    assert torch.pdist(far).mean() > torch.pdist(POOL.tensors[0]).mean()
    with pytest.raises(ValueError, match="Forest has no features"):
        make_session(Forest(), heuristic="coreset").ask()


def test_a_random_twin_leaves_the_sessions_trainer_alone():
    session = make_session(Forest())
    session.simulate(ORACLE, rounds=1)
    said = session.model.predict(TEST.tensors[0], 5)
    from baal_widgets.jobs import Job

    assert session.random_twin(ORACLE).learn(40, 1, Job(lambda _: None))["n_labelled"] == 40
    assert np.array_equal(session.model.predict(TEST.tensors[0], 5), said)


def test_what_the_widget_says_of_a_trainer_is_not_that_it_needs_more_steps():
    session = make_session(Forest())
    session.simulate(ORACLE, rounds=1)
    assert "accuracy" in Labeller(session).deck._training_line(running=False)
    assert "falling" not in Labeller(session).deck._training_line(running=False)


@pytest.mark.parametrize("shape", [lambda n: (n, 3), lambda n: (n, 2, 4), lambda n: (n, 3, 4, 4)])
def test_predictions_of_another_shape_are_refused_and_labels_stay(shape):
    session = make_session(Constant(shape=shape))
    with pytest.raises(ValueError, match=r"Constant.predict to give \[item, class, draw\]"):
        session.simulate(ORACLE, rounds=1)
    assert len(session.labels) == 12
    with pytest.raises(ValueError, match="to tell of 50 items, got 49"):
        make_session(Constant(shape=lambda n: (n - 1, 3, 2))).simulate(ORACLE, rounds=1)


def test_what_is_no_trainer_is_refused_with_advice():
    with pytest.raises(TypeError, match="RandomForestClassifier has no train"):
        make_session(RandomForestClassifier())
    with pytest.raises(ValueError, match="training= is for torch models"):
        make_session(Forest(), training=Training())
    with pytest.raises(ValueError, match="weights= is for torch models"):
        make_session(Forest(), weights=True)
    with pytest.raises(ValueError, match="Forest was made for 3 classes and can't be given 4"):
        make_session(Forest()).add_class("higher")

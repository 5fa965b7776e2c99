import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score, log_loss, recall_score
from sklearn.neighbors import NearestNeighbors
from torch import nn
from torch.utils.data import TensorDataset

from baal_widgets.active.heuristics import BALD, MaxHerding, Random
from baal_widgets.active.scores import bald, predictive_entropy
from baal_widgets.demo import load_demo
from baal_widgets.insight import Recorder, disputed, unit_rows
from baal_widgets.jobs import Job
from baal_widgets.learning import Learner
from baal_widgets.measures import measures_of_sets
from baal_widgets.sources import open_source
from baal_widgets.training import Training

QUICK = Training(batch_size=16, lr=1e-2, min_steps=20, max_steps=40, window=10)


def make_data(n, seed):
    x = torch.rand(n, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return TensorDataset(x, torch.bucketize(x.sum(1), torch.tensor([-0.7, 0.7])))


POOL, TEST = make_data(60, 1), make_data(50, 2)
ORACLE = POOL.tensors[1].tolist()


def make_model(outputs=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, outputs))


def make_learner(model=None, **options):
    told = {"n_classes": 3, "test_set": TEST, "heuristic": BALD(), "iterations": 5, "training": QUICK, "seed": 0}
    told |= {"device": "cpu", **options}
    return Learner(open_source(told.pop("dataset", POOL)), model or make_model(), **told)


def lesson(learner, n=12, round_=1, labels=ORACLE, **options):
    return learner.learn({i: labels[i] for i in range(n)}, range(n, 60), round_, Job(lambda _: None), **options)


def test_every_item_is_explained_by_what_the_ranking_was_made_of():
    told = lesson(make_learner())
    insight = told.insight
    for rank, (item, score) in enumerate(zip(told.items, told.scores, strict=True), 1):
        known = insight.explain(item)
        assert (known.item, known.round, known.rank, known.n_ranked) == (item, 1, rank, 48)
        assert known.score == score
        assert known.epistemic == pytest.approx(score, abs=1e-5)  # BALD is the epistemic part
        assert known.total == pytest.approx(known.epistemic + known.aleatoric)
        assert sum(known.probabilities) == pytest.approx(1, abs=1e-5)
        assert insight.guess(item) == (int(np.argmax(known.probabilities)), max(known.probabilities))
        assert len(known.votes) == 5
    assert insight.explain(3).rank is None
    assert insight.explain(3).score is None
    assert insight.explain(60) is None
    assert insight.guess(-1) is None


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(2, 6), st.integers(1, 7))
def test_what_is_recorded_batch_by_batch_is_what_the_scores_say(seed, n, classes, draws):
    rng = np.random.default_rng(seed)
    whole = rng.dirichlet(np.ones(classes), (n, draws)).transpose(0, 2, 1)
    recorder = Recorder(range(n))
    for part in np.array_split(whole, 3):
        if len(part):
            recorder.add(part)
    told = recorder.predicted()
    np.testing.assert_allclose(told.total, predictive_entropy(whole), atol=1e-6)
    np.testing.assert_allclose(told.epistemic, bald(whole), atol=1e-6)
    np.testing.assert_array_equal(told.votes, whole.argmax(axis=1))
    assert told.votes.dtype == np.uint8
    assert told.probabilities.dtype == np.float32


def test_neighbours_are_the_nearest_labelled_items():
    learner = make_learner()
    insight = lesson(learner).insight
    features = learner.wrapper.features_on_dataset(learner.source.inputs(range(60)))
    index = NearestNeighbors(n_neighbors=5, metric="cosine").fit(features[:12])
    distances, places = index.kneighbors(features[12:])
    for item in range(12, 60):
        near = insight.explain(item).neighbours
        assert [one.item for one in near] == places[item - 12].tolist()
        assert [one.label for one in near] == [ORACLE[one.item] for one in near]
        np.testing.assert_allclose([one.distance for one in near], distances[item - 12], atol=1e-5)
    assert 3 not in [one.item for one in insight.explain(3).neighbours]


def test_neighbours_are_looked_for_where_one_is_asked_next():
    told = lesson(make_learner(explained=5))
    assert [bool(told.insight.explain(item).neighbours) for item in told.items] == [True] * 5 + [False] * 43


def test_to_be_explained_changes_nothing_of_the_lesson():
    plain, shown = (lesson(make_learner(), insight=wanted) for wanted in (False, True))
    assert plain.insight is None
    assert (plain.items, plain.scores) == (shown.items, shown.scores)
    assert all(plain.metrics[key] == shown.metrics[key] for key in plain.metrics.keys() - {"seconds"})


@pytest.mark.parametrize("heuristic", [Random(), MaxHerding()])
def test_heuristics_without_predictions_are_explained_too(heuristic):
    told = lesson(make_learner(heuristic=heuristic))
    assert told.insight.explain(told.items[0]).rank == 1
    assert told.metrics["pool"]["n"] == 48


# Rows of the history


def test_a_row_tells_of_the_pool_and_of_the_agreement_with_the_model_before():
    learner = make_learner()
    first, second = lesson(learner, 12), lesson(learner, 24, 2)
    pool = [second.insight.explain(item) for item in range(24, 60)]
    assert second.metrics["pool"]["n"] == 36
    for name in ("total", "epistemic", "aleatoric"):
        assert second.metrics["pool"][name] == pytest.approx(np.mean([getattr(one, name) for one in pool]), abs=1e-4)
    said = [[told.insight.guess(item)[0] for item in range(24, 60)] for told in (first, second)]
    assert first.metrics["agreement"] is None
    assert second.metrics["agreement"] == pytest.approx(cohen_kappa_score(*said), abs=1e-5)


def test_a_row_tells_how_sure_its_measures_are_and_is_small():
    row = lesson(make_learner()).metrics
    assert 0 <= row["ece_interval"][0] <= row["ece_interval"][1] <= 1
    assert 0 < row["ece_calibrated"] < 0.3
    assert len(row["per_class"]) == 3
    counts = np.bincount(TEST.tensors[1], minlength=3)
    assert np.dot(row["per_class"], counts) / 50 == pytest.approx(row["accuracy"], abs=1e-3)
    assert len(json.dumps(row)) < 4_000


# Disputes


def test_a_label_against_all_its_neighbours_is_disputed():
    labels = [0] * 12 + [1] * 12
    features = unit_rows(np.repeat([[1.0, 0.0], [0.0, 1.0]], 12, axis=0) + np.arange(24)[:, None] * 1e-3)
    assert disputed(range(24), labels, features) == ()
    labels[3] = 1
    (found,) = disputed(range(100, 124), labels, features)
    assert (found.item, found.label, found.guess, found.confidence) == (103, 1, 0, 1.0)


def test_a_rare_class_is_not_outvoted_for_being_rare():
    features = unit_rows(np.random.default_rng(0).normal(size=(60, 3)) * 0.01 + 1)
    assert not [one for one in disputed(range(60), [0] * 58 + [1] * 2, features) if one.label == 1]


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_labels_are_not_disputed(n):
    assert disputed(range(n), list(range(n)), unit_rows(np.ones((n, 2)))) == ()


@pytest.mark.slow
def test_most_disputed_labels_of_the_demo_are_wrong():
    data, rng = load_demo(), np.random.default_rng(0)
    items = rng.permutation(len(data.oracle))[:200].tolist()
    wrong = set(items[:20])
    targets = {i: (data.oracle[i] + (3 if i in wrong else 0)) % 10 for i in items}
    learner = make_learner(data.model(), dataset=data.pool, n_classes=10, test_set=None, training=Training())
    found = {one.item for one in learner.learn(targets, (), 1, Job(lambda _: None)).insight.disputes}
    assert len(found & wrong) >= 0.6 * len(found)
    assert len(found & wrong) >= 3


# Classes that are added


def test_a_class_added_later_has_an_output_from_the_next_lesson_on():
    learner = make_learner()
    lesson(learner)
    before = learner._initial["3.weight"].clone()
    learner.set_classes(5)
    labels = [4 if i % 7 == 0 else y for i, y in enumerate(ORACLE)]
    told = lesson(learner, 30, 2, labels)
    assert len(told.insight.explain(40).probabilities) == 5
    assert torch.equal(learner._initial["3.weight"][:3], before)
    assert learner.wrapper.model[3].out_features == 5


def test_classes_one_after_another_give_the_weights_of_all_at_once():
    one, other, model = make_learner(), make_learner(), make_model()
    one.set_classes(4)
    lesson(one)
    one.set_classes(6)
    other.set_classes(6)
    assert lesson(one).scores == lesson(other).scores
    assert model[3].out_features == 3


def test_the_built_in_model_is_built_anew():
    images = TensorDataset(torch.rand(20, 1, 8, 8), torch.zeros(20, dtype=torch.long))
    source, job = open_source(images), Job(lambda _: None)
    options = {"test_set": None, "heuristic": BALD(), "iterations": 3, "training": QUICK, "device": "cpu", "seed": 0}
    grown, straight = (Learner(source, None, n_classes=n, **options) for n in (2, 3))
    grown.set_classes(3)
    targets = {0: 0, 1: 1, 2: 2}
    assert grown.learn(targets, range(3, 20), 1, job).scores == straight.learn(targets, range(3, 20), 1, job).scores


def test_a_class_added_while_a_lesson_runs_waits_for_the_next():
    learner = make_learner()
    report = (job := Job(lambda _: None)).report

    def add(*args, **named):
        learner.set_classes(4)
        report(*args, **named)

    job.report = add
    told = learner.learn({i: ORACLE[i] for i in range(12)}, range(12, 60), 1, job)
    assert len(told.insight.explain(12).probabilities) == 3
    assert len(lesson(learner, 12, 2).insight.explain(12).probabilities) == 4


def test_a_model_without_such_outputs_is_refused_before_anything_changes():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.drop = nn.Linear(4, 32), nn.Dropout(0.5)
            self.out = nn.Parameter(torch.zeros(32, 3))

        def forward(self, x):
            return self.drop(self.body(x)) @ self.out

    learner = make_learner(Odd())
    with pytest.raises(ValueError, match="no nn.Linear or nn.Conv with 3 outputs"):
        learner.set_classes(4)
    assert learner.n_classes == 3
    lesson(learner)
    with pytest.raises(ValueError, match="at least the 3 classes"):
        learner.set_classes(2)


def test_a_model_that_has_the_outputs_already_is_taken_as_it_is():
    learner = make_learner(make_model(4))
    learner.set_classes(4)
    assert lesson(learner).metrics["n_labelled"] == 12


# Progress


def test_training_tells_its_loss_and_from_the_second_lesson_on_how_long_it_takes():
    learner, seen = make_learner(), []
    for round_ in (1, 2):

        def work(job, round_=round_):
            return learner.learn({i: ORACLE[i] for i in range(12)}, range(12, 60), round_, job)

        job = Job(work)
        report = job.report

        def watch(*args, job=job, report=report, round_=round_, **named):
            report(*args, **named)
            seen.append((round_, job.progress))

        job.report = watch
        job.run().result()
    training = {n: [p for r, p in seen if r == n and p.phase == "train"] for n in (1, 2)}
    assert all(p.eta is None for p in training[1])
    assert all(p.eta is not None and p.eta >= 0 for p in training[2])
    assert all(np.isfinite(p.loss) for p in training[1][1:])
    assert any(p.eta is not None for r, p in seen if r == 1 and p.phase == "score")
    assert all(p.loss is None for _, p in seen if p.phase != "train")


# Items of several classes


def make_sets(n, seed):
    x = torch.rand(n, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return TensorDataset(x, (x[:, :3] > 0).float())


def make_multi(**options):
    sets = make_sets(60, 1)
    source = open_source(TensorDataset(sets.tensors[0]))
    told = {"n_classes": 3, "test_set": make_sets(80, 2), "heuristic": BALD(reduction="mean"), "iterations": 5}
    told |= {"training": Training(batch_size=16, lr=1e-2, min_steps=150, max_steps=200, window=10), "device": "cpu"}
    learner = Learner(source, make_model(), multi_label=True, seed=0, **{**told, **options})
    return learner, sets.tensors[1]


def test_items_may_belong_to_several_classes():
    learner, rows = make_multi()
    told = learner.learn({i: rows[i] for i in range(40)}, range(40, 60), 1, Job(lambda _: None))
    row = told.metrics
    assert row["accuracy"] > 0.6  # chance is an eighth
    assert row["macro_accuracy"] > 0.85
    assert sum(row["reliability"]["count"]) == 3 * 80
    assert len(json.dumps(row)) < 4_000
    for item, score in zip(told.items, told.scores, strict=True):
        known = told.insight.explain(item)
        assert known.epistemic == pytest.approx(score, abs=1e-5)
        assert all(0 <= p <= 1 for p in known.probabilities)
        assert known.votes == ()
        assert all(one.label == tuple(np.flatnonzero(rows[one.item])) for one in known.neighbours)
    assert told.insight.disputes == ()
    learner.set_classes(4)  # rows written before are as long as the classes were
    again = learner.learn({i: rows[i] for i in range(44)}, range(44, 60), 2, Job(lambda _: None))
    assert len(again.insight.explain(50).probabilities) == 4
    assert 0.5 < again.metrics["agreement"] <= 1


def test_measures_of_sets_are_those_of_each_answer():
    rng = np.random.default_rng(0)
    mean, truth = rng.random((50, 3)), rng.integers(0, 2, (50, 3))
    told = measures_of_sets(mean, truth, rng)
    assert told["accuracy"] == pytest.approx(accuracy_score(truth, mean > 0.5))
    assert told["nll"] == pytest.approx(log_loss(truth.ravel(), mean.ravel()))
    np.testing.assert_allclose(told["per_class"], recall_score(truth, mean > 0.5, average=None), atol=1e-3)

"""From a label to the new ranking, beside Baal doing the same: over frozen features, and the loop of the demo.

The same means: the same model from the same first weights, the same optimizer and batch size, as many of its steps
(Baal, which trains by whole epochs, takes none more than we do), 20 draws of the same test set and of the same pool,
and BALD. Our sessions do more than that in the time told: a journal, calibration, reasons for the ranking.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from baal_widgets import LabellingSession, load_demo
from baal_widgets.active.heuristics import get_heuristic
from baal_widgets.jobs import Job
from baal_widgets.learning import Learner
from baal_widgets.sources import open_source
from baal_widgets.training import Training
from benchmarks.harness import Comparison, Growth, Quality, whatever

DRAWS, BATCH, LR = 20, 32, 3e-3


class Frozen(nn.Module):
    """A backbone that gives what it is given: whoever compares heads gives all of them the same features."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, x):
        return x * self.scale


class Rows(Dataset):
    def __init__(self, features, targets):
        self.features, self.targets = features, targets

    def __len__(self):
        return len(self.features)

    def __getitem__(self, item):
        return self.features[item], self.targets[item]


def clusters(items, features, classes=10):
    """Features as a backbone gives them, none below zero, and classes that some of the items are between."""
    rng = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, features, generator=rng)
    truth = torch.randint(classes, (items,), generator=rng)
    spread = 1 + 6 * torch.rand(items, 1, generator=rng)
    return (centres[truth] + spread * torch.randn(items, features, generator=rng)).relu(), truth


def head_of(features, classes=10):
    torch.manual_seed(0)
    return nn.Sequential(nn.Dropout(0.5), nn.Linear(features, classes))


def lesson(device, items, labels, features, epochs):
    """Our lesson over features that are kept: the function gives the score of each item that is not labelled."""
    data, truth = clusters(items, features)
    steps = epochs * -(-labels // BATCH)
    training = Training(batch_size=BATCH, lr=LR, min_steps=steps, max_steps=steps, window=steps)
    learner = Learner(
        open_source(Rows(data, truth.tolist())),
        nn.Sequential(Frozen(), *head_of(features)),
        n_classes=10,
        test_set=None,
        heuristic=get_heuristic("bald"),
        iterations=DRAWS,
        training=training,
        device=device,
        seed=0,
    )
    targets = {item: int(truth[item]) for item in range(labels)}

    def run():
        told = learner.learn(targets, range(labels, items), 1, Job(lambda _: None), insight=False)
        return np.array(told.scores)[np.argsort(told.items)]

    return run


def baals(model, device, epochs):
    from baal import ModelWrapper
    from baal.modelwrapper import TrainingArgs

    cuda = device.startswith("cuda")
    told = TrainingArgs(
        optimizer=torch.optim.Adam(model.parameters(), lr=LR),
        batch_size=BATCH,
        epoch=epochs,
        use_cuda=cuda,
        workers=0,  # more of them would be work that the CPU clock does not see
        criterion=nn.CrossEntropyLoss(),
    )
    return ModelWrapper(model.cuda() if cuda else model, told)


def baals_lesson(device, items, labels, features, epochs):
    from baal.active.heuristics import BALD
    from baal.bayesian.dropout import MCDropoutModule

    data, truth = clusters(items, features)
    model = MCDropoutModule(head_of(features))
    first = copy.deepcopy(model.state_dict())
    train, pool = (TensorDataset(data[some], truth[some]) for some in (slice(labels), slice(labels, None)))

    def run():
        model.load_state_dict(first)
        wrapper = baals(model, device, epochs)
        wrapper.train_on_dataset(train)
        return BALD().get_uncertainties(wrapper.predict_on_dataset(pool, iterations=DRAWS, verbose=False))

    return run


def ranked_alike(results):
    """Both rank the pool much alike: each has trained a model of its own, and drawn from it."""
    one, other = results.values()
    assert len(one) == len(other)
    assert spearmanr(one, other).statistic > 0.5


def loop(device, rounds):
    """Our session: asked, answered and taught so often. The function gives the history."""
    data = load_demo()

    def run():
        options = {"test_set": data.test, "journal": None, "device": device, "seed": 0, "iterations": DRAWS}
        with LabellingSession(data.pool, data.model(), data.classes, **options) as session:
            return session.simulate(data.oracle, rounds=rounds)

    return run


def baals_loop(device, rounds, steps):
    """The same by Baal: first at random, then by BALD, training for at most the steps that ours took."""
    from baal import ActiveLearningDataset
    from baal.active.heuristics import BALD
    from baal.bayesian.dropout import MCDropoutModule

    data = load_demo()
    known = Rows([data.pool[item][0] for item in range(len(data.pool))], data.oracle)

    def run():
        pool = ActiveLearningDataset(known)
        model = MCDropoutModule(data.model())
        first = copy.deepcopy(model.state_dict())
        pool.label_randomly(24)
        history = []
        for most in steps:
            model.load_state_dict(first)
            epochs = most // -(-len(pool) // BATCH)
            wrapper = baals(model, device, epochs)
            wrapper.add_metric("accuracy", Hits)
            wrapper.train_on_dataset(pool)
            wrapper.test_on_dataset(data.test, average_predictions=DRAWS)
            history.append({"n_labelled": len(pool), "accuracy": float(wrapper.metrics["test_accuracy"].compute())})
            ranks = BALD()(wrapper.predict_on_dataset(pool.pool, iterations=DRAWS, verbose=False))
            pool.label(ranks[:24].tolist())
        return history

    return run


class Hits:
    """The share of predictions that are right, of all items; the metric that comes with Baal averages batches."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.right = self.n = 0

    def update(self, output, target):
        self.right += int((output.argmax(1) == target).sum())
        self.n += len(target)

    def compute(self):
        return torch.tensor(self.right / max(self.n, 1))


def loop_ways(device, rounds):
    ours = loop(device, rounds)
    steps = [row["steps"] for row in ours()]
    return {"baal_widgets": ours, "Baal 2.1": baals_loop(device, rounds, steps)}


def accuracy_at_the_end(history, rounds):
    return history[-1]["accuracy"]


def reranking(device, items):
    return lesson(device, items, 50, 64, 1)


COMPARISONS = [
    Comparison(
        "frozen features",
        "Teach a head {labels} labels and rank {items:,} by it, {features} features, 20 draws",
        "Baal 2.1",
        20,
        lambda device, **sizes: {"baal_widgets": lesson(device, **sizes), "Baal 2.1": baals_lesson(device, **sizes)},
        sizes={"items": 50_000, "labels": 500, "features": 1280, "epochs": 6},
        quick={"items": 600, "labels": 200, "features": 32, "epochs": 3},
        repetitions=5,
        slow=["Baal 2.1"],
        agree=ranked_alike,
    ),
    Comparison(
        "demo loop",
        "The loop of the demo, {rounds} rounds: train, test, score the pool, ask 24",
        "Baal 2.1",
        5,
        loop_ways,
        sizes={"rounds": 10},
        quick={"rounds": 1},
        repetitions=1,
        slow=["Baal 2.1"],
        agree=whatever,
        quality=Quality(name="accuracy", of=accuracy_at_the_end, slack=0.1),
        note="Both take the same training steps, and a bare loop of nothing but those takes four fifths of our time: "
        "2.3 times is the most that anyone could reach with them.",
    ),
    Growth(
        "frozen features over items",
        "Teach a head 50 labels and rank so many items by it, 64 features, 20 draws",
        [5_000, 20_000, 80_000],
        reranking,
        at_most=1.15,
        quick=[500, 1_000],
    ),
]

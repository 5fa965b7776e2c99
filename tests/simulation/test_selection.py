import numpy as np
import pytest
import torch

from baal_widgets.active import batches, diversity, scores
from baal_widgets.simulation import selection
from baal_widgets.simulation.network import Shape, initial_weights, last_hidden
from baal_widgets.simulation.randomness import generator
from baal_widgets.simulation.training import Lanes

CPU = torch.device("cpu")


@pytest.fixture
def known(rng):
    """What a run knows at a query: features, weights, and its predictions of all but the first ten items."""
    x = torch.from_numpy(rng.normal(size=(90, 6)).astype(np.float32))
    shape = Shape((6, 12, 8, 3), 0.5)
    layers = shape.layers(3 * initial_weights(shape, [4], CPU))
    p, logits = selection.predict(shape, layers, Lanes.of([4], CPU), x[None, 10:], 5, 2, 80)
    return x, layers, p[0], logits[0]


def asked(known, name, n=7):
    x, layers, p, logits = known
    heuristic = selection.heuristic_for(name, 4, 2)
    items, labelled = np.arange(10, 90), np.arange(10)
    return selection.chosen(heuristic, n, items, labelled, x, layers, (p, logits), p[:20]).tolist()


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("bald", lambda p, logits: scores.bald(p)),
        ("entropy", lambda p, logits: scores.predictive_entropy(p)),
        ("margin", lambda p, logits: scores.margin(p)),
        ("certainty", lambda p, logits: scores.certainty(p)),
        ("variance", lambda p, logits: scores.variance(p).mean(dim=1)),
        ("epig", lambda p, logits: batches.epig(p, p[:20])),
        ("logit_entropy", lambda p, logits: scores.predictive_entropy(logits.mean(dim=-1).softmax(dim=1))),
    ],
)
def test_a_query_is_the_best_by_the_packages_own_score(known, name, score):
    _, _, p, logits = known
    best = np.argsort(-score(p, logits).numpy(), kind="stable")[:7] + 10
    assert asked(known, name) == best.tolist()


def test_a_batch_is_the_packages_own_batch(known):
    x, layers, p, _ = known
    hidden = last_hidden(layers, x[None, 10:])[0]

    def rng():
        return generator(4, "query", 2)

    def best(picks):
        return (np.asarray(picks.items)[:7] + 10).tolist()

    assert asked(known, "batch_bald") == best(batches.batchbald(p, 7, rng=rng()))
    assert asked(known, "coreset") == best(diversity.coreset(x[10:], 7, x[:10]))
    assert asked(known, "typiclust") == best(diversity.typiclust(x[10:], 7, x[:10], rng=rng()))
    assert asked(known, "badge") == best(diversity.badge(p, hidden, 7, rng=rng()))
    assert asked(known, "power_bald") != asked(known, "bald")


def test_entropy_of_mean_logits_is_another_ranking(known):
    assert asked(known, "logit_entropy") != asked(known, "entropy")


def test_a_part_of_the_pool_is_drawn_alike_for_runs_that_asked_differently():
    items, some, others = np.arange(1000), np.arange(0, 100), np.arange(50, 150)
    one, other = (selection.candidates(items, labelled, 3, 1, 0.25, 10) for labelled in (some, others))
    assert len(one) == len(other) == 225
    assert not np.isin(one, some).any()
    assert np.all(np.diff(one) > 0)
    both = np.setdiff1d(items, np.arange(150))
    assert np.isin(one[np.isin(one, both)], other).mean() > 0.9
    assert len(selection.candidates(items, some, 3, 2, 0.25, 10)) == 225
    assert not np.array_equal(selection.candidates(items, some, 3, 2, 0.25, 10), one)
    assert np.array_equal(selection.candidates(items, some, 3, 1, 1.0, 10), np.arange(100, 1000))

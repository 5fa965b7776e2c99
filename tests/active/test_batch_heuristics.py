"""The objects around `batches` and `diversity`: what they take, their sizes and their order."""

import numpy as np
import pytest
import torch

from baal_widgets.active import batches, diversity
from baal_widgets.active.heuristics import (
    BADGE,
    BALD,
    EPIG,
    HEURISTICS,
    ICAL,
    BatchBALD,
    CoreSet,
    MaxHerding,
    TypiClust,
    get_heuristic,
)
from baal_widgets.active.heuristics.knowledge import known_to

N, C, T, D = 20, 3, 12, 5


@pytest.fixture
def probabilities(rng):
    return rng.dirichlet(np.ones(C), size=(N, T)).transpose(0, 2, 1)


@pytest.fixture
def features(rng):
    return rng.normal(size=(N, D))


def arguments(kind, probabilities, features):
    return {
        EPIG: (probabilities, probabilities[:4]),
        BADGE: (probabilities, features),
        CoreSet: (features, features[:2] + 0.1),
        TypiClust: (features, features[:2] + 0.1),
        MaxHerding: (features, features[:2] + 0.1),
    }.get(kind, (probabilities,))


KINDS = [BatchBALD, ICAL, EPIG, BADGE, CoreSet, TypiClust, MaxHerding]


@pytest.mark.parametrize("kind", KINDS)
def test_the_picks_of_the_function_come_first_in_their_order(kind, probabilities, features):
    ranks, scores = kind(query_size=4, seed=0).get_ranks(*arguments(kind, probabilities, features))
    picked = {
        BatchBALD: lambda: batches.batchbald(probabilities, 4).items,
        ICAL: lambda: batches.ical(probabilities, 4, rng=np.random.default_rng(0)).items,
        EPIG: lambda: np.argsort(-batches.epig(probabilities, probabilities[:4]), kind="stable")[:4],
        BADGE: lambda: diversity.badge(probabilities.mean(-1), features, 4, rng=np.random.default_rng(0)).items,
        CoreSet: lambda: diversity.coreset(features, 4, features[:2] + 0.1).items,
        TypiClust: lambda: diversity.typiclust(features, 4, features[:2] + 0.1, rng=np.random.default_rng(0)).items,
        MaxHerding: lambda: diversity.max_herding(features, 4, features[:2] + 0.1).items,
    }[kind]()
    assert ranks[:4].tolist() == np.asarray(picked).tolist()
    assert sorted(ranks) == list(range(N))
    assert (np.diff(scores[ranks]) <= 1e-9).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_size_left_open_is_that_of_who_asks(kind, probabilities, features):
    known = arguments(kind, probabilities, features)
    assert np.array_equal(kind(seed=0).sized(3)(*known), kind(query_size=3, seed=0)(*known))
    assert kind(query_size=5).sized(3).query_size == 5
    with pytest.raises(ValueError, match="query_size"):
        kind(query_size=0)


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_batches_and_arrays_are_ranked_alike(kind, probabilities, features):
    first, *others = arguments(kind, probabilities, features)
    ranks = kind(4, seed=0)(first, *others)
    assert np.array_equal(kind(4, seed=0)(torch.from_numpy(first), *others), ranks)
    assert np.array_equal(kind(4, seed=0)(iter(np.array_split(first, 3)), *others), ranks)
    scores = kind(4, seed=0).get_uncertainties_generator(iter([first]), *others)
    assert np.allclose(scores, kind(4, seed=0).get_uncertainties(first, *others), atol=1e-12)


@pytest.mark.parametrize("kind", [BatchBALD, ICAL, EPIG, BADGE])
def test_logits_are_told_from_probabilities(kind, probabilities, features):
    known = arguments(kind, probabilities, features)
    logits = arguments(kind, np.log(probabilities) + 1.5, features)
    assert np.array_equal(kind(4, seed=0)(*logits), kind(4, seed=0)(*known))


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_with_nan_comes_last_and_leaves_the_others_alone(kind, probabilities, features):
    first, *others = (value.copy() for value in arguments(kind, probabilities, features))
    without = kind(4, seed=0)(np.delete(first, 7, axis=0), *(np.delete(o, 7, 0) if len(o) == N else o for o in others))
    first[7] = np.nan
    with pytest.warns(UserWarning, match="1 of 20 items"):
        ranks = kind(4, seed=0)(first, *others)
    assert ranks[-1] == 7
    if kind not in (TypiClust, BADGE, ICAL):  # these draw, and for other places
        assert np.array_equal(ranks[:4], without[:4] + (without[:4] >= 7))


def test_batchbald_takes_baals_arguments(probabilities):
    assert BatchBALD(3).query_size == BatchBALD(num_samples=3, num_draw=100).query_size == 3
    assert np.array_equal(get_heuristic("batch_bald", num_samples=3)(probabilities), BatchBALD(3)(probabilities))


def test_batchbald_of_one_item_is_bald(probabilities):
    assert np.allclose(
        BatchBALD(1).get_uncertainties(probabilities).max(), BALD().get_uncertainties(probabilities).max()
    )


@pytest.mark.parametrize(("kind", "what"), [(EPIG, "predictions of target items"), (BADGE, "features of the items")])
def test_what_is_missing_is_said(kind, what, probabilities):
    with pytest.raises(ValueError, match=what):
        kind()(probabilities)


def test_feature_heuristics_need_no_labels(features):
    for kind in (CoreSet, TypiClust, MaxHerding):
        assert sorted(kind(4, seed=0)(features)) == list(range(N))
        assert np.array_equal(kind(4, seed=0)(features, np.zeros((0, D))), kind(4, seed=0)(features))


def test_maps_are_refused_with_the_shape_that_is_wanted(rng):
    with pytest.raises(ValueError, match=r"\[item, class, draw\]"):
        BatchBALD(2)(rng.dirichlet(np.ones(3), size=(4, 2, 5)).transpose(0, 3, 1, 2))


def test_nothing_to_rank_is_no_error():
    assert BatchBALD(2)(iter([])).shape == (0,)
    assert CoreSet(2)(np.zeros((0, 3))).shape == (0,)


@pytest.mark.parametrize("name", sorted(HEURISTICS))
def test_every_heuristic_is_found_by_its_name(name):
    assert get_heuristic(name.upper()).takes
    assert get_heuristic(name, seed=3).takes


def test_a_heuristic_is_given_what_it_takes_and_nothing_else_is_made(features):
    asked = []

    def predict(dataset):
        asked.append(f"predict {len(dataset)}")
        return np.zeros((len(dataset), 2, 3))

    def look(dataset):
        asked.append(f"features {len(dataset)}")
        return np.zeros((len(dataset), 2))

    def known(heuristic, features=look):
        asked.clear()
        made = known_to(heuristic, range(6), predict=predict, features=features, labelled=range(2), targets=range(3))
        return [np.shape(one) for one in made], list(asked)

    assert known(BALD()) == ([(6, 2, 3)], ["predict 6"])
    assert known(get_heuristic("random")) == ([(6,)], [])
    assert known(EPIG()) == ([(6, 2, 3), (3, 2, 3)], ["predict 9"])
    assert known(BADGE()) == ([(6, 2, 3), (6, 2)], ["predict 6", "features 6"])
    assert known(CoreSet()) == ([(6, 2), (2, 2)], ["features 6", "features 2"])
    with pytest.raises(ValueError, match="get_features=wrapper.features_on_dataset"):
        known(CoreSet(), None)


def test_baals_deeper_path_leads_to_the_same_classes():
    from baal_widgets.active.heuristics import heuristics as deeper

    assert deeper.BatchBALD is BatchBALD
    assert deeper.EPIG is EPIG
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        deeper.Nothing  # noqa: B018

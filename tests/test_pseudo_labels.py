import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baal_widgets.active.scores import bald
from baal_widgets.pseudo_labels import WithPseudoLabels, pseudo_labels


@pytest.fixture
def draws(rng):
    return rng.dirichlet(np.full(3, 0.3), size=(60, 8)).transpose(0, 2, 1)


def test_only_what_is_sure_is_labelled_most_sure_first(draws):
    told = pseudo_labels(draws, threshold=0.6)
    mean = draws.mean(-1)
    assert set(told.items) == set(np.flatnonzero(mean.max(1) >= 0.6))
    assert 0 < len(told) < 60
    assert np.array_equal(told.labels, mean.argmax(1)[told.items])
    assert (np.diff(told.confidence) <= 0).all()


@given(st.floats(0, 1), st.integers(0, 5))
def test_a_higher_threshold_takes_a_part_of_what_a_lower_one_takes(threshold, seed):
    mean = np.random.default_rng(seed).dirichlet(np.ones(3), size=30)
    lower, higher = pseudo_labels(mean, threshold / 2).as_dict(), pseudo_labels(mean, threshold).as_dict()
    assert higher.items() <= lower.items()


def test_items_on_which_the_draws_disagree_can_be_left_out(draws):
    limit = float(np.median(bald(draws)))
    told = pseudo_labels(draws, 0.4, max_bald=limit)
    assert 0 < len(told) < len(pseudo_labels(draws, 0.4))
    assert (bald(draws)[told.items] <= limit).all()
    with pytest.raises(ValueError, match="needs draws"):
        pseudo_labels(draws.mean(-1), max_bald=0.1)


def test_each_class_gives_at_most_so_many_and_its_surest(draws):
    all_, some = pseudo_labels(draws, 0.4), pseudo_labels(draws, 0.4, per_class=2)
    for cls in range(3):
        assert some.items[some.labels == cls].tolist() == all_.items[all_.labels == cls][:2].tolist()


def test_logits_will_do_and_bad_predictions_are_left_out():
    logits = np.array([[9.0, 0.0], [0.0, 0.1], [np.nan, 9.0]])
    assert pseudo_labels(logits).as_dict() == {0: 0}
    with pytest.raises(ValueError, match="threshold between"):
        pseudo_labels(logits, 95)
    with pytest.raises(ValueError, match=r"\[item, class\]"):
        pseudo_labels(np.ones((2, 2, 2, 2)) / 2)


def test_a_persons_label_wins_over_a_guess():
    pairs = [(f"image {item}", -1) for item in range(4)]
    guesses = pseudo_labels(np.array([[0.99, 0.01]] * 4))
    both = WithPseudoLabels(pairs, {1: 1}, guesses, weight=0.5)
    assert sorted(both[place] for place in range(len(both))) == [
        ("image 0", 0, 0.5), ("image 1", 1, 1.0), ("image 2", 0, 0.5), ("image 3", 0, 0.5)
    ]  # fmt: skip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from baal_widgets.active.dataset import ActiveNumpyArray
from baal_widgets.active.stopping_criteria import (
    EarlyStoppingCriterion,
    LabellingBudgetStoppingCriterion,
    LowAverageUncertaintyStoppingCriterion,
    StabilizingPredictionsStoppingCriterion,
    StoppingCriterion,
    cohen_kappa,
)


@pytest.fixture
def dataset():
    return ActiveNumpyArray((np.arange(20), np.arange(20)), labelled=[item < 3 for item in range(20)])


def rounds_until_stop(criterion, name, values):
    for number, value in enumerate(values, start=1):
        if criterion.should_stop({name: value}, []):
            return number
    return None


def test_a_budget_counts_from_when_it_was_set(dataset):
    criterion = LabellingBudgetStoppingCriterion(dataset, 5)
    dataset.label(range(4))
    assert not criterion.should_stop({}, [])
    assert criterion.reason == ""
    dataset.label([0])
    assert criterion.should_stop({}, [])
    assert criterion.reason == "5 of 5 labels are spent"


@pytest.mark.parametrize("form", [np.array, list, lambda scores: [np.array(scores[:1]), np.array(scores[1:])]])
def test_low_uncertainty_is_the_mean_of_what_is_known(dataset, form):
    criterion = LowAverageUncertaintyStoppingCriterion(dataset, 0.2)
    assert not criterion.should_stop({}, form([0.1, 0.4]))
    assert not criterion.should_stop({}, form([-np.inf, np.nan]))
    assert criterion.should_stop({}, form([0.1, 0.2]))
    assert criterion.should_stop({}, form([0.1, -np.inf]))
    assert "below 0.2" in criterion.reason


@pytest.mark.parametrize(
    ("name", "values", "stops"),
    [
        ("test_loss", [1.0, 0.5, 0.5, 0.5, 0.5], 5),  # level
        ("test_loss", [1.0, 0.5, 0.6, 0.7, 0.8], 5),  # worse and worse
        ("test_loss", [1.0, 0.9, 0.8, 0.7, 0.6], None),
        ("test_accuracy", [0.5, 0.4, 0.3, 0.2], 4),
        ("test_accuracy", [0.5, 0.4, 0.6, 0.5, 0.5], None),
        ("test_f1", [0.5, 0.5 + 1e-5, 0.5 + 2e-5, 0.5 + 3e-5], 4),  # too little to count
        ("nll", [1.0, np.nan, np.nan, np.nan], 4),
        ("nll", [np.nan, np.nan, 1.0, 0.5, 0.2], None),
    ],
)
def test_early_stopping_waits_for_three_rounds_without_a_gain(dataset, name, values, stops):
    assert rounds_until_stop(EarlyStoppingCriterion(dataset, name, patience=3), name, values) == stops


def test_the_direction_of_an_unknown_metric_must_be_said(dataset):
    with pytest.raises(ValueError, match="higher_is_better=True"):
        EarlyStoppingCriterion(dataset, "test_joy")
    criterion = EarlyStoppingCriterion(dataset, "test_joy", patience=1, higher_is_better=True)
    assert rounds_until_stop(criterion, "test_joy", [1, 2, 3, 3]) == 4
    assert "test_joy has not got better for 1 rounds" in criterion.reason


def test_a_metric_that_was_not_measured_is_told(dataset):
    with pytest.raises(ValueError, match="No metric 'test_loss'.*there are accuracy"):
        EarlyStoppingCriterion(dataset, "test_loss").should_stop({"accuracy": 1}, [])


def test_predictions_that_no_longer_change_are_reason_to_stop(dataset, rng):
    criterion = StabilizingPredictionsStoppingCriterion(dataset, threshold=0.95, patience=2)
    settled = rng.dirichlet(np.ones(3), size=(200, 4)).transpose(0, 2, 1)
    other = rng.dirichlet(np.ones(3), size=(200, 4)).transpose(0, 2, 1)
    told = [criterion.should_stop({}, [], predictions) for predictions in (settled, other, settled, settled, settled)]
    assert told == [False, False, False, False, True]
    assert criterion.agreements[2:] == [1.0, 1.0]
    assert abs(criterion.agreements[0]) < 0.3
    assert "kappa 1.000" in criterion.reason


def test_draws_are_averaged_before_they_are_compared(dataset, rng):
    criterion = StabilizingPredictionsStoppingCriterion(dataset, patience=1)
    draws = rng.dirichlet(np.ones(3), size=(50, 4)).transpose(0, 2, 1)
    criterion.should_stop({}, [], draws)
    assert criterion.should_stop({}, [], draws.mean(-1))


def test_a_stop_set_is_needed_and_stays_the_same(dataset):
    criterion = StabilizingPredictionsStoppingCriterion(dataset)
    with pytest.raises(ValueError, match="predictions of the stop set"):
        criterion.should_stop({}, [])
    criterion.should_stop({}, [], np.eye(3))
    with pytest.raises(ValueError, match="same stop set"):
        criterion.should_stop({}, [], np.eye(2))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40))
def test_kappa_is_that_of_scikit_learn(pairs):
    one, other = np.array(pairs).T
    if len(set(one) | set(other)) > 1:
        assert cohen_kappa(one, other) == pytest.approx(cohen_kappa_score(one, other), abs=1e-12)
    else:
        assert cohen_kappa(one, other) == 1


def test_a_criterion_of_ones_own_must_decide(dataset):
    with pytest.raises(NotImplementedError, match="should_stop"):
        StoppingCriterion(dataset).should_stop({}, [])

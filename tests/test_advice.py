import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baal_widgets.advice import _interval_of_gain, stopping_advice


def row(n, accuracy=None, kappa=None, n_test=500):
    told = {"round": n, "n_labelled": n, "agreement": kappa}
    return told if accuracy is None else told | {"accuracy": accuracy, "n_test": n_test}


def signs(history, **options):
    return {sign.name: sign for sign in stopping_advice(history, **options).signs}


def test_nothing_speaks_for_stopping_before_anything_is_known():
    advice = stopping_advice([])
    assert not advice.stop
    assert not any(sign.fired for sign in advice.signs)


def test_a_spent_budget_stops_and_says_its_numbers():
    history = [row(24), row(48)]
    assert not stopping_advice(history, budget=49).stop
    advice = stopping_advice(history, budget=48)
    assert advice.stop
    assert signs(history, budget=48)["budget"].reason == "48 of 48 labels are spent."
    assert "budget" not in signs(history)


def test_without_a_test_set_stable_predictions_are_enough():
    history = [row(n, kappa=kappa) for n, kappa in ((10, None), (20, 0.985), (30, 0.99), (40, 0.999))]
    assert stopping_advice(history).stop
    assert "kappa is 0.991 over the last 3" in signs(history)["stabilising predictions"].reason
    assert not stopping_advice(history[:-1]).stop


def test_a_round_that_was_not_compared_does_not_count_as_agreement():
    history = [row(n, kappa=kappa) for n, kappa in ((10, 1.0), (20, 1.0), (30, 1.0), (40, None))]
    assert not stopping_advice(history).stop


def test_accuracy_that_still_rises_keeps_one_going():
    rising = [row(10 * n, 0.5 + 0.1 * n, 1.0) for n in range(5)]
    assert signs(rising)["stabilising predictions"].fired
    assert not signs(rising)["plateau"].fired
    assert not stopping_advice(rising).stop
    flat = [row(10 * n, 0.8 + 0.001 * n, 1.0) for n in range(5)]
    assert signs(flat)["plateau"].fired
    assert "30 more labels changed the accuracy by +0.3 points on 500 test items" in signs(flat)["plateau"].reason
    assert stopping_advice(flat).stop


def test_a_plateau_alone_does_not_stop():
    assert not stopping_advice([row(10 * n, 0.8, 0.9) for n in range(5)]).stop


def test_the_interval_of_a_gain_is_newcombes():
    # Newcombe 1998, table II, method 10: 56/70 - 48/80
    assert _interval_of_gain(48 / 80, 80, 56 / 70, 70) == pytest.approx((0.0524, 0.3339), abs=2e-4)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 2000))
def test_the_interval_holds_the_gain_and_turns_round_with_it(before, now, n):
    low, high = _interval_of_gain(before, n, now, n)
    assert low - 1e-12 <= now - before <= high + 1e-12
    assert np.allclose(_interval_of_gain(now, n, before, n), (-high, -low))

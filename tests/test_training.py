import pytest
from hypothesis import given
from hypothesis import strategies as st

from baal_widgets.training import Training, until_flat

FALLING = [1 / (1 + 0.05 * step) for step in range(2000)]


def test_training_goes_on_while_the_loss_falls_and_ends_when_it_does_not():
    training = Training(min_steps=10, max_steps=1000, window=10, enough=0)
    losses = [2.0 - 0.02 * step for step in range(80)] + [0.4] * 1000
    steps = list(until_flat(iter(losses), training))
    assert 90 <= len(steps) <= 110
    assert steps[-1][1]


def test_a_loss_that_is_small_is_enough():
    steps = list(until_flat(iter([0.01] * 500), Training(min_steps=100, window=20)))
    assert len(steps) == 100


def test_it_says_when_it_had_to_stop_before_the_loss_was_flat():
    training = Training(min_steps=10, max_steps=60, window=10, tolerance=0.001, enough=0)
    assert not list(until_flat(iter(FALLING), training))[-1][1]


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 30))
def test_it_never_runs_longer_than_allowed(min_steps, max_steps, window):
    training = Training(min_steps=min_steps, max_steps=max_steps, window=window)
    assert 1 <= len(list(until_flat(iter(FALLING), training))) <= max_steps


def test_a_start_that_is_neither_is_refused():
    with pytest.raises(ValueError, match="reset"):
        Training(start="cold")

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baal_widgets.active.running import RunningScores
from baal_widgets.active.scores import bald, expected_entropy, predictive_entropy


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 4), min_size=1, max_size=5), st.booleans())
def test_scores_of_summed_draws_are_those_of_kept_ones_however_they_come(seed, sizes, pixels):
    shape = (4, 3, 2, sum(sizes)) if pixels else (4, 3, sum(sizes))
    draws = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).softmax(dim=1)
    running = RunningScores()
    for some in draws.split(sizes, dim=-1):
        running.add(some)
    torch.testing.assert_close(running.mean, draws.mean(dim=-1))
    torch.testing.assert_close(running.bald, bald(draws), atol=1e-12, rtol=0)
    torch.testing.assert_close(running.predictive_entropy, predictive_entropy(draws))
    torch.testing.assert_close(running.expected_entropy, expected_entropy(draws))


def test_draws_of_other_items_are_refused_and_leave_the_scores_alone():
    running = RunningScores()
    running.add(torch.full((2, 2, 1), 0.5))
    with pytest.raises(ValueError, match="Begin a new RunningScores"):
        running.add(torch.full((3, 2, 1), 0.5))
    assert (running.draws, len(running.bald)) == (1, 2)


def test_scores_without_draws_are_refused():
    with pytest.raises(ValueError, match="Call add first"):
        RunningScores().bald  # noqa: B018


def test_draws_may_be_made_with_gradients_on_and_off():
    draws = torch.randn((4, 3, 2), generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    running = RunningScores()
    with torch.inference_mode():
        running.add(draws[..., :1].clone())
    running.add(draws[..., 1:])
    torch.testing.assert_close(running.bald, bald(draws))

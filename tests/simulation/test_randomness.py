import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baal_widgets.simulation.randomness import bits, generator, masks, order, streams, uniform

seeds = st.lists(st.integers(0, 10**9), min_size=1, max_size=5, unique=True)


def splitmix(state, n):
    """The published algorithm, one number after the other."""
    found = []
    for _ in range(n):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        found.append(z ^ (z >> 31))
    return found


def test_the_bits_are_those_of_splitmix64():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]  # of its authors' code, state 1234567
    assert splitmix(1234567, 3) == published
    state = torch.tensor([1234567, -5])
    ours = bits(state, 40).numpy().view(np.uint64).tolist()
    assert ours == [splitmix(1234567, 40), splitmix(2**64 - 5, 40)]


@given(seeds, st.integers(1, 50), st.integers(0, 3))
def test_what_a_seed_draws_does_not_depend_on_the_seeds_beside_it(some, n, step):
    together = bits(streams(some, "a purpose", step), n)
    for at, seed in enumerate(some):
        assert torch.equal(together[at], bits(streams([seed], "a purpose", step), n)[0])


@given(seeds, st.integers(1, 40), st.integers(1, 40))
def test_a_longer_draw_begins_like_a_shorter_one(some, n, more):
    starts = streams(some, "a purpose")
    assert torch.equal(bits(starts, n + more)[:, :n], bits(starts, n))
    assert torch.equal(masks(starts, n + more, 0.3)[:, :n], masks(starts, n, 0.3))


def test_seeds_purposes_and_counters_all_make_a_difference():
    starts = [
        streams([seed], purpose, *at).item() for seed in (0, 1) for purpose in ("a", "b") for at in ((), (0,), (1,))
    ]
    assert len(set(starts)) == len(starts)
    assert generator(0, "a").random() != generator(0, "b").random()
    assert generator(0, "a", 1).random() == generator(0, "a", 1).random()


@given(seeds, st.integers(1, 100))
def test_an_order_holds_everything_once(some, n):
    assert torch.equal(order(streams(some, "order"), n).sort(dim=1).values, torch.arange(n).expand(len(some), n))


@pytest.mark.parametrize("dropped", [0.0, 0.1, 0.5, 0.9])
def test_masks_drop_their_share_and_keep_the_mean(dropped):
    factors = masks(streams(range(4), "masks"), 50_000, dropped)
    assert torch.allclose((factors == 0).float().mean(dim=1), torch.tensor(dropped), atol=5 * 0.5 / 50_000**0.5)
    assert factors.max().item() == pytest.approx(1 / (1 - dropped))


def test_uniform_numbers_fill_the_interval_evenly():
    numbers = uniform(streams([3], "numbers"), 100_000)[0]
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = torch.histc(numbers, 20, 0, 1)
    assert ((counts - 5000).square() / 5000).sum() < 45  # chi-square with 19 degrees of freedom, p < 0.001


@pytest.mark.gpu
def test_a_gpu_draws_the_same_to_the_bit():
    starts = streams([0, 7], "masks", 2)
    assert torch.equal(bits(starts.cuda(), 1001).cpu(), bits(starts, 1001))
    assert torch.equal(masks(starts.cuda(), 1001, 0.3).cpu(), masks(starts, 1001, 0.3))
    assert torch.equal(order(starts.cuda(), 1001).cpu(), order(starts, 1001))

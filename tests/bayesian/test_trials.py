"""An arithmetic is taken when it is faster by far and ranks as float32 does, by a clock that the tests hold."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from baal_widgets.bayesian.common import sample
from baal_widgets.bayesian.consistent_dropout import MCConsistentDropoutModule
from baal_widgets.bayesian.dropout import MCDropoutModule
from baal_widgets.bayesian.trials import SHARE, SameDraws, agreement, items_to_try, tried, untouched

ITEMS, POOL = 100, 1_000_000
HALF, LAYOUT = ("bfloat16",), ("channels_last",)


def logits(seed=0, items=ITEMS):
    rng = torch.Generator().manual_seed(seed)
    spread = torch.rand(items, 1, 1, generator=rng) * 3
    return spread * torch.randn(items, 4, 10, generator=rng)


class Bench:
    """Arithmetics that each take so long and give such draws; tells which had their turn."""

    def __init__(self, seconds, lossy=()):
        self.seconds, self.lossy, self.now, self.turns = seconds, lossy, 0.0, []

    def draws(self, names):
        self.turns.append(names)
        took = self.seconds[names]
        self.now += took.pop(0) if isinstance(took, list) else took
        return logits() + (0.1 * logits(1) if names in self.lossy else 1e-5 * logits(1))

    def chosen(self, pool=POOL):
        names = [one for one in self.seconds if one]
        return tried(self.draws, names, items=ITEMS, pool=pool, clock=lambda: self.now)


def test_the_fastest_that_ranks_alike_is_taken():
    found = Bench({(): 1.0, HALF: 0.25, LAYOUT: 0.5}).chosen()
    assert found.names == HALF
    assert "4 times as fast as plain" in found.why
    assert [(one.names, one.seconds) for one in found.trials] == [((), 1.0), (HALF, 0.25), (LAYOUT, 0.5)]
    assert all(one.correlation > 0.999 and one.overlap > 0.95 for one in found.trials)
    assert "bfloat16: 0.25 s for 100 items, in use" in str(found)


def test_one_that_changes_the_ranking_is_refused_however_fast():
    bench = Bench({(): 1.0, HALF: 0.01, LAYOUT: 0.5}, lossy=[HALF])
    found = bench.chosen()
    assert found.names == LAYOUT
    assert "ranks otherwise" in found.trials[1].verdict
    assert found.trials[1].seconds is None
    assert bench.turns.count(HALF) == 1


def test_plain_stays_where_nothing_is_faster_by_far():
    found = Bench({(): 1.0, HALF: 0.95, LAYOUT: 1.5}).chosen()
    assert found.names == ()
    assert found.why == "bfloat16, channels_last: not faster by far"


def test_plain_stays_where_all_are_refused():
    found = Bench({(): 1.0, HALF: 0.1}, lossy=[HALF]).chosen()
    assert found.names == ()
    assert found.why == "bfloat16: refused"


def test_one_turn_that_was_disturbed_does_not_decide():
    # of each the first turn is the comparison, which nobody times
    assert Bench({(): [1, 1, 1, 1], HALF: [9, 0.5, 7, 0.5]}).chosen().names == HALF
    assert Bench({(): [1, 5, 1, 1], HALF: [1, 1, 1, 1]}).chosen().names == ()


def test_what_is_hopelessly_slow_has_one_timed_turn():
    bench = Bench({(): 1.0, HALF: 50.0})
    bench.chosen()
    assert bench.turns.count(HALF) == 2


def test_a_pool_that_is_done_in_no_time_is_left_in_peace():
    bench = Bench({(): 0.001, HALF: 0.0001})
    found = bench.chosen(pool=100_000)
    assert found.names == ()
    assert "too little" in found.why
    assert HALF not in bench.turns


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError, TypeError])
def test_a_missing_kernel_refuses_the_arithmetic(error):
    bench = Bench({(): 1.0, HALF: 0.1})

    def draws(names):
        if names:
            raise error("no kernel for BFloat16\nC++ trace")
        return bench.draws(names)

    found = tried(draws, [HALF], items=ITEMS, pool=POOL, clock=lambda: bench.now)
    assert found.names == ()
    assert found.trials[1].verdict == f"refused: {error.__name__}, no kernel for BFloat16"


@pytest.mark.parametrize("candidates", [1, 2, 3, 5])
@pytest.mark.parametrize("pool", [100, 10_000, 40_000, 100_000, 10_000_000])
def test_trials_cost_no_more_than_their_share_of_the_pool(pool, candidates):
    bench, n = Bench({(): 1.0, **{(f"{i}",): 1.0 for i in range(candidates)}}), items_to_try(pool, candidates)
    bench.chosen()
    assert n * len(bench.turns) <= SHARE * pool
    assert n > 0 or pool <= 40_000


def test_nothing_is_tried_where_there_is_nothing_to_try():
    assert items_to_try(10_000_000, 0) == 0


def test_draws_agree_with_themselves_and_not_with_others():
    assert agreement(logits(), logits()) == (1.0, 1.0)
    correlation, overlap = agreement(logits(), logits(5))
    assert correlation < 0.5
    assert overlap < 0.5


def test_a_number_that_is_none_in_one_arithmetic_alone_is_a_disagreement():
    broken = logits()
    broken[3, 0, 0] = torch.inf
    assert agreement(logits(), broken) == (0.0, 0.0)
    assert agreement(broken, broken) == (1.0, 1.0)


def test_an_output_that_ranks_otherwise_is_enough_of_several():
    assert agreement([logits(), logits(1)], [logits(), logits(2)])[0] < 0.999


def test_the_spread_of_a_regression_counts():
    values, scale = torch.randn(ITEMS, 1, 10) + 50, torch.linspace(1, 2, ITEMS)[:, None, None]
    assert agreement(values * scale, values * scale.flip(0))[0] < 0.999


def test_scores_that_tell_nothing_apart_do_not_decide_for_an_arithmetic():
    same = torch.zeros(ITEMS, 3, 5)
    assert agreement(same, same) == (0.0, 0.0)


@pytest.mark.parametrize("drop", [F.dropout, F.dropout2d, F.alpha_dropout, lambda x: x + torch.randn_like(x)])
def test_masks_are_the_same_in_every_precision_and_layout(drop):
    x, got = torch.randn(4, 6, 5, 5), []
    for one in (x, x.to(memory_format=torch.channels_last), x.bfloat16()):
        torch.manual_seed(0)
        with torch.no_grad(), SameDraws():
            got.append(drop(one))
    assert [one.dtype for one in got] == [torch.float32, torch.float32, torch.bfloat16]
    assert torch.equal(got[0], got[1])
    assert torch.allclose(got[0], got[2].float(), atol=0.05)


class Residual(nn.Module):
    """Whose draws are made in a mapped pass."""

    def __init__(self):
        super().__init__()
        self.dear = nn.Sequential(nn.Linear(6, 3000), nn.ReLU(), nn.Linear(3000, 3000), nn.ReLU())
        self.dropout, self.last = nn.Dropout(0.5), nn.Linear(3000, 3)

    def forward(self, x):
        x = self.dear(x)
        return self.last(x + self.dropout(x))


@pytest.mark.parametrize("module", [MCDropoutModule, MCConsistentDropoutModule])
@pytest.mark.parametrize("model", [Residual(), nn.Sequential(nn.Linear(6, 9), nn.Dropout(), nn.Linear(9, 3))])
def test_plain_draws_are_the_very_same_while_arithmetics_are_compared(module, model):
    model, x, got = module(model).eval(), torch.randn(5, 6), []
    for compared in (False, True):
        torch.manual_seed(0)
        with torch.no_grad(), untouched(model) as put_back:
            put_back()
            if compared:
                with SameDraws():
                    got.append(sample(model, x, 4))
            else:
                got.append(sample(model, x, 4))
    assert torch.equal(*got)


@pytest.mark.parametrize("module", [MCDropoutModule, MCConsistentDropoutModule])
def test_trials_leave_the_randomness_as_it_was(module):
    model, x = module(nn.Sequential(nn.Linear(6, 9), nn.Dropout(), nn.Linear(9, 3))).eval(), torch.randn(5, 6)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    with torch.no_grad(), untouched(model) as put_back:
        first = sample(model, x, 4)
        put_back()
        assert torch.equal(sample(model, x, 4), first)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        assert torch.equal(sample(model, x, 4), first)

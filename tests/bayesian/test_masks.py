"""Dropout made of bits: the distribution is that of torch's, and the same seed gives the same masks."""

import pytest
import torch
from scipy.stats import chi2
from torch import nn
from torch.func import vmap

from baal_widgets import MCDropoutModule
from baal_widgets.bayesian.masks import BLOCK, dropped
from baal_widgets.bayesian.passes import Copies
from baal_widgets.bayesian.together import stochastic_parts


def masks(p, n=400_000, copies=1):
    torch.manual_seed(0)
    return dropped(torch.ones(n), p, copies) > 0


@pytest.mark.parametrize("p", [0.5, 0.25, 0.1, 0.3, 1 / 3, 0.9, 0.999])
def test_as_many_values_are_dropped_as_p_says(p):
    n = 400_000
    kept = int(masks(p, n).sum())
    assert abs(kept - n * (1 - p)) < 4.5 * (n * p * (1 - p)) ** 0.5


@pytest.mark.parametrize("p", [0.5, 0.3])
@pytest.mark.parametrize("step", [1, 2, 3, 4, 8, 64])
def test_neighbouring_values_are_dropped_independently(p, step):
    kept = masks(p)[0].long()
    found = torch.bincount(2 * kept[:-step] + kept[step:], minlength=4).double()
    single = torch.tensor([p, 1 - p], dtype=torch.double)
    expected = torch.outer(single, single).flatten() * found.sum()
    assert float(((found - expected) ** 2 / expected).sum()) < chi2.isf(1e-6, 3)


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_copies_have_masks_of_their_own(p):
    one, other = masks(p, 100_000, copies=2)
    assert abs(float((one == other).double().mean()) - (p**2 + (1 - p) ** 2)) < 0.01


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("p", [0.5, 0.3])
def test_what_is_kept_is_scaled_and_of_its_own_kind(kind, p):
    value = torch.randn(3, 5, dtype=kind)
    made = dropped(value, p, 7)
    assert made.dtype == kind
    assert made.shape == (7, 3, 5)
    assert (torch.isclose(made, value / (1 - p), rtol=1e-2) | (made == 0)).all()


@pytest.mark.parametrize("p", [0.5, 0.3])
@pytest.mark.parametrize("size", [1, 3, BLOCK // 16 + 1, BLOCK + 3])
@pytest.mark.parametrize("copies", [2, 5])
def test_copies_drop_as_one_batch_of_them_does(p, size, copies):
    torch.manual_seed(1)
    late = dropped(torch.ones(size), p, copies)
    torch.manual_seed(1)
    first = dropped(torch.ones(copies, size), p)[0]
    assert torch.equal(late, first)


def test_the_layout_of_a_value_does_not_change_its_mask():
    value = torch.rand(4, 3, 5, 5)
    made = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        made.append(dropped(value.to(memory_format=layout), 0.5))
    assert torch.equal(*made)


@pytest.mark.parametrize(("p", "kept"), [(0.0, 1.0), (1e-12, 1.0), (1 - 1e-12, 0.0), (1.0, 0.0)])
def test_nothing_and_everything_can_be_dropped(p, kept):
    assert torch.allclose(dropped(torch.ones(1000), p, 2), torch.full((2, 1000), kept))


@pytest.mark.parametrize("shape", [(), (0, 4), (3, 0), (2, 3, 4)])
@pytest.mark.parametrize("copies", [1, 5])
def test_a_value_of_any_shape_is_dropped_even_an_empty_one(shape, copies):
    assert dropped(torch.ones(shape), 0.5, copies).shape == (copies, *shape)


def test_a_caller_who_maps_a_model_gets_other_masks_for_each_draw():
    model = MCDropoutModule(nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 2)).eval()).eval()
    with torch.no_grad():
        draws = vmap(lambda _: model(torch.ones(1, 64)), randomness="different")(torch.arange(3))
    assert len(draws.flatten(1).unique(dim=0)) == 3


def test_a_layer_whose_input_is_not_contiguous_is_dropped_by_the_same_way():
    model = MCDropoutModule(nn.Sequential(nn.Dropout(0.5)).eval()).eval()
    x, made = torch.rand(6, 4), []
    for value in (x, x.T.contiguous().T):
        torch.manual_seed(0)
        with torch.no_grad():
            made.append(model(value))
    assert torch.equal(*made)


def test_a_pass_of_copies_gives_the_masks_of_one_batch():
    layer = next(iter(stochastic_parts(MCDropoutModule(nn.Sequential(nn.Dropout(0.3))))))
    torch.manual_seed(2)
    copies = Copies(2, 3, [], [])
    late = copies.masked(torch.ones(2, 7), layer.p)
    torch.manual_seed(2)
    with torch.no_grad():
        assert torch.equal(layer(torch.ones(6, 7)), late)

"""Draws for a batch: what comes before the first dropout runs once, and nobody can tell by the numbers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import mobilenet_v3_small, vgg11

from baal_widgets.bayesian.common import DrawsPerItem, sample
from baal_widgets.bayesian.dropout import MCDropoutModule, patch_module, unpatch_module

DRAWS = 5


class Counting(nn.Linear):
    """Tells how many rows came."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.rows = 0

    def forward(self, x):
        self.rows += len(x)
        return super().forward(x)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.dropout, self.after = Counting(6, 6), nn.Dropout(0.5), nn.Linear(6, 3)

    def forward(self, x):
        x = self.before(x)
        return self.after(x + self.dropout(x))


class TwoHeads(Residual):
    """One of its outputs is not stochastic."""

    def forward(self, x):
        x = self.before(x)
        return [self.after(self.dropout(x)), x]


class Rigid(Residual):
    """Counts the items at its beginning."""

    def forward(self, x):
        n = len(x)
        return self.after(self.dropout(self.before(x)).view(n, -1))


class Branches(Residual):
    """Two dropouts of the same deterministic part."""

    def forward(self, x):
        x = self.before(x)
        return {"sum": self.after(self.dropout(x) + self.dropout(2 * x))}


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.rnn = Counting(6, 6), nn.LSTM(6, 3, num_layers=2, dropout=0.5, batch_first=True)

    def forward(self, x):
        return self.rnn(self.before(x)[:, None])[0][:, 0]


def sequential():
    return nn.Sequential(
        Counting(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 8), nn.Dropout(0.3), nn.Linear(8, 3)
    )


KINDS = {"sequential": sequential, "residual": Residual, "two heads": TwoHeads, "rigid": Rigid, "branches": Branches,
         "recurrent": Recurrent}  # fmt: skip


def leaves(output):
    return list(output.values()) if isinstance(output, dict) else output if isinstance(output, list) else [output]


def draws_of(model, x, late):
    for part in model.modules():
        if isinstance(part, DrawsPerItem) and not late:
            part.can_copy = False
    sample(model, x, DRAWS)  # finds out what can't be done late
    torch.manual_seed(1)
    with torch.no_grad():
        return leaves(sample(model, x, DRAWS))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("n", [1, 4])
def test_copying_late_gives_the_very_numbers_of_copying_first(name, n):
    torch.manual_seed(0)
    model, x = KINDS[name]().eval(), torch.randn(n, 6)
    late = draws_of(MCDropoutModule(model).eval(), x, late=True)
    first = draws_of(MCDropoutModule(model).eval(), x, late=False)
    for one, other in zip(late, first, strict=True):
        assert one.shape == other.shape == (n, one.shape[1], DRAWS)
        assert torch.allclose(one, other, atol=1e-6)
    assert not torch.allclose(late[0][..., 0], late[0][..., 1])


@pytest.mark.parametrize(
    ("name", "rows"), [("sequential", 4), ("branches", 4), ("residual", 4 * DRAWS), ("rigid", 4 * DRAWS)]
)
def test_the_part_before_the_first_dropout_runs_once_where_it_can(name, rows):
    model = KINDS[name]().eval()
    counting = next(layer for layer in model.modules() if isinstance(layer, Counting))
    mc_model = MCDropoutModule(model).eval()
    twin = next(layer for layer in mc_model.modules() if isinstance(layer, Counting))
    mc_model.sample(torch.randn(4, 6), DRAWS)
    twin.rows = 0
    mc_model.sample(torch.randn(4, 6), DRAWS)
    assert twin.rows == rows
    assert counting.rows == 0


@pytest.mark.parametrize("build", [vgg11, mobilenet_v3_small])
def test_models_of_torchvision_run_their_features_once(build):
    torch.manual_seed(0)
    model = MCDropoutModule(build(num_classes=3).eval()).eval()
    shapes = []
    features = model.parent_module.features
    features.register_forward_pre_hook(lambda _, args: shapes.append(len(args[0])))
    with torch.no_grad():
        draws = model.sample(torch.randn(2, 3, 32, 32), DRAWS)
    assert draws.shape == (2, 3, DRAWS)
    assert shapes == [2]
    assert draws.var(dim=-1).max() > 0


def test_a_model_patched_in_place_is_sampled_late_and_put_back_without_a_trace():
    for build in (sequential, Residual):
        model = build().eval()
        held = [dict(layer.__dict__) for layer in model.modules()]
        sample(patch_module(model), torch.randn(4, 6), DRAWS)
        unpatch_module(model)
        assert [set(layer.__dict__) for layer in model.modules()] == [set(one) for one in held]


def test_a_single_draw_is_a_plain_call():
    model = MCDropoutModule(sequential().eval()).eval()
    torch.manual_seed(0)
    one = model.sample(torch.ones(2, 6), 1)
    torch.manual_seed(0)
    assert torch.equal(one[..., 0], model(torch.ones(2, 6)))


def test_running_out_of_memory_is_no_sign_that_the_model_cannot_be_sampled_late():
    class Full(nn.Linear):
        def forward(self, x):
            raise torch.OutOfMemoryError("full")

    model = MCDropoutModule(nn.Sequential(nn.Dropout(0.5), Full(6, 6))).eval()
    with pytest.raises(torch.OutOfMemoryError):
        model.sample(torch.ones(2, 6), DRAWS)
    assert all(part.can_copy for part in model.modules() if isinstance(part, DrawsPerItem))


def test_no_draws_are_refused():
    with pytest.raises(ValueError, match="from 1 on, got 0"):
        sample(nn.Identity(), torch.ones(1), 0)


def test_functional_dropout_is_sampled_with_the_whole_batch():
    class ByFunction(nn.Module):
        def forward(self, x):
            return F.dropout(x, training=self.training)

    draws = MCDropoutModule(ByFunction()).eval().sample(torch.ones(3, 6), DRAWS)
    assert draws.shape == (3, 6, DRAWS)
    assert draws.var(dim=-1).max() > 0

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
    ("name", "rows"), [("sequential", 4), ("branches", 4 * DRAWS), ("residual", 4 * DRAWS), ("rigid", 4 * DRAWS)]
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


class Tokens(nn.Module):
    """Its first dropout sees a row for each token, its second one for each item."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.after = nn.Dropout(0.5), nn.Dropout(0.02), nn.Linear(6, 3)

    def forward(self, x):
        return self.after(self.second(self.first(x.flatten(0, 1)).view(x.shape).mean(1)))


class SequenceFirst(Tokens):
    """Its items are on the second axis of its first dropout, or of both."""

    def __init__(self, both=False):
        super().__init__()
        self.both = both

    def forward(self, x):
        if self.both:
            return self.after(self.second(self.first(x).transpose(0, 1)).mean(0))
        return self.after(self.second(self.first(x.transpose(0, 1))[-1]))


class Gathering(Tokens):
    """Takes one token of as many items as the batch had."""

    def forward(self, x):
        return self.after(self.second(self.first(x)[torch.arange(len(x)), -1]))


class Noise(Tokens):
    """Has noise of its own before its first dropout."""

    def forward(self, x):
        x = x.mean(1)
        return self.after(self.second(x + torch.randn_like(x)))


class Asserting(Tokens):
    def forward(self, x):
        dropped = self.first(x)
        assert dropped.shape == x.shape
        return self.after(dropped.mean(1))


class Masking(Tokens):
    """Raises an IndexError where there are other rows than in its mask."""

    def forward(self, x):
        return self.after(self.first(x)[x[..., 0] > -99].view(x.shape).mean(1))


@pytest.mark.parametrize("build", [Tokens, SequenceFirst, lambda: SequenceFirst(both=True), Gathering, Noise, Asserting,
                                   Masking])  # fmt: skip
@pytest.mark.parametrize("length", [4, 5])
def test_draws_together_are_the_very_numbers_of_a_batch_copied_first(build, length):
    torch.manual_seed(0)
    model, x = MCDropoutModule(build().eval()).eval(), torch.randn(4, length, 6)
    with torch.no_grad():
        torch.manual_seed(1)
        draws = model.sample(x, DRAWS)
        torch.manual_seed(1)
        copied = model(torch.cat([x] * DRAWS)).view(DRAWS, 4, 3)
    assert torch.allclose(draws, copied.permute(1, 2, 0), atol=1e-6)


@pytest.mark.parametrize("build", [Residual, Rigid, TwoHeads])
def test_finding_out_that_a_model_cannot_be_sampled_late_draws_no_random_numbers(build):
    torch.manual_seed(0)
    model, x = MCDropoutModule(build().eval()).eval(), torch.randn(4, 6)
    states = []
    for _ in range(2):
        torch.manual_seed(1)
        model.sample(x, DRAWS)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


class Numbers(Residual):
    """Takes and gives a number for the whole batch."""

    def forward(self, batch):
        out = self.after(self.dropout(self.before(batch["x"]))) / batch["temperature"]
        return {"logits": out, "auxiliary": out.mean()}


@pytest.mark.parametrize("replicate", [True, False])
def test_a_number_for_the_whole_batch_is_taken_and_given_for_each_draw(replicate):
    batch = {"temperature": torch.tensor(2.0), "x": torch.randn(4, 6)}
    draws = MCDropoutModule(Numbers().eval()).eval().sample(batch, DRAWS, replicate)
    assert draws["logits"].shape == (4, 3, DRAWS)
    assert torch.allclose(draws["auxiliary"], draws["logits"].mean(dim=(0, 1)), atol=1e-6)


@pytest.mark.gpu
def test_noise_on_the_gpu_before_the_first_dropout_differs_among_draws():
    model = MCDropoutModule(Noise().eval()).eval().cuda()
    model.parent_module.second.p = 1e-9
    with torch.no_grad():
        draws = model.sample(torch.randn(4, 5, 6, device="cuda"), DRAWS)
    assert draws.var(dim=-1).min() > 0


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

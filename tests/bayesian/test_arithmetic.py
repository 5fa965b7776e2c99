"""What a wrapper predicts in: asked for by name, or found by trying, and never what it trains in."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from baal_widgets import MCDropoutModule, ModelWrapper, TrainingArgs
from baal_widgets.bayesian import trials
from baal_widgets.bayesian.arithmetic import candidates, kind_of, named
from baal_widgets.bayesian.batchnorm import MCBatchNormModule
from baal_widgets.bayesian.caching_utils import MCCachingModule
from baal_widgets.bayesian.common import sample
from baal_widgets.bayesian.consistent_dropout import MCConsistentDropoutModule
from baal_widgets.bayesian.gaussian_process import GaussianProcessModule
from baal_widgets.bayesian.laplace import LaplaceModule
from baal_widgets.bayesian.swag import SWAGModule
from baal_widgets.bayesian.variational import VariationalModule
from baal_widgets.bayesian.weight_drop import MCDropoutConnectModule
from baal_widgets.ensemble import EnsembleModule

N = 700


class Images(nn.Module):
    """A small CNN that tells in which layout and precision each pass was; `lossy` says in which layout it is wrong."""

    def __init__(self, lossy=False, scale=1.0, watch=None):
        super().__init__()
        self.conv, self.dropout, self.last = nn.Conv2d(3, 8, 3), nn.Dropout(0.5), nn.Linear(8 * 36, 4)
        self.lossy, self.scale, self.watch = lossy, scale, watch or SimpleNamespace(now=0.0, passes=[])

    def forward(self, x):
        fast = not x.is_contiguous()
        self.watch.now += 1 if fast else 3
        out = self.conv(x)
        self.watch.passes.append((fast, out.dtype))
        out = self.last(self.dropout(out.flatten(1).relu())) * self.scale
        return out.sort(dim=1).values * out.new_tensor([1.0, 0.0, 3.0, 0.0]) if self.lossy and fast else out


def images(n=N, seed=1):
    return TensorDataset(torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed)), torch.arange(n) % 4)


def wrapper(arithmetic, **options):
    torch.manual_seed(0)
    model = Images(**options)
    args = TrainingArgs(batch_size=50, criterion=nn.CrossEntropyLoss(), arithmetic=arithmetic)
    return ModelWrapper(MCDropoutModule(model.eval()), args, device="cpu"), model.watch


def predicted(ours, data=None, seed=3, iterations=5):
    torch.manual_seed(seed)
    return ours.predict_on_dataset(images() if data is None else data, iterations=iterations)


@pytest.fixture
def by_its_own_clock(monkeypatch):
    """Small pools are tried, and time is what the model says it is."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    monkeypatch.setattr(trials, "SHARE", 1.0)
    monkeypatch.setattr(trials, "clock_of", lambda model: lambda: model.parent_module.watch.now)


@pytest.mark.parametrize("asked", ["fast", ["bfloat16", "float16"], ["plain", "bfloat16"], ["measured"]])
def test_an_unknown_arithmetic_is_refused_at_the_door(asked):
    with pytest.raises(ValueError, match="Expected arithmetic to be one of auto, measured, plain, or names among"):
        TrainingArgs(arithmetic=asked)


def test_names_come_in_one_order_and_none_are_plain():
    assert named(["channels_last", "bfloat16"]) == named(("bfloat16", "channels_last")) == ("bfloat16", "channels_last")
    assert named([]) == named("plain") == ()


def test_plain_and_auto_on_the_processor_are_the_numbers_of_the_model_itself():
    x, model = images(40).tensors[0], wrapper("plain")[0].model.eval()
    torch.manual_seed(3)
    with torch.no_grad():
        expected = sample(model, x, 5)
    for asked in ("plain", "auto"):
        ours, _ = wrapper(asked)
        ours.eval()
        torch.manual_seed(3)
        assert torch.equal(ours.predict_on_batch(x, 5), expected)
        assert ours.arithmetic.names == ()
        assert ours.arithmetic.trials == ()


@pytest.mark.parametrize("asked", ["bfloat16", "channels_last", ["bfloat16", "channels_last"]])
def test_an_arithmetic_asked_for_by_name_is_what_is_computed_in(asked):
    ours, watch = wrapper(asked)
    ours.eval()
    watch.passes.clear()
    draws = ours.predict_on_batch(images(8).tensors[0], 5)
    ours.test_on_batch(images(8).tensors[0], images(8).tensors[1])
    # the first passes are of one item, to see what it costs
    assert all(one == ("channels_last" in asked, torch.bfloat16 if "bfloat16" in asked else torch.float32)
               for one in watch.passes)  # fmt: skip
    assert draws.dtype == torch.float32
    assert ours.arithmetic.names == named(asked)
    assert ours.arithmetic.why == "asked for by name"


def test_half_precision_gives_about_the_same_numbers():
    # on the processor masks of both precisions come from the same random numbers
    assert torch.allclose(*(torch.from_numpy(predicted(wrapper(one)[0])) for one in ("plain", "bfloat16")), atol=0.05)


def test_training_is_plain_whatever_is_asked_for():
    weights = []
    for asked in ("plain", ["bfloat16", "channels_last"]):
        ours, watch = wrapper(asked)
        torch.manual_seed(5)
        ours.train_on_dataset(images(100), epoch=1)
        weights.append(torch.cat([one.flatten() for one in ours.get_params()]))
        assert set(watch.passes) == {(False, torch.float32)}
    assert torch.equal(*weights)


def test_predicting_leaves_the_weights_and_their_layout_alone():
    ours, _ = wrapper(["bfloat16", "channels_last"])
    before = copy.deepcopy(ours.model.state_dict())
    predicted(ours)
    for name, one in ours.model.state_dict().items():
        assert torch.equal(one, before[name])
        assert one.dtype == before[name].dtype
        assert one.stride() == before[name].stride()


def test_numbers_too_large_for_float16_are_computed_plainly():
    ours, _ = wrapper("float16", scale=1e6)
    assert predicted(ours, images(20)).max() > 65_504


@pytest.mark.usefixtures("by_its_own_clock")
def test_the_faster_layout_is_found_and_kept_for_the_model():
    ours, watch = wrapper("measured")
    ours.model.eval()
    draws = predicted(ours)
    found = ours.arithmetic
    assert found.names == ("channels_last",)
    assert [one.names for one in found.trials][:1] == [()]
    assert found.items >= trials.LEAST
    assert draws.shape == (N, 4, 5)
    watch.passes.clear()
    predicted(ours)
    assert {fast for fast, _ in watch.passes} == {True}
    assert ours.arithmetic is found
    ours.model = wrapper("plain")[0].model.parent_module.conv
    assert ours.arithmetic.names == ()


@pytest.mark.usefixtures("by_its_own_clock")
def test_a_layout_that_changes_the_ranking_is_refused_and_leaves_no_trace():
    ours, watch = wrapper("measured", lossy=True)
    draws = predicted(ours)
    assert ours.arithmetic.names == ()
    assert "ranks otherwise" in str(ours.arithmetic)
    assert any(fast for fast, _ in watch.passes)
    assert (draws == predicted(wrapper("plain", lossy=True)[0])).all()


def test_a_small_pool_is_not_tried():
    ours, watch = wrapper("measured")
    predicted(ours)
    assert {fast for fast, _ in watch.passes} == {False}
    assert ours.arithmetic.why == "no pool has been large enough to try others on"


@pytest.mark.usefixtures("by_its_own_clock")
def test_what_was_found_can_be_kept_to_in_another_run():
    ours, other = wrapper("measured")[0], wrapper("measured")[0]
    predicted(ours)
    other.use_arithmetic(ours.arithmetic.names)
    assert (predicted(ours) == predicted(other)).all()
    assert other.arithmetic.names == ("channels_last",)
    ours.use_arithmetic("measured")
    assert ours.arithmetic.names == ()


@pytest.mark.parametrize("native", [True, False])
def test_only_what_can_be_faster_is_tried(native, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
    x = images(2).tensors[0]
    half = [("bfloat16", "channels_last")] if native else []
    assert candidates(Images(), x) == [*half, ("channels_last",)]
    assert candidates(nn.Linear(3, 3), torch.zeros(2, 3)) == ([("bfloat16",)] if native else [])
    assert candidates(Images().double(), x.double()) == [("channels_last",)]
    assert candidates(MCCachingModule(MCDropoutModule(Images())), x) == []


def test_models_of_other_sizes_are_of_another_kind():
    assert kind_of(nn.Linear(3, 3)) == kind_of(nn.Linear(3, 3))
    assert kind_of(nn.Linear(3, 3)) != kind_of(nn.Linear(3, 4))
    assert kind_of(nn.Sequential(nn.ReLU())) != kind_of(nn.Sequential(nn.Tanh()))


POSTERIORS = {
    "MC-Dropout": MCDropoutModule,
    "consistent": MCConsistentDropoutModule,
    "DropConnect": MCDropoutConnectModule,
    "ensemble": lambda model: EnsembleModule(model, 2),
    "Laplace": LaplaceModule,
    "SWAG": lambda model: SWAGModule(model, snapshots=3),
    "variational": VariationalModule,
    "MC-BatchNorm": lambda model: MCBatchNormModule(nn.Sequential(model, nn.BatchNorm1d(4), nn.Linear(4, 4)), 4),
    "Gaussian process": lambda model: GaussianProcessModule(model, n_features=16),
}


@pytest.mark.parametrize("posterior", POSTERIORS.values(), ids=POSTERIORS)
def test_every_posterior_predicts_in_half_precision_about_what_it_does_plainly(posterior):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.Flatten(), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8 * 36, 4)
    ours = ModelWrapper(posterior(nn.Sequential(*layers)), nn.CrossEntropyLoss(), device="cpu")
    ours.train_on_dataset(images(40), batch_size=20)
    got = []
    for asked in ("plain", ["bfloat16", "channels_last"]):
        ours.use_arithmetic(asked)
        draws = torch.from_numpy(predicted(ours, images(30, seed=2), iterations=40)).softmax(dim=1)
        assert draws.dtype == torch.float32
        got.append(draws.mean(dim=-1))
    assert torch.allclose(*got, atol=0.1)


class Remembering(nn.Module):
    """Makes a table when it is first called, as models of sequences make one of positions."""

    def __init__(self):
        super().__init__()
        self.inner, self.table = nn.Linear(4, 3), None

    def forward(self, x):
        if self.table is None:
            self.table = torch.linspace(0, 1, 4).exp()
        return self.inner(x * self.table)


def test_a_model_that_keeps_a_tensor_from_predicting_trains_with_it():
    ours = ModelWrapper(Remembering(), nn.CrossEntropyLoss(), device="cpu")
    x = torch.randn(8, 4, requires_grad=True)
    ours.predict_on_batch(x.detach())
    ours.model(x).sum().backward()
    assert torch.equal(x.grad[0], ours.model.table * ours.model.inner.weight.sum(dim=0).detach())


def large(device):
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 256, 3), nn.ReLU(), nn.Conv2d(256, 256, 3), nn.ReLU(), nn.Conv2d(256, 256, 3), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(1024, 10)]
    return MCDropoutModule(nn.Sequential(*body, *head)).to(device)


@pytest.mark.gpu
def test_what_is_found_on_a_gpu_ranks_as_float32_does(monkeypatch):
    monkeypatch.setattr(trials, "SHARE", 1.0)
    monkeypatch.setattr(trials, "WORTH", 0.0)
    data = TensorDataset(torch.randn(2_000, 3, 32, 32))
    ours = ModelWrapper(large("cuda"), TrainingArgs(batch_size=250), device="cuda")
    draws = predicted(ours, data)
    found = ours.arithmetic
    assert draws.dtype == "float32"
    assert {one.names for one in found.trials} >= {(), ("channels_last",), ("float16", "channels_last")}
    for one in found.trials[1:]:
        refused = one.correlation is None or one.correlation <= trials.CORRELATION or one.overlap <= trials.OVERLAP
        assert (one.seconds is None) == refused
    if found.names:
        times = {one.names: one.seconds for one in found.trials}
        assert times[found.names] < trials.MARGIN * times[()]


@pytest.mark.gpu
@pytest.mark.parametrize("asked", ["bfloat16", "float16", ["float16", "channels_last"]])
def test_masks_on_a_gpu_are_the_same_in_every_arithmetic_while_they_are_compared(asked):
    x, got, model = torch.randn(64, 3, 32, 32, device="cuda"), [], large("cuda").eval()
    for one in ("plain", asked):
        ours = ModelWrapper(model, TrainingArgs(arithmetic=one), device="cuda")
        torch.manual_seed(0)
        with trials.SameDraws():
            draws = ours.predict_on_batch(x, 10)
        got.append((draws - draws.mean(dim=-1, keepdim=True)).flatten())  # what the masks alone make of it
    assert torch.corrcoef(torch.stack(got))[0, 1] > 0.99


@pytest.mark.gpu
def test_auto_measures_on_a_gpu_and_changes_nothing_where_it_finds_nothing(monkeypatch):
    monkeypatch.setattr(trials, "SHARE", 1.0)
    monkeypatch.setattr(trials, "WORTH", 0.0)
    monkeypatch.setattr(trials, "MARGIN", 0.0)
    data, got = TensorDataset(torch.randn(2_000, 3, 16, 16)), []
    for asked in ("plain", "auto"):
        ours = ModelWrapper(large("cuda"), TrainingArgs(batch_size=250, arithmetic=asked), device="cuda")
        got.append(torch.from_numpy(predicted(ours, data)))
        assert ours.arithmetic.names == ()
        assert bool(ours.arithmetic.trials) == (asked == "auto")
    assert torch.equal(*got)

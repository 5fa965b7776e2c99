import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset, default_collate

from baal_widgets.bayesian.batchnorm import MCBatchNormModule, batch_norms, batch_statistics
from baal_widgets.bayesian.common import draw_number, redraw, sample


class Doubling(nn.BatchNorm1d):
    """A user's own kind of batch normalisation."""

    def forward(self, x):
        return 2 * super().forward(x)


VECTORS, WORDS, MAPS, VOLUMES = (24, 8), (24, 8, 5), (24, 8, 5, 5), (24, 8, 3, 3, 3)
MODELS = {
    "BatchNorm1d": (lambda: nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)), VECTORS),
    "root": (lambda: nn.BatchNorm1d(8), VECTORS),
    "of sequences": (lambda: nn.Sequential(nn.Conv1d(8, 6, 3), nn.BatchNorm1d(6)), WORDS),
    "BatchNorm2d": (
        lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4)),
        MAPS,
    ),
    "BatchNorm3d": (lambda: nn.Sequential(nn.BatchNorm3d(8, affine=False)), VOLUMES),
    "untracked": (lambda: nn.Sequential(nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 2)), VECTORS),
    "subclass": (lambda: nn.Sequential(Doubling(8)), VECTORS),
    "with dropout": (lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 8), nn.BatchNorm1d(8)), VECTORS),
    "cumulative": (lambda: nn.Sequential(nn.BatchNorm1d(8, momentum=None)), VECTORS),
}
models = pytest.mark.parametrize("name", list(MODELS))


def make(name):
    """A model with running statistics of its own, and items with targets."""
    torch.manual_seed(0)
    build, shape = MODELS[name]
    x = 3 * torch.randn(shape) + 1
    model = build().train()
    model(x)
    return model.eval(), x


def fitted(model, x, **options):
    mc_model = MCBatchNormModule(model, **{"n_batches": 8, **options}).eval()
    mc_model.fit(TensorDataset(x, torch.zeros(len(x))), batch_size=6)
    return mc_model


def portrait(model):
    """All that is to be as it was: classes, modes, and what the layers hold beside tensors."""
    return [
        (name, id(m), type(m), m.training, sorted(vars(m)), len(m._forward_pre_hooks))
        for name, m in model.named_modules()
    ]


def same_tensors(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


@models
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_calls_differ_in_eval_mode(name, mode):
    model, x = make(name)
    with mode():
        mc_model = fitted(model, x)
        first, *others = [mc_model(x) for _ in range(6)]
        assert any(not torch.allclose(first, other) for other in others)


@models
def test_a_draw_is_what_training_mode_gives_for_its_mini_batch(name):
    """Any mini-batch, passed again with its own statistics, comes out as in training."""
    model, x = make(name)
    whole = batch_statistics(copy.deepcopy(model), x[:6])
    mc_model = fitted(model, x)
    mc_model.means, mc_model.variances = (one[None] for one in whole)
    drawn = mc_model(x[:6])
    for part in model.modules():
        part.train(not isinstance(part, nn.Dropout))
    assert torch.allclose(drawn, model(x[:6]), atol=1e-5)


def test_statistics_are_those_of_mini_batches_of_the_training_set():
    _, x = make("root")
    mc_model = fitted(nn.BatchNorm1d(8), x, n_batches=10)
    assert mc_model.means.shape == mc_model.variances.shape == (10, 8)
    # four mini-batches of six are the whole set, twice; and two more
    assert torch.allclose(mc_model.means[:4].mean(0), x.mean(0), atol=1e-5)
    assert torch.allclose(mc_model.means[4:8].mean(0), x.mean(0), atol=1e-5)
    within, between = mc_model.variances[:4].mean(0), mc_model.means[:4].var(0, correction=0)
    assert torch.allclose(within + between, x.var(0, correction=0), rtol=1e-4)


@models
def test_a_draw_is_the_same_for_all_batches_until_the_next_pass(name):
    model, x = make(name)
    mc_model = fitted(model, x)
    with torch.no_grad():
        whole = sample(mc_model, x, draws=8)
        halves = torch.cat([sample(mc_model, x[:1], draws=8), sample(mc_model, x[1:], draws=8)])
        assert whole.shape == (*model(x).shape, 8)
        assert torch.allclose(whole, halves, atol=1e-5)
        assert any(not torch.allclose(whole[..., 0], whole[..., draw]) for draw in range(1, 8))
        redraw(mc_model)
        assert not torch.allclose(sample(mc_model, x, draws=8), whole)


def test_all_layers_use_the_same_mini_batch():
    """With two layers and two mini-batches there are two draws, not four."""
    model, x = make("BatchNorm2d")
    mc_model = fitted(model, x, n_batches=2)
    drawn = {tuple(mc_model(x[:1]).flatten().tolist()) for _ in range(40)}
    assert len(drawn) == 2


@models
def test_the_callers_model_is_left_as_it_was(name):
    model, x = make(name)
    before, weights, expected = portrait(model), copy.deepcopy(model.state_dict()), model(x)
    buffers = [part._buffers for part in model.modules()]
    with MCBatchNormModule(model) as mc_model:
        parts = [type(part) for part in mc_model.parent_module.modules()]
        mc_model.fit(TensorDataset(x, torch.zeros(len(x))), batch_size=6)
        assert not any(part.training for part in mc_model.parent_module.modules())
        sample(mc_model.eval(), x, draws=4)
        assert mc_model.state_dict().keys() == {f"parent_module.{key}" for key in weights}
    assert parts == [type(part) for part in mc_model.parent_module.modules()]
    assert portrait(model) == before
    assert all(part._buffers is one for part, one in zip(model.modules(), buffers, strict=True))
    assert same_tensors(model.state_dict(), weights)
    assert torch.equal(mc_model(x), expected)
    assert torch.equal(model(x), expected)


def test_an_error_in_the_model_leaves_it_as_it_was():
    model, x = make("BatchNorm2d")
    mc_model = fitted(model, x)
    before, weights = portrait(model), copy.deepcopy(model.state_dict())
    for fail in (lambda: mc_model(x[:, :3]), lambda: mc_model.fit(TensorDataset(x[:, :3], x), batch_size=6)):
        with pytest.raises(RuntimeError, match="channels"):
            fail()
    assert portrait(model) == before
    assert same_tensors(model.state_dict(), weights)
    assert not any(layer._forward_pre_hooks for layer in mc_model.modules())
    assert same_tensors(mc_model.parent_module.state_dict(), weights)


@models
def test_training_mode_is_that_of_the_model_itself_and_moves_its_statistics(name):
    model, x = make(name)
    twin = copy.deepcopy(model).train()
    mc_model = fitted(model, x).train()
    torch.manual_seed(1)
    drawn = mc_model(x)
    torch.manual_seed(1)
    assert torch.equal(drawn, twin(x))
    assert same_tensors(model.state_dict(), twin.state_dict())


def test_parts_are_in_the_modes_they_were_in_after_fitting():
    model, x = make("with dropout")
    mc_model = MCBatchNormModule(model.train())
    mc_model.parent_module[0].eval()
    mc_model.fit(TensorDataset(x, x), batch_size=6)
    assert [part.training for part in mc_model.parent_module] == [False, True, True]


@models
def test_seeds_govern_fit_and_draws_and_what_comes_after_them(name):
    model, x = make(name)
    outcomes = []
    for _ in range(2):
        torch.manual_seed(5)
        mc_model = fitted(model, x)
        outcomes.append((mc_model.means, sample(mc_model, x, draws=3), mc_model(x), torch.rand(3)))
    assert all(torch.equal(one, other) for one, other in zip(*outcomes, strict=True))


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@models
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), saved])
def test_a_fitted_module_can_be_copied_pickled_and_saved(name, copied):
    model, x = make(name)
    mc_model = fitted(model, x)
    drawn = sample(mc_model, x, draws=4)
    assert torch.equal(sample(copied(mc_model), x, draws=4), drawn)


def test_moving_or_casting_the_module_moves_what_was_fitted():
    model, x = make("BatchNorm2d")
    mc_model = fitted(model, x).to(torch.float64)
    assert mc_model.means.dtype == torch.float64
    assert all(one.dtype == torch.float64 for one in (*model.parameters(), mc_model(x.double())))


def test_a_layer_that_is_not_used_does_not_stop_the_others():
    model, x = make("BatchNorm1d")
    model.extra = nn.BatchNorm1d(5)
    model.forward = lambda x: model[3](model[2](model[1](model[0](x))))
    means, variances = batch_statistics(model, x)
    assert means.shape == variances.shape == (13,)
    assert torch.equal(means[8:], torch.zeros(5))
    assert torch.equal(variances[8:], torch.ones(5))


def test_few_items_are_split_so_that_draws_can_differ():
    model, x = make("BatchNorm1d")
    mc_model = MCBatchNormModule(model).eval()
    mc_model.fit(TensorDataset(x[:7], x[:7]), batch_size=32)
    assert mc_model.means.var(0).min() > 0
    with pytest.raises(ValueError, match="at least 4 items .*got 3"):
        mc_model.fit(TensorDataset(x[:3], x[:3]))


def test_items_may_be_nested_and_collated_by_a_function():
    class Summed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(8)

        def forward(self, data):
            return self.norm(data["left"] + data["right"])

    items = [({"left": torch.randn(8), "right": torch.randn(8)}, 0) for _ in range(9)]
    mc_model = MCBatchNormModule(Summed()).eval()
    seen = []
    mc_model.fit(items, batch_size=4, collate_fn=lambda batch: seen.append(len(batch)) or default_collate(batch))
    assert set(seen) == {4}
    assert sample(mc_model, default_collate(items)[0], draws=3).shape == (9, 8, 3)


def test_draws_before_fit_are_refused_with_advice():
    model, x = make("BatchNorm1d")
    mc_model = MCBatchNormModule(model).eval()
    for draw in (lambda: mc_model(x), lambda: sample(mc_model, x, draws=2)):
        with pytest.raises(RuntimeError, match=r"call fit\(dataset\)"):
            draw()
    assert mc_model.train()(x).shape == (24, 3)


def test_a_model_without_batch_normalisation_is_refused():
    with pytest.raises(ValueError, match="has no batch normalisation"):
        MCBatchNormModule(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)))
    with pytest.raises(ValueError, match="from 2 on, got 1"):
        MCBatchNormModule(nn.BatchNorm1d(2), n_batches=1)
    assert batch_norms(nn.InstanceNorm1d(3)) == []


def test_smaller_mini_batches_spread_more():
    model, x = make("root")
    mc_model, spreads = MCBatchNormModule(model, n_batches=200).eval(), []
    for size in (3, 6, 12):
        mc_model.fit(TensorDataset(x, x), batch_size=size)
        spreads.append(float(mc_model.means.var(0).mean()))
    population = x.var(0).mean()
    for size, spread in zip((3, 6, 12), spreads, strict=True):  # drawn without replacement
        assert spread == pytest.approx(float(population) / size * (1 - size / 24), rel=0.2)


def test_draws_spread_more_far_from_the_data_than_on_it():
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 64)[:, None]
    model = nn.Sequential(nn.Linear(1, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 1))
    optimizer, data = torch.optim.Adam(model.parameters(), lr=1e-2), TensorDataset(x, torch.sin(3 * x))
    for _ in range(300):
        optimizer.zero_grad()
        of = torch.randperm(64)[:16]
        F.mse_loss(model(x[of]), torch.sin(3 * x[of])).backward()
        optimizer.step()
    mc_model = MCBatchNormModule(model).eval()
    mc_model.fit(data, batch_size=16)
    with torch.no_grad(), draw_number(mc_model, 0):
        assert torch.equal(mc_model(x), mc_model(x))
    with torch.no_grad():
        near, far = (sample(mc_model, at, draws=60).std(-1).mean() for at in (x, torch.tensor([[-6.0], [6.0]])))
    assert far > 2 * near


@pytest.mark.gpu
def test_a_model_on_the_gpu_is_fitted_and_drawn_from_there():
    model, x = make("BatchNorm2d")
    mc_model = fitted(model.cuda(), x)
    drawn = sample(mc_model, x.cuda(), draws=4)
    assert drawn.device.type == "cuda"
    assert torch.allclose(sample(mc_model.cpu(), x, draws=4), drawn.cpu(), atol=1e-4)

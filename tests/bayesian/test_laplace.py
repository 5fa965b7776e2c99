import copy
import pickle
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from baal_widgets.active.scores import bald, to_probabilities
from baal_widgets.bayesian import laplace as module_under_test
from baal_widgets.bayesian.common import draw_number, redraw, sample
from baal_widgets.bayesian.laplace import LaplaceModule
from baal_widgets.modelwrapper import ModelWrapper

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from laplace import Laplace

# laplace-torch's own dependencies
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")

N, D, H, C = 40, 3, 4, 3
HESSIANS = ["kron", "full", "diag"]


def data(n=N):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, D, generator=generator)
    return TensorDataset(x, (x + 0.8 * torch.randn(n, D, generator=generator)).argmax(1))


def real_data(n=N):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, D, generator=generator)
    return TensorDataset(x, x[:, 0].sin() + 0.2 * torch.randn(n, generator=generator))


def network(outputs=C, bias=True):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, H), nn.BatchNorm1d(H), nn.Tanh(), nn.Linear(H, outputs, bias=bias))


def train(model, loss=F.cross_entropy, dataset=None, steps=60):
    x, y = (dataset or data()).tensors
    optimizer = torch.optim.Adam(model.parameters(), 0.05, weight_decay=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return train(network())


def squared(output, target):
    return F.mse_loss(output[:, 0], target)


def features(model, x):
    with torch.no_grad():
        return model[:-1](x)


def gauss_newton(model, x):
    """Of the softmax likelihood in `[weight, bias]` of the last layer, by hand."""
    f, p = features(model, x), model(x).softmax(1).detach()
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    eye = torch.eye(C)
    jacobian = torch.cat([torch.einsum("cd,nf->ncdf", eye, f).flatten(2), eye.expand(len(f), C, C)], dim=2)
    return torch.einsum("ncp,ncd,ndq->pq", jacobian, curvature, jacobian), jacobian


def fitted(model, dataset=None, **options):
    posterior = LaplaceModule(model, **options).eval()
    posterior.fit(dataset or data(), batch_size=16)
    return posterior


def drawn(posterior, n):
    """Weights and biases of draws, one row each."""
    heads = torch.stack([posterior._draw_head(torch.Generator().manual_seed(i)) for i in range(n)])
    return torch.cat([heads[..., :-1].flatten(1), heads[..., -1]], dim=1)


def test_the_spread_of_full_draws_is_the_inverse_of_the_hand_made_precision(model):
    posterior = fitted(model, hessian="full", prior_precision=2.0)
    precision = gauss_newton(model, data().tensors[0])[0] + 2.0 * torch.eye(C * H + C)
    spread = posterior._spread
    assert torch.allclose(spread @ spread.T @ precision, torch.eye(C * H + C), atol=1e-4)
    assert torch.allclose(posterior._mean, torch.cat([model[-1].weight.flatten(), model[-1].bias]))


def test_diagonal_draws_spread_by_the_diagonal_of_the_precision(model):
    posterior = fitted(model, hessian="diag", prior_precision=2.0)
    precision = gauss_newton(model, data().tensors[0])[0].diagonal() + 2.0
    assert torch.allclose(posterior._spread, precision.rsqrt(), atol=1e-5)


def test_kron_is_the_product_of_inputs_and_curvature(model):
    posterior = fitted(model, hessian="kron", prior_precision=2.0)
    f, p = features(model, data().tensors[0]), model(data().tensors[0]).softmax(1).detach()
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    weights = torch.kron(curvature.mean(0), f.T @ f) + 2.0 * torch.eye(C * H)
    biases = curvature.sum(0) + 2.0 * torch.eye(C)
    assert torch.allclose(posterior._spread.to_matrix(), torch.block_diag(weights, biases), atol=1e-4)


@pytest.mark.parametrize("hessian", HESSIANS)
def test_draws_have_the_mean_and_covariance_of_the_posterior(model, hessian):
    posterior = fitted(model, hessian=hessian, prior_precision=2.0)
    heads = drawn(posterior, 4000)
    spread = posterior._spread
    covariance = {
        "full": lambda: spread @ spread.T,
        "diag": lambda: spread.square().diag(),
        "kron": lambda: torch.linalg.inv(spread.to_matrix()),
    }[hessian]()
    scale = covariance.diagonal().sqrt()
    assert ((heads.mean(0) - posterior._mean) / scale).abs().max() < 4.5 / 4000**0.5
    assert ((heads.T.cov() - covariance) / scale[:, None] / scale).abs().max() < 0.1


@pytest.mark.parametrize("hessian", HESSIANS)
def test_draws_agree_with_laplace_torch_on_the_whole_model(model, hessian):
    reference = Laplace(copy.deepcopy(model), "classification", "last_layer", hessian, prior_precision=2.0)
    reference.fit(DataLoader(data(), 16))
    x = data().tensors[0][:10]
    posterior = fitted(model, hessian=hessian, prior_precision=2.0)
    assert torch.allclose(posterior._mean, reference.mean)
    expected = reference.predictive_samples(
        x, pred_type="nn", n_samples=4000, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        got = posterior.sample(x, 4000).softmax(1)
    assert torch.allclose(got.mean(-1), expected.mean(0), atol=0.02)
    assert torch.allclose(got.std(-1), expected.std(0), atol=0.02)
    mean, variance = reference._glm_predictive_distribution(x)
    with torch.no_grad():
        logits = posterior.sample(x, 4000)
    assert torch.allclose(logits.mean(-1), mean, atol=0.2)
    assert torch.allclose(logits.var(-1), variance.diagonal(dim1=1, dim2=2), rtol=0.15)


@pytest.mark.parametrize("hessian", HESSIANS)
@pytest.mark.parametrize("likelihood", ["classification", "regression"])
def test_marglik_raises_laplace_torchs_own_evidence_the_most(model, hessian, likelihood):
    real = likelihood == "regression"
    network_ = train(network(1), squared, real_data()) if real else model
    x, y = real_data().tensors if real else data().tensors
    y = y[:, None] if real else y
    reference = Laplace(copy.deepcopy(network_), likelihood, "last_layer", hessian)
    reference.fit(DataLoader(TensorDataset(x, y), 16))
    head = Laplace(copy.deepcopy(network_[-1]), likelihood, "all", hessian)
    head.fit(DataLoader(TensorDataset(features(network_, x), y), 16))
    module_under_test._set_likeliest(head, None, noisy=real)

    def evidence(prior, noise):
        with torch.no_grad():
            return float(reference.log_marginal_likelihood(prior, noise if real else None))

    best = evidence(head.prior_precision, head.sigma_noise)
    for factor in (0.5, 0.8, 1.25, 2.0):
        assert evidence(head.prior_precision * factor, head.sigma_noise) < best
        if real:
            assert evidence(head.prior_precision, head.sigma_noise * factor) < best
    posterior = fitted(network_, real_data() if real else None, hessian=hessian, likelihood=likelihood)
    spread = (lambda one: one.to_matrix()) if hessian == "kron" else (lambda one: one)
    theirs = head.posterior_precision if hessian == "kron" else head.posterior_scale
    assert torch.allclose(spread(posterior._spread), spread(theirs), rtol=1e-3, atol=1e-3)


def test_regression_is_bayesian_linear_regression_on_the_features():
    model = train(network(1), squared, real_data())
    posterior = fitted(model, real_data(), likelihood="regression", hessian="full", prior_precision=3.0)
    x = real_data().tensors[0]
    f = torch.cat([features(model, x), torch.ones(N, 1)], dim=1)
    best, found = -float("inf"), None
    for noise in torch.linspace(0.05, 0.6, 200):
        precision = f.T @ f / noise**2 + 3 * torch.eye(H + 1)
        loss = (model(x)[:, 0] - real_data().tensors[1]).square().sum().detach() / 2
        evidence = -loss / noise**2 - N * noise.log() - precision.logdet() / 2
        if evidence > best:
            best, found = evidence, precision
    spread = posterior._spread
    assert torch.allclose((spread @ spread.T).diagonal(), torch.linalg.inv(found).diagonal(), rtol=0.05)
    assert posterior.sample(x, 7).shape == (N, 1, 7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_targets_to_regress_may_be_of_any_kind(dtype):
    x, y = real_data().tensors
    model = train(network(1), squared, real_data())
    assert fitted(model, TensorDataset(x, y.to(dtype)), likelihood="regression").sample(x, 2).dtype == torch.float32


def test_a_draw_is_one_model_for_all_batches_until_redraw(model):
    posterior, x = fitted(model), data().tensors[0]
    with torch.no_grad():
        whole = posterior.sample(x, 6)
        halves = torch.cat([posterior.sample(half, 6) for half in x.chunk(2)])
        assert torch.allclose(whole, halves, atol=1e-5)
        assert torch.allclose(posterior.sample(x, 3), whole[..., :3], atol=1e-5)
        assert torch.allclose(posterior.sample(x, 9)[..., :6], whole, atol=1e-5)
        with draw_number(posterior, 2):
            assert torch.allclose(posterior(x), whole[..., 2], atol=1e-5)
        redraw(posterior)
        other = posterior.sample(x, 6)
    assert not torch.isclose(other, whole).any(dim=0).all()
    assert whole.std(-1).min() > 0


def test_the_global_seed_governs_and_fitting_does_not_touch_it(model):
    x, outputs = data().tensors[0], []
    for _ in range(2):
        posterior = LaplaceModule(model).eval()
        torch.manual_seed(3)
        state = torch.get_rng_state()
        posterior.fit(data())
        assert torch.equal(torch.get_rng_state(), state)
        outputs += [posterior.sample(x, 4), posterior(x)]
    assert torch.equal(outputs[0], outputs[2])
    assert torch.equal(outputs[1], outputs[3])
    assert not torch.equal(posterior(x), posterior(x))


def test_fitting_and_sampling_leave_the_model_bit_for_bit():
    model = train(network()).train()
    model[1].eval()
    model[0].weight.requires_grad_(False)

    def everything():
        tensors = [one.detach().clone() for one in model.state_dict().values()]
        gradients = [one.grad is None or one.grad.clone() for one in model.parameters()]
        return tensors, gradients, [(m.training, len(m._forward_hooks)) for m in model.modules()]

    (before, gradients, rest), posterior = everything(), LaplaceModule(model)
    posterior.fit(data(), batch_size=7)
    posterior.sample(data().tensors[0], 3)
    now = everything()
    assert all(torch.equal(a, b) for a, b in zip(before, now[0], strict=True))
    assert all(a is b or torch.equal(a, b) for a, b in zip(gradients, now[1], strict=True))
    assert now[2] == rest
    assert not model[0].weight.requires_grad
    assert list(posterior.state_dict()) == [f"parent_module.{name}" for name in model.state_dict()]


def test_training_mode_is_the_models_own_pass_and_the_block_gives_it_back(model):
    x = data().tensors[0]
    expected = model(x)
    with LaplaceModule(model) as posterior:
        posterior.fit(data())
        trained = posterior.train()(x)
        assert torch.equal(trained, copy.deepcopy(model).train()(x))
        posterior.eval()
        expected = model(x)
        assert not torch.equal(posterior(x), expected)
    assert torch.equal(posterior(x), expected)
    assert torch.equal(posterior.unpatch()(x), expected)
    with pytest.raises(RuntimeError, match="not fitted"):
        posterior.sample(x, 2)


def test_draws_before_fitting_or_after_more_training_say_what_to_do():
    model = train(network())
    posterior, x = LaplaceModule(model).eval(), data().tensors[0]
    for draw in (lambda: posterior(x), lambda: sample(posterior, x, 2)):
        with pytest.raises(RuntimeError, match=r"not fitted yet.*call fit\(dataset\)"):
            draw()
    posterior.fit(data())
    posterior.sample(x, 2)
    train(model, steps=1)
    for draw in (lambda: posterior(x), lambda: sample(posterior, x, 2)):
        with pytest.raises(RuntimeError, match=r"changed since.*call fit\(dataset\) again"):
            draw()
    posterior.fit(data())
    posterior.sample(x, 2)


def test_a_layer_without_bias_is_fine():
    posterior = fitted(train(network(bias=False)))
    assert posterior.sample(data().tensors[0], 3).shape == (N, C, 3)
    assert not posterior._draw_head(torch.Generator())[:, -1].any()


def test_nested_inputs_and_other_collations_are_fine(model):
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, inputs):
            return self.inner(inputs["x"])

    class Pairs(Dataset):
        def __len__(self):
            return N

        def __getitem__(self, i):
            return {"x": data().tensors[0][i]}, int(data().tensors[1][i])

    posterior = fitted(Nested().eval(), Pairs(), prior_precision=2.0)
    plain = fitted(model, prior_precision=2.0)
    assert torch.allclose(posterior._spread.to_matrix(), plain._spread.to_matrix(), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"prior_precision": 0}, "above 0"),
        ({"prior_precision": "likeliest"}, "marglik"),
        ({"hessian": "lowrank"}, "kron"),
        ({"likelihood": "poisson"}, "regression"),
    ],
)
def test_options_that_mean_nothing_are_refused(model, options, told):
    with pytest.raises(ValueError, match=told):
        LaplaceModule(model, **options)


def test_targets_that_do_not_fit_the_model_are_refused(model):
    x, y = data().tensors
    posterior = fitted(model)
    before = posterior.sample(x, 2)
    for targets, told in ((y + 1, "from 0 to 2"), (y.float(), "regression"), (y[:, None].repeat(1, 2), "class index")):
        with pytest.raises(ValueError, match=told):
            posterior.fit(TensorDataset(x, targets))
    with pytest.raises(ValueError, match="empty"):
        posterior.fit(TensorDataset(x[:0], y[:0]))
    assert torch.equal(posterior.sample(x, 2), before)
    with pytest.raises(ValueError, match="two classes"):
        LaplaceModule(network(1)).fit(data())
    with pytest.raises(ValueError, match="3 real targets"):
        LaplaceModule(model, likelihood="regression").fit(real_data())
    with pytest.raises(ValueError, match="last linear layer"):
        LaplaceModule(nn.Sequential(network(), nn.Softmax(1))).fit(data())


def test_without_laplace_torch_the_extra_is_named(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "laplace", None)
    with pytest.raises(ModuleNotFoundError, match=r"baal-widgets\[laplace\]"):
        LaplaceModule(model).fit(data())


def test_what_was_fitted_survives_pickling_and_copying(model):
    posterior, x = fitted(model), data().tensors[0]
    expected = posterior.sample(x, 3)
    for other in (pickle.loads(pickle.dumps(posterior)), copy.deepcopy(posterior)):
        assert torch.equal(other.sample(x, 3), expected)
        other.redraw()
        assert not torch.equal(other.sample(x, 3), expected)


def test_a_wrapper_fits_it_after_training_and_predicts_in_batches():
    wrapper = ModelWrapper(LaplaceModule(network()), nn.CrossEntropyLoss(), device="cpu")
    for _ in range(2):  # the second time after more training
        wrapper.train_on_dataset(data(), batch_size=8, epoch=2)
        got = wrapper.predict_on_dataset(data(), batch_size=7, iterations=5)
        assert got.shape == (N, C, 5)
        assert got.std(-1).min() > 0
        assert np.isfinite(wrapper.test_on_dataset(data(), average_predictions=5))


def test_it_is_less_sure_far_from_the_data_and_with_fewer_of_them():
    torch.manual_seed(0)
    x = torch.randn(200, 2)
    rows = TensorDataset(x, (x[:, 0] > 0).long())
    model = train(nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2)), dataset=rows, steps=150)
    posterior = fitted(model, rows, prior_precision=1.0)
    near, far = torch.tensor([[2.0, 0.0], [-2.0, 0.0]]), torch.tensor([[0.0, 30.0], [0.0, -30.0]])
    with torch.no_grad():
        scores = [bald(to_probabilities(posterior.sample(one, 200), True)) for one in (near, far)]
        assert scores[1].min() > 5 * scores[0].max()
        few = fitted(model, TensorDataset(x[:20], rows.tensors[1][:20]), prior_precision=1.0)
        assert few.sample(x, 100).std(-1).mean() > 1.1 * posterior.sample(x, 100).std(-1).mean()


@pytest.mark.gpu
@pytest.mark.parametrize("hessian", HESSIANS)
def test_it_draws_the_same_on_the_gpu(model, hessian):
    x = data().tensors[0]
    torch.manual_seed(0)
    expected = fitted(model, hessian=hessian).sample(x, 4)
    torch.manual_seed(0)
    posterior = fitted(copy.deepcopy(model).cuda(), hessian=hessian)
    got = posterior.sample(x.cuda(), 4)
    assert got.is_cuda
    assert torch.allclose(got.cpu(), expected, atol=1e-2)
    assert torch.allclose(posterior.cpu().sample(x, 4), got.cpu(), atol=1e-3)

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from torch import nn
from torch.utils.data import TensorDataset

from baal_widgets.active.scores import bald, to_probabilities, variance
from baal_widgets.bayesian.common import draw_number, redraw
from baal_widgets.bayesian.gaussian_process import GaussianProcessModule, nngp_batch, nngp_variance
from baal_widgets.modelwrapper import ModelWrapper

N, D, C = 30, 2, 3


def draws(rng, n=12, outputs=2, t=7):
    return rng.normal(size=(n, outputs, t)) * rng.uniform(0.5, 3, size=(n, 1, 1)) + rng.normal(size=(n, outputs, 1))


def by_hand(pool, labelled, noise):
    """The textbook formula, labelled x labelled, for each output."""
    columns = []
    for c in range(pool.shape[1]):
        joint = np.cov(np.concatenate([labelled[:, c], pool[:, c]]))
        n = len(labelled)
        known, cross, own = joint[:n, :n], joint[n:, :n], joint[n:, n:]
        columns.append(np.diag(own - cross @ np.linalg.solve(known + noise * np.eye(n), cross.T)))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("noise", [1e-4, 0.1, 10.0])
@pytest.mark.parametrize("n_labelled", [1, 5, 40])
def test_the_variance_is_that_of_a_gaussian_process(rng, noise, n_labelled):
    pool, labelled = draws(rng), draws(rng, n_labelled)
    assert np.allclose(nngp_variance(pool, labelled, noise), by_hand(pool, labelled, noise), rtol=1e-6, atol=1e-9)


def test_with_nothing_labelled_it_is_the_variance_of_the_draws(rng):
    pool = draws(rng)
    for nothing in (None, pool[:0]):
        assert np.allclose(nngp_variance(pool, nothing), variance(pool) * 7 / 6)


def test_it_agrees_with_sklearn_where_draws_come_from_its_prior(rng):
    x = np.sort(rng.uniform(-3, 3, size=(25, 1)), axis=0)
    kernel, noise = RBF(0.7), 0.05
    # draws whose sample covariance is the kernel's to the last digit
    root = np.linalg.cholesky(kernel(x) + 1e-10 * np.eye(25))
    white = rng.normal(size=(25, 60))
    white -= white.mean(axis=1, keepdims=True)
    white = np.linalg.solve(np.linalg.cholesky(white @ white.T / 59), white)
    prior = (root @ white)[:, None]
    process = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None).fit(x[:8], rng.normal(size=8))
    _, deviation = process.predict(x[8:], return_std=True)
    assert np.allclose(nngp_variance(prior[8:], prior[:8], noise)[:, 0], deviation**2, atol=1e-6)


def test_a_label_without_noise_leaves_nothing_to_know(rng):
    pool = draws(rng)
    left = nngp_variance(pool, pool[:3], 1e-8)
    assert left[:3].max() < 1e-6
    assert left[3:].min() > 1e-3


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.floats(1e-3, 10))
def test_more_labels_never_add_uncertainty(seed, outputs, noise):
    rng = np.random.default_rng(seed)
    pool, labelled = draws(rng, 6, outputs), draws(rng, 5, outputs)
    few, more = (nngp_variance(pool, labelled[:n], noise) for n in (2, 5))
    assert (more <= few + 1e-9).all()
    assert (more >= -1e-9).all()
    order = rng.permutation(7)
    assert np.allclose(nngp_variance(pool[..., order], labelled[..., order], noise), more)


@pytest.mark.parametrize("noise", [1e-4, 0.1, 10.0])
def test_a_batch_is_chosen_one_by_one_as_if_each_choice_were_labelled(rng, noise):
    pool, labelled = draws(rng, 30), draws(rng, 4)
    chosen, free = [], list(range(30))
    for _ in range(8):
        scores = by_hand(pool[free], np.concatenate([labelled, pool[chosen]]), noise).sum(axis=1)
        chosen.append(free.pop(int(scores.argmax())))
    assert nngp_batch(pool, labelled, 8, noise).tolist() == chosen
    assert nngp_batch(torch.from_numpy(pool).float(), torch.from_numpy(labelled).float(), 8, noise).tolist() == chosen


def test_a_batch_has_no_twins_and_no_repetitions(rng):
    pool = np.repeat(draws(rng, 4), 3, axis=0)
    assert sorted(nngp_batch(pool, None, 4, 1e-3) // 3) == [0, 1, 2, 3]
    assert sorted(nngp_batch(pool, None, 12, 1e-3)) == list(range(12))
    assert nngp_batch(pool, None, 0).tolist() == []


def test_draws_that_agree_are_nothing_to_ask_about():
    same = np.ones((3, 2, 4))
    assert nngp_variance(same, same).tolist() == [[0, 0]] * 3
    assert sorted(nngp_batch(same, same, 3)) == [0, 1, 2]


def test_an_item_with_a_nan_leaves_the_others_alone(rng):
    pool = draws(rng, 5)
    expected = nngp_batch(pool, None, 4)
    got = nngp_batch(np.concatenate([pool, np.full((1, 2, 7), np.nan)]), None, 6)
    assert got[:4].tolist() == expected.tolist()
    assert got[-1] == 5


def test_the_callers_draws_come_back_unchanged_and_tensors_stay_tensors(rng):
    pool, labelled = draws(rng), draws(rng, 3)
    before = pool.copy(), labelled.copy()
    nngp_batch(pool, labelled, 5)
    as_tensor = nngp_variance(torch.from_numpy(pool), torch.from_numpy(labelled))
    assert isinstance(as_tensor, torch.Tensor)
    assert np.array_equal(as_tensor.numpy(), nngp_variance(pool, labelled))
    assert np.array_equal(pool, before[0])
    assert np.array_equal(labelled, before[1])


def test_what_cannot_be_a_covariance_is_refused(rng):
    pool = draws(rng)
    for wrong, told in (
        (lambda: nngp_variance(pool[..., 0]), r"\[item, output, draw\]"),
        (lambda: nngp_variance(pool[..., :1]), "2 draws or more"),
        (lambda: nngp_variance(pool, pool[..., :5]), "the same model for both"),
        (lambda: nngp_variance(pool, pool, 0.0), "above 0"),
        (lambda: nngp_batch(pool, None, 13), "from 0 to the 12 items"),
    ):
        with pytest.raises(ValueError, match=told):
            wrong()


# GaussianProcessModule


def network(outputs=C, body=True):
    torch.manual_seed(0)
    inside = [nn.Linear(D, 16), nn.BatchNorm1d(16), nn.Tanh()] if body else []
    return nn.Sequential(*inside, nn.Linear(16 if body else D, outputs)).eval()


MODEL = network()


def data(n=N):
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])
    y = torch.arange(n) % C
    return TensorDataset(centres[y] + 0.5 * torch.randn(n, D, generator=generator), y)


def real_data(n=N):
    x = 3 * torch.randn(n, D, generator=torch.Generator().manual_seed(1)).double()
    return TensorDataset(x, torch.stack([x[:, 0].sin() + 5, x.square().sum(1)], dim=1))


def fitted(model=None, dataset=None, **options):
    posterior = GaussianProcessModule(network() if model is None else model, **options).eval()
    posterior.fit(dataset or data(), batch_size=7)
    return posterior


def moments(posterior, x):
    """The mean and covariance of outputs, `[output, item]` and `[output, item, item]`, from the weights' own."""
    basis = posterior._basis(x.double())
    mean = (posterior._mean @ basis.T) + posterior._constant[:, None]
    half = torch.linalg.solve_triangular(posterior._root, basis.T.expand(len(posterior._mean), -1, -1), upper=False)
    return mean.detach(), (half.mT @ half).detach()


def test_regression_is_a_gaussian_process_with_the_features_kernel():
    x, y = real_data().tensors
    new = torch.randn(9, D).double() * 4
    posterior = fitted(network(2, False).double(), real_data(), likelihood="regression", n_features=64, noise=0.05)
    kernel = posterior._basis(torch.cat([x, new]))
    kernel = (kernel @ kernel.T).numpy()
    mean, covariance = moments(posterior, new)
    for c in range(2):
        centre, spread = y[:, c].mean().item(), y[:, c].var(correction=0).item()
        known, cross, own = kernel[:N, :N] * spread, kernel[N:, :N] * spread, kernel[N:, N:] * spread
        solved = np.linalg.solve(known + 0.05 * spread * np.eye(N), np.c_[y[:, c].numpy() - centre, cross.T])
        assert np.allclose(mean[c], centre + cross @ solved[:, 0], atol=1e-8)
        assert np.allclose(covariance[c], own - cross @ solved[:, 1:], atol=1e-8)


def test_many_features_are_sklearns_squared_exponential_kernel():
    x, y = real_data().tensors
    new = torch.randn(9, D).double() * 3
    posterior = fitted(
        network(2, False).double(), real_data(), likelihood="regression", n_features=2000, length_scale=1.5, noise=0.1
    )
    mean, covariance = moments(posterior, new)
    for c in range(2):
        centre, spread = y[:, c].mean().item(), y[:, c].std(correction=0).item()
        process = GaussianProcessRegressor(RBF(1.5), alpha=0.1, optimizer=None)
        process.fit(x.numpy(), (y[:, c].numpy() - centre) / spread)
        expected, deviation = process.predict(new.numpy(), return_std=True)
        assert np.allclose((mean[c] - centre) / spread, expected, atol=0.15)
        assert np.allclose(covariance[c].diagonal().sqrt() / spread, deviation, atol=0.08)


def test_classification_regresses_on_dirichlet_targets_with_their_own_noise():
    x, y = data().tensors
    x, new = x.double(), torch.randn(6, D).double() * 3
    dataset = TensorDataset(x, y)
    posterior = fitted(network(C, False).double(), dataset, n_features=64, length_scale=2.0, amplitude=3.0)
    kernel = posterior._basis(torch.cat([x, new]))
    kernel = 9 * (kernel @ kernel.T).numpy()
    concentration = 0.01 + np.eye(C)[y.numpy()]
    noise = np.log(1 / concentration + 1)
    targets = np.log(concentration) - noise / 2
    # by their own definition: a log-normal with the mean and variance of the Gamma it stands for
    assert np.allclose(np.exp(targets + noise / 2), concentration)
    assert np.allclose((np.exp(noise) - 1) * np.exp(2 * targets + noise), concentration)
    mean, covariance = moments(posterior, new)
    for c in range(C):
        known = kernel[:N, :N] + np.diag(noise[:, c])
        solved = np.linalg.solve(known, np.c_[targets[:, c] - targets.mean(), kernel[:N, N:]])
        assert np.allclose(mean[c], targets.mean() + kernel[N:, :N] @ solved[:, 0], atol=1e-8)
        assert np.allclose(covariance[c], kernel[N:, N:] - kernel[N:, :N] @ solved[:, 1:], atol=1e-8)


@pytest.mark.parametrize("likelihood", ["classification", "regression"])
def test_draws_have_the_processs_mean_and_covariance(likelihood):
    real = likelihood == "regression"
    model = network(2 if real else C, False).double()
    rows = real_data() if real else TensorDataset(data().tensors[0].double(), data().tensors[1])
    posterior = fitted(model, rows, likelihood=likelihood, n_features=32)
    x = torch.randn(5, D).double() * 2
    with torch.no_grad():
        got = posterior.sample(x, 3000)
    mean, covariance = moments(posterior, x)
    scale = covariance.diagonal(dim1=1, dim2=2).sqrt()
    assert got.shape == (5, len(mean), 3000)
    assert ((got.mean(-1).T - mean) / scale).abs().max() < 4.5 / 3000**0.5
    for c in range(len(mean)):
        assert ((got[:, c].cov() - covariance[c]) / scale[c][:, None] / scale[c]).abs().max() < 0.12


def test_it_learns_its_classes_and_is_unsure_far_from_them():
    posterior, (x, y) = fitted(network(C, False), data(90), length_scale=1.5), data(90).tensors
    with torch.no_grad():
        near, far = (to_probabilities(posterior.sample(one, 400), True) for one in (x, 20 * x))
    assert (near.mean(-1).argmax(1) == y).float().mean() > 0.95
    assert (far.mean(-1) - 1 / C).abs().max() < 0.15
    assert bald(far).min() > 2 * bald(near).mean()


def test_variance_grows_with_the_distance_up_to_the_priors():
    posterior = fitted(
        network(2, False).double(), real_data(), likelihood="regression", length_scale=2.0, amplitude=3.0
    )
    x = torch.tensor([[0.0, 0.0], [8.0, 0.0], [11.0, 0.0], [40.0, 0.0]]).double()
    spread = moments(posterior, x)[1].diagonal(dim1=1, dim2=2).sqrt()[0]
    assert (spread.diff() > -1e-3).all()
    assert spread[0] < 1.5
    assert spread[-1] == pytest.approx(3, rel=0.1)


def test_a_draw_is_one_function_for_all_batches_until_redraw():
    posterior, x = fitted(), data().tensors[0]
    with torch.no_grad():
        whole = posterior.sample(x, 6)
        assert torch.allclose(torch.cat([posterior.sample(half, 6) for half in x.chunk(3)]), whole, atol=1e-4)
        assert torch.allclose(posterior.sample(x, 9)[..., :6], whole, atol=1e-4)
        with draw_number(posterior, 4):
            assert torch.allclose(posterior(x), whole[..., 4], atol=1e-4)
        redraw(posterior)
        assert not torch.allclose(posterior.sample(x, 6), whole, atol=0.1)
        assert not torch.equal(posterior(x), posterior(x))


def test_seeds_say_what_is_fitted_and_drawn():
    x, outputs = data().tensors[0], []
    for seed in (0, 0, 1):
        torch.manual_seed(5)
        state = torch.get_rng_state()
        posterior = GaussianProcessModule(copy.deepcopy(MODEL), seed=seed).eval()
        posterior.fit(data())
        assert torch.equal(torch.get_rng_state(), state)
        outputs.append(posterior.sample(x, 3))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_the_model_stays_bit_for_bit_and_comes_back_from_the_block():
    model, x = network().train(), data().tensors[0]
    model[2].eval()
    before = [one.clone() for one in model.state_dict().values()]
    modes = [layer.training for layer in model.modules()]
    with GaussianProcessModule(model) as posterior:
        posterior.fit(data())
        posterior.sample(x, 3)
        assert list(posterior.state_dict()) == [f"parent_module.{name}" for name in model.state_dict()]
        assert [layer.training for layer in model.modules()] == modes
        assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
        assert torch.equal(posterior.train()(x), copy.deepcopy(model).train()(x))
    assert torch.equal(posterior.eval()(x), model.eval()(x))
    with pytest.raises(RuntimeError, match="not fitted"):
        posterior.sample(x, 2)


def test_draws_before_fitting_or_after_more_training_say_what_to_do():
    model, x = network(), data().tensors[0]
    posterior = GaussianProcessModule(model).eval()
    with pytest.raises(RuntimeError, match=r"not fitted yet.*call fit\(dataset\)"):
        posterior.sample(x, 2)
    posterior.fit(data())
    with torch.no_grad():
        model[-1].weight.add_(1)
    with pytest.raises(RuntimeError, match=r"changed since.*call fit\(dataset\) again"):
        posterior(x)


def test_what_was_fitted_survives_pickling_and_copying():
    posterior, x = fitted(), data().tensors[0]
    expected = posterior.sample(x, 3)
    for other in (pickle.loads(pickle.dumps(posterior)), copy.deepcopy(posterior)):
        assert torch.equal(other.sample(x, 3), expected)


def test_little_data_is_fine():
    x = data().tensors[0]
    for rows in (
        TensorDataset(x[:1], torch.tensor([2])),
        TensorDataset(x[:1].repeat(4, 1), torch.tensor([2, 2, 2, 2])),
    ):
        posterior = fitted(dataset=rows)
        with torch.no_grad():
            drawn = posterior.sample(x, 50)
        assert drawn.isfinite().all()
        assert drawn.mean(-1)[0].argmax() == 2
    flat = TensorDataset(x, torch.full((N,), 3.0))
    with torch.no_grad():
        drawn = fitted(network(1), flat, likelihood="regression").sample(x, 2000)
    assert torch.allclose(drawn.mean(-1), torch.tensor(3.0), atol=0.2)


def test_options_and_targets_that_mean_nothing_are_refused():
    for options, told in (
        ({"n_features": 1}, "from 2 on"),
        ({"noise": 0.0}, "noise above 0"),
        ({"length_scale": -1.0}, "length_scale above 0"),
        ({"amplitude": 0.0}, "amplitude above 0"),
        ({"likelihood": "poisson"}, "regression"),
    ):
        with pytest.raises(ValueError, match=told):
            GaussianProcessModule(MODEL, **options)
    x, y = data().tensors
    with pytest.raises(ValueError, match="from 0 to 2"):
        GaussianProcessModule(MODEL).fit(TensorDataset(x, y + 1))


def test_a_wrapper_fits_it_after_training_and_its_draws_covary():
    wrapper = ModelWrapper(GaussianProcessModule(network(), n_features=64), nn.CrossEntropyLoss(), device="cpu")
    wrapper.train_on_dataset(data(), batch_size=10, epoch=2)
    got = wrapper.predict_on_dataset(data(), batch_size=7, iterations=200)
    assert got.shape == (N, C, 200)
    labelled = got[:6]
    assert nngp_variance(got[:6], labelled, 0.01).max() < 0.011  # draws are functions: what is labelled is known
    assert np.isfinite(wrapper.test_on_dataset(data(), average_predictions=20))


@pytest.mark.gpu
def test_it_draws_the_same_on_the_gpu(rng):
    x = data().tensors[0]
    torch.manual_seed(0)
    expected = fitted().sample(x, 4)
    torch.manual_seed(0)
    posterior = fitted(network().cuda())
    got = posterior.sample(x.cuda(), 4)
    assert got.is_cuda
    assert torch.allclose(got.cpu(), expected, atol=0.05)
    pool = torch.from_numpy(draws(rng)).cuda()
    assert nngp_variance(pool, pool[:3]).is_cuda
    assert nngp_batch(pool, pool[:3], 3).tolist() == nngp_batch(pool.cpu(), pool[:3].cpu(), 3).tolist()

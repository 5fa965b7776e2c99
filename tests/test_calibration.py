"""Calibration from held-out predictions, against scipy and what the truth was drawn from."""

import copy

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp, softmax
from torch import nn
from torch.utils.data import TensorDataset

from baal_widgets import ModelWrapper, TrainingArgs
from baal_widgets.bayesian.dropout import MCDropoutModule
from baal_widgets.calibration import (
    CalibratedModel,
    DirichletCalibration,
    DirichletCalibrator,
    TemperatureScaling,
    odir,
)
from baal_widgets.metrics import accuracy, ece, nll


def drawn(p, rng):
    """A truth for each row of probabilities."""
    return (rng.random((len(p), 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=p.shape[1] - 1)


@pytest.fixture
def told(rng):
    """Logits twice as sure as they should be, and truths."""
    z = rng.normal(size=(400, 4)) * 3
    return z, drawn(softmax(z / 2, axis=1), rng)


# One temperature


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_the_truth_was_drawn_with_is_found(temperature, rng):
    z = rng.normal(size=(20000, 5)) * 3
    y = drawn(softmax(z / temperature, axis=1), rng)
    scaling = TemperatureScaling().fit(z, y)
    assert scaling.temperature == pytest.approx(temperature, rel=0.03)
    assert ece(scaling(z), y) < 0.015
    if temperature != 1:
        assert ece(scaling(z), y) < ece(softmax(z, axis=1), y) / 4


@settings(max_examples=30)
@given(st.integers(5, 60), st.integers(2, 6), st.floats(0.3, 6), st.integers(0, 99))
def test_no_other_temperature_is_likelier(n, classes, size, seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, classes)) * size
    y = drawn(softmax(z / 2, axis=1), rng)
    found = TemperatureScaling().fit(z, y).temperature
    reference = scipy.optimize.minimize_scalar(
        lambda log_t: -log_softmax(z / np.exp(log_t), axis=1)[np.arange(n), y].mean(),
        bounds=np.log([0.01, 100]), method="bounded", options={"xatol": 1e-10},
    )  # fmt: skip
    assert -log_softmax(z / found, axis=1)[np.arange(n), y].mean() <= reference.fun + 1e-12
    if 0.02 < found < 50:
        p = softmax(z / found, axis=1)
        assert ((p * z).sum(axis=1) - z[np.arange(n), y]).mean() == pytest.approx(0, abs=1e-9 * size)


@settings(max_examples=20)
@given(st.floats(0.1, 10))
def test_logits_that_are_larger_need_a_temperature_as_much_higher(scale):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200, 3)) * 2
    y = drawn(softmax(z, axis=1), rng)
    plain, scaled = TemperatureScaling().fit(z, y), TemperatureScaling().fit(z * scale + 5, y)
    assert scaled.temperature == pytest.approx(plain.temperature * scale)
    assert scaled(z * scale) == pytest.approx(plain(z))


def test_scaling_leaves_the_likeliest_class_and_the_input_as_they_are(told):
    z, y = told
    before = z.copy()
    scaling = TemperatureScaling().fit(z, y)
    p = scaling(z)
    assert (p.argmax(1) == z.argmax(1)).all()
    assert accuracy(p, y) == accuracy(z, y)
    assert nll(p, y) < nll(softmax(z, axis=1), y)
    assert np.array_equal(z, before)
    assert np.allclose(p, softmax(z / scaling.temperature, axis=1))


def test_probabilities_do_as_well_as_logits_and_the_fit_decides_which_they_are(told):
    z, y = told
    from_logits, from_probabilities = TemperatureScaling().fit(z, y), TemperatureScaling().fit(softmax(z, axis=1), y)
    assert from_probabilities.temperature == pytest.approx(from_logits.temperature)
    assert from_probabilities(softmax(z, axis=1)) == pytest.approx(from_logits(z))
    ambiguous = np.array([[0.3, 0.7]])
    cold = TemperatureScaling()
    assert cold(ambiguous) == pytest.approx(ambiguous)
    cold.fit(z, y)
    cold.temperature = 1.0
    assert cold(ambiguous) == pytest.approx(softmax(ambiguous, axis=1))
    assert cold.fit(softmax(z, axis=1), y).temperature == pytest.approx(from_logits.temperature)


def test_items_that_are_all_right_end_cold_and_guesses_end_hot(rng):
    z = rng.normal(size=(100, 3))
    assert TemperatureScaling().fit(z, z.argmax(1)).temperature == pytest.approx(0.01)
    assert TemperatureScaling().fit(z, z.argmin(1)).temperature == pytest.approx(100)


@pytest.mark.parametrize("kind", [TemperatureScaling, DirichletCalibration])
def test_draws_are_pooled_before_they_are_calibrated(kind, rng):
    draws = rng.normal(size=(300, 3, 8)) * 3
    y = rng.integers(3, size=300)
    pooled = logsumexp(log_softmax(draws, axis=1), axis=2) - np.log(8)
    from_draws, from_pool = kind().fit(draws, y), kind(from_logits=True).fit(pooled, y)
    assert from_draws(draws).shape == (300, 3)
    assert from_draws(draws) == pytest.approx(from_pool(pooled), abs=1e-6)
    assert from_draws(draws[..., ::-1]) == pytest.approx(from_draws(draws))
    means = kind().fit(softmax(draws, axis=1), y)
    assert means(softmax(draws, axis=1)) == pytest.approx(from_draws(draws), abs=1e-6)


@pytest.mark.parametrize("kind", [TemperatureScaling, DirichletCalibration])
def test_what_goes_in_comes_out_calibrated_in_its_own_kind(kind, told):
    z, y = told
    calibration = kind().fit(z, y)
    expected = calibration(z)
    assert isinstance(expected, np.ndarray)
    assert calibration(z.astype(np.float32)).dtype == np.float32
    tensor = calibration(torch.from_numpy(z))
    assert torch.allclose(tensor, torch.from_numpy(expected))
    maps = z.reshape(4, 10, 10, 4).transpose(0, 3, 1, 2)[..., None]
    assert calibration(maps).shape == (4, 4, 10, 10)
    assert calibration(maps).transpose(0, 2, 3, 1).reshape(400, 4) == pytest.approx(expected)
    assert kind().fit(maps, y.reshape(4, 10, 10))(z) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", [TemperatureScaling, DirichletCalibration])
def test_a_yes_or_no_model_is_calibrated_as_its_two_classes(kind, rng):
    z, y = rng.normal(size=(200, 1)) * 3, rng.integers(2, size=200)
    both = np.concatenate([-z, z], axis=1) / 2
    assert kind().fit(z, y)(z) == pytest.approx(kind().fit(both, y)(both), abs=1e-6)
    assert kind().fit(z, y[:, None])(z).shape == (200, 2)


@pytest.mark.parametrize("kind", [TemperatureScaling, DirichletCalibration])
def test_certain_predictions_stay_finite(kind):
    p = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    calibration = kind(from_logits=False).fit(p, [0, 1, 2, 0, 1, 0])
    assert np.isfinite(calibration(p)).all()
    assert nll(calibration(p), [0, 1, 2, 0, 1, 0]) < nll(p, [0, 1, 2, 0, 1, 0])


@pytest.mark.parametrize("kind", [TemperatureScaling, DirichletCalibration])
def test_held_out_predictions_that_do_not_fit_are_refused(kind, rng):
    z = rng.normal(size=(6, 3))
    with pytest.raises(ValueError, match="targets shaped"):
        kind().fit(z, [0, 1])
    with pytest.raises(ValueError, match="got NaN"):
        kind().fit(np.where(z == z.max(), np.nan, z), [0, 1, 2] * 2)
    with pytest.raises(ValueError, match=r"predictions\[..., None\]"):
        kind().fit(rng.normal(size=(6, 3, 4, 4)), rng.integers(3, size=(6, 4, 4)))
    with pytest.raises(ValueError, match=r"\[item, class, ..., draw\], got \(3,\)"):
        kind()(np.zeros(3))


# A map of log-probabilities


def regularised(parameters, z, y, reg, mu):
    k = z.shape[1]
    weight, bias = parameters[: k * k].reshape(k, k), parameters[k * k :]
    off = weight - np.diag(np.diag(weight))
    penalty = reg * (off**2).sum() / (k * (k - 1)) + mu * (bias**2).mean()
    return -log_softmax(log_softmax(z, axis=1) @ weight.T + bias, axis=1)[np.arange(len(z)), y].mean() + penalty


def of(calibration):
    return np.concatenate([calibration.weight.flatten(), calibration.bias])


IDENTITY = np.concatenate([np.eye(4).ravel(), np.zeros(4)])


@pytest.mark.parametrize(("reg", "mu"), [(0.01, None), (1.0, 0.001), (1e-4, 0.5)])
def test_the_map_is_the_one_that_scipy_finds(reg, mu, told):
    z, y = told
    found = DirichletCalibration(reg, mu).fit(z, y)
    mu = reg if mu is None else mu
    reference = scipy.optimize.minimize(regularised, IDENTITY, (z, y, reg, mu), options={"gtol": 1e-7})
    assert regularised(of(found), z, y, reg, mu) <= reference.fun + 1e-9
    assert np.abs(scipy.optimize.approx_fprime(of(found), regularised, 1e-6, z, y, reg, mu)).max() < 1e-5
    assert of(found) == pytest.approx(reference.x, abs=1e-3)


def test_calibrated_predictions_are_left_alone(rng):
    p = rng.dirichlet(np.ones(3), 20000)
    y = drawn(p, rng)
    found = DirichletCalibration(reg=1e-3).fit(p, y)
    assert found.weight.numpy() == pytest.approx(np.eye(3), abs=0.05)
    assert found.bias.numpy() == pytest.approx(np.zeros(3), abs=0.05)
    assert np.abs(found(p) - p).max() < 0.05


def test_a_distortion_that_no_temperature_mends_is_mended_on_other_items(rng):
    z = rng.normal(size=(6000, 3)) * 2
    y = drawn(softmax(log_softmax(z, axis=1) @ [[0.5, 0.4, 0], [0, 1.2, 0], [0, 0, 0.8]] + [1, 0, -1], axis=1), rng)
    fit, other = slice(0, 4000), slice(4000, None)
    found = DirichletCalibration(reg=1e-4).fit(z[fit], y[fit])
    scaling = TemperatureScaling().fit(z[fit], y[fit])
    mended, scaled = nll(found(z[other]), y[other]), nll(scaling(z[other]), y[other])
    assert mended < scaled - 0.1
    true = softmax(log_softmax(z[other], axis=1) @ [[0.5, 0.4, 0], [0, 1.2, 0], [0, 0, 0.8]] + [1, 0, -1], axis=1)
    assert np.abs(found(z[other]) - true).mean() < 0.02


def test_a_huge_penalty_leaves_one_weight_and_one_intercept_a_class(told):
    z, y = told

    def of_diagonal(parameters):
        return regularised(np.concatenate([np.diag(parameters[:4]).ravel(), parameters[4:]]), z, y, 0, 0.01)

    reference = scipy.optimize.minimize(of_diagonal, [1.0] * 4 + [0.0] * 4, options={"gtol": 1e-7})
    found = DirichletCalibration(reg=1e9, mu=0.01).fit(z, y)
    assert found.weight.numpy() == pytest.approx(np.diag(reference.x[:4]), abs=1e-3)
    assert found.bias.numpy() == pytest.approx(reference.x[4:], abs=1e-3)
    without = DirichletCalibration(reg=1e9, mu=1e9).fit(z, y)
    assert without.bias.numpy() == pytest.approx(np.zeros(4), abs=1e-6)


@settings(max_examples=10)
@given(st.integers(1, 30), st.floats(0, 30), st.sampled_from([0.0, 1e-4, 1.0, 1e6]), st.integers(0, 99))
def test_the_map_is_never_worse_than_none(n, size, reg, seed):
    rng = np.random.default_rng(seed)
    z, y = rng.normal(size=(n, 4)) * size, rng.integers(4, size=n)
    found = DirichletCalibration(reg, 0.0, from_logits=True).fit(z, y)
    assert np.isfinite(of(found)).all()
    assert regularised(of(found), z, y, reg, 0) <= regularised(IDENTITY, z, y, reg, 0) + 1e-12


def test_before_a_fit_predictions_come_back_as_probabilities(told):
    z, _ = told
    assert DirichletCalibration()(z) == pytest.approx(softmax(z, axis=1))
    assert TemperatureScaling()(z) == pytest.approx(softmax(z, axis=1))


def test_maps_that_make_no_sense_are_refused(told):
    z, y = told
    with pytest.raises(ValueError, match="0 or more, got -1 and 2"):
        DirichletCalibration(-1, 2)
    with pytest.raises(ValueError, match="4 classes, got 3"):
        DirichletCalibration().fit(z, y)(z[:, :3])


# Baal's calibrator


def network(classes=3):
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, classes))


@pytest.fixture
def learned(rng):
    """A model far too sure of itself with its wrapper, and two sets of held-out items."""
    torch.manual_seed(0)
    model = network()
    with torch.no_grad():
        model[4].weight *= 12
    x = torch.from_numpy(rng.normal(size=(300, 5)).astype(np.float32))
    y = torch.from_numpy(rng.integers(3, size=300))
    return (
        ModelWrapper(model, TrainingArgs(use_cuda=False)),
        TensorDataset(x[:200], y[:200]),
        TensorDataset(x[200:], y[200:]),
    )


def state(model):
    return copy.deepcopy(model.state_dict()), [vars(module)["training"] for module in model.modules()]


def same(one, other):
    return one[1] == other[1] and all(torch.equal(one[0][name], other[0][name]) for name in one[0])


def calibrator_of(wrapper, **options):
    return DirichletCalibrator(wrapper, 3, **{"lr": 0.02, "reg_factor": 0.01, "training_duration": 3, **options})


@pytest.mark.parametrize("training", [True, False])
def test_calibration_leaves_the_model_as_it_was_bit_for_bit(training, learned):
    wrapper, train, test = learned
    wrapper.model.train(training)
    before = state(wrapper.model)
    calibrator = calibrator_of(wrapper)
    calibrator.calibrate(train, test, use_cuda=False, double_fit=True)
    calibrator.calibrated_model.train()(train.tensors[0])
    assert same(state(wrapper.model), before)
    weights = calibrator.calibrated_model.state_dict()
    assert all(torch.equal(weights[f"model.{name}"], values) for name, values in before[0].items())
    assert not torch.equal(calibrator.dirichlet_linear.weight, torch.eye(3))


@pytest.mark.parametrize(
    ("positional", "named"),
    [
        ((False,), {}),
        ((False, True), {}),
        ((), {"use_cuda": False, "batch_size": 50}),
        ((50, 3, False, True), {}),
        ((50, 3), {"use_cuda": False, "double_fit": True}),
    ],
)
def test_both_styles_of_baal_are_understood(positional, named, learned):
    wrapper, train, test = learned
    calibrator = calibrator_of(wrapper)
    history, weights = calibrator.calibrate(train, test, *positional, **named)
    double = True in positional or named.get("double_fit", False)
    assert len(history) == (6 if double else 3)
    losses = [epoch["test_loss"] for epoch in history]
    assert losses[2] < losses[0]
    for name, values in calibrator.calibrated_model.state_dict().items():
        assert torch.equal(weights[name], values)


def test_the_calibrated_model_is_the_best_there_was_and_better_than_before(learned):
    wrapper, train, test = learned
    calibrator = calibrator_of(wrapper)
    history, _ = calibrator.calibrate(train, test, use_cuda=False)
    x, y = test.tensors
    before, after = wrapper.model.eval()(x).softmax(1), calibrator.calibrated_model.eval()(x).softmax(1)
    assert nll(after, y) == pytest.approx(min(epoch["test_loss"] for epoch in history), rel=1e-5)
    assert nll(after, y) < nll(before, y) - 0.1
    assert calibrator.metrics["test_loss"].value == pytest.approx(nll(after, y), rel=1e-5)
    assert calibrator.metrics["test_ece"].value == pytest.approx(ece(after, y), rel=1e-4)
    by_class = [ece(after[y == c], y[y == c]) for c in range(3)]
    assert calibrator.metrics["test_ece_per_cls"].value == pytest.approx(by_class, rel=1e-4)


def test_where_training_makes_it_worse_the_model_stays_as_it_came(learned):
    wrapper, train, test = learned
    calibrator = calibrator_of(wrapper, lr=500.0)
    history, weights = calibrator.calibrate(train, test, use_cuda=False)
    x, y = test.tensors
    assert min(epoch["test_loss"] for epoch in history) > nll(wrapper.model.eval()(x).softmax(1), y)
    assert torch.equal(weights["dirichlet_linear.weight"], torch.eye(3))
    assert torch.allclose(calibrator.calibrated_model.eval()(x).softmax(1), wrapper.model(x).softmax(1), atol=1e-6)


def test_long_training_finds_what_the_full_batch_finds(learned):
    wrapper, train, test = learned
    calibrator = calibrator_of(wrapper, lr=0.05, reg_factor=0.1, mu=0.2, training_duration=12)
    calibrator.calibrate(train, train, use_cuda=False, batch_size=25, double_fit=True)
    x, y = train.tensors
    z, y = wrapper.model.eval()(x).detach().double().numpy(), y.numpy()
    layer = calibrator.dirichlet_linear
    trained = torch.cat([layer.weight.flatten(), layer.bias]).detach().double().numpy()
    best = of(DirichletCalibration(0.1, 0.2, from_logits=True).fit(z, y))
    identity = np.concatenate([np.eye(3).ravel(), np.zeros(3)])
    to_gain = regularised(identity, z, y, 0.1, 0.2) - regularised(best, z, y, 0.1, 0.2)
    assert 0 <= regularised(trained, z, y, 0.1, 0.2) - regularised(best, z, y, 0.1, 0.2) < 0.05 * to_gain


def test_each_calibration_is_of_the_model_as_it_is_by_then(learned):
    wrapper, train, test = learned
    calibrator = calibrator_of(wrapper)
    calibrator.calibrate(train, test, use_cuda=False)
    with torch.no_grad():
        wrapper.model[4].weight.mul_(0)
    assert not torch.equal(calibrator.calibrated_model.model[4].weight, wrapper.model[4].weight)
    calibrator.calibrate(train, test, use_cuda=False)
    assert torch.equal(calibrator.calibrated_model.model[4].weight, wrapper.model[4].weight)


def test_intercepts_may_go_free_and_the_penalty_is_that_of_the_paper(learned):
    wrapper, _, _ = learned
    assert calibrator_of(wrapper).mu == 0.01
    calibrator = calibrator_of(wrapper, mu=0)
    assert calibrator.mu == 0
    assert calibrator.l2_reg().item() == 0
    weight, bias = torch.tensor([[5.0, 1, 2], [3, 5, 0], [0, 1, 5]]), torch.tensor([3.0, 0, 3])
    assert float(odir(weight, bias, 2, 0.5)) == pytest.approx(2 * 15 / 6 + 0.5 * 18 / 3)
    with torch.no_grad():
        calibrator.dirichlet_linear.weight.copy_(weight)
        calibrator.dirichlet_linear.bias.copy_(bias)
    assert calibrator.l2_reg().item() == pytest.approx(0.01 * 15 / 6)


def test_making_a_calibrator_leaves_the_global_seed_alone(learned):
    wrapper, _, _ = learned
    before = torch.get_rng_state()
    calibrator_of(wrapper)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_layer_works_on_the_log_probabilities_of_maps_and_yes_or_no_models_too(rng):
    maps = torch.from_numpy(rng.normal(size=(2, 3, 4, 5)))
    model = CalibratedModel(nn.Identity(), 3)
    assert torch.allclose(model(maps), maps.float().log_softmax(1), atol=1e-6)
    with torch.no_grad():
        model.dirichlet_linear.weight.copy_(torch.eye(3)[[1, 2, 0]])
    assert torch.allclose(model(maps), maps.float().log_softmax(1)[:, [1, 2, 0]], atol=1e-6)
    yes = torch.from_numpy(rng.normal(size=(4, 1)))
    assert torch.allclose(CalibratedModel(nn.Identity(), 2)(yes).softmax(1)[:, 1:], yes.sigmoid().float())
    with pytest.raises(ValueError, match="2 classes, got 3"):
        CalibratedModel(nn.Identity(), 2)(maps)
    with pytest.raises(ValueError, match="two classes, got 1"):
        DirichletCalibrator(ModelWrapper(nn.Identity()), 1, lr=0.1, reg_factor=0.1)


def test_gradients_reach_the_input_in_eval_and_stop_at_the_layer_in_training(learned):
    wrapper, train, _ = learned
    model, x = CalibratedModel(wrapper.model, 3), train.tensors[0].clone().requires_grad_()
    model.eval()(x).sum().backward()
    assert x.grad is not None
    model.zero_grad()
    model.train()(x).sum().backward()
    assert [name for name, value in model.named_parameters() if value.grad is not None] == [
        "dirichlet_linear.weight", "dirichlet_linear.bias",
    ]  # fmt: skip


def test_a_stochastic_model_stays_so_behind_the_layer(learned):
    wrapper, train, test = learned
    mc = ModelWrapper(MCDropoutModule(wrapper.model), TrainingArgs(use_cuda=False))
    calibrator = calibrator_of(mc)
    calibrator.calibrate(train, test, use_cuda=False)
    model, x = calibrator.calibrated_model.eval(), test.tensors[0]
    assert not torch.equal(model(x), model(x))


def test_an_argument_that_does_not_exist_is_refused(learned):
    wrapper, train, test = learned
    with pytest.raises(TypeError, match="no argument 'epochs'"):
        calibrator_of(wrapper).calibrate(train, test, use_cuda=False, epochs=3)


@pytest.mark.gpu
def test_calibration_works_on_the_gpu(told, learned):
    z, y = told
    on_gpu = torch.from_numpy(z).cuda()
    for kind in (TemperatureScaling, DirichletCalibration):
        calibrated = kind().fit(on_gpu, y)(on_gpu)
        assert calibrated.is_cuda
        assert calibrated.cpu().numpy() == pytest.approx(kind().fit(z, y)(z), abs=1e-6)
    wrapper, train, test = learned
    history, _ = calibrator_of(wrapper).calibrate(train, test, use_cuda=True)
    assert history[-1]["test_loss"] < history[0]["test_loss"]

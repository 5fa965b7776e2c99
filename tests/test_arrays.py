"""What goes in and out of the numbers, and what a model's outputs are taken for."""

import numpy as np
import pytest
import torch

from baal_widgets.arrays import are_logits, as_numpy, as_tensor, to_probabilities


@pytest.fixture
def probabilities(rng):
    return rng.dirichlet(np.ones(5), size=(6, 4)).transpose(0, 2, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_probabilities_are_known_as_such_in_every_precision(probabilities, dtype):
    rounded = torch.from_numpy(probabilities).to(dtype)
    assert are_logits(rounded) is False
    assert are_logits(rounded.float()) is False  # the rounding stays when the dtype is gone
    assert torch.equal(to_probabilities(rounded).double(), rounded.double())


@pytest.mark.parametrize("shift", [-3.0, 0.0, 3.0])
def test_logits_are_known_as_such_wherever_they_lie(rng, shift):
    assert are_logits(rng.normal(size=(6, 5, 4)) + shift) is True


def test_logits_between_zero_and_one_are_logits_unless_they_sum_to_one(rng):
    assert are_logits(rng.uniform(0.3, 1.0, size=(6, 5, 4))) is True


def test_one_item_with_logits_makes_all_of_them_logits(probabilities):
    probabilities[3] += 0.1
    assert are_logits(probabilities) is True


@pytest.mark.parametrize("item", [0, 999, 1000, 2999])
def test_one_item_of_thousands_with_logits_makes_all_of_them_logits(rng, item):
    p = rng.dirichlet(np.ones(5), size=(3000, 4)).transpose(0, 2, 1)
    assert are_logits(p) is False
    p[item] *= 0.9
    assert are_logits(p) is True


def test_draws_that_sum_to_one_only_on_average_are_logits(probabilities):
    probabilities[..., 0] *= 0.5
    probabilities[..., 1] *= 1.5
    assert np.allclose(probabilities.sum(axis=1).mean(axis=-1), 1)
    assert are_logits(probabilities) is True


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_items_that_are_not_finite_have_no_say(probabilities, bad):
    probabilities[0, 0, 0] = bad
    assert are_logits(probabilities) is False
    assert are_logits(probabilities[:0]) is None
    assert are_logits(np.full((2, 3), np.nan)) is None


def test_a_class_ruled_out_in_every_item_does_not_hide_logits(rng):
    logits = rng.normal(size=(6, 3))
    logits[:, 0] = -np.inf
    assert are_logits(logits) is True
    assert to_probabilities(logits)[:, 0].tolist() == [0] * 6


def test_a_yes_or_no_model_gets_its_second_class(rng):
    logit = rng.normal(size=(6, 1, 4)) * 5
    p = to_probabilities(logit)
    assert p.shape == (6, 2, 4)
    assert np.allclose(p[:, 1], 1 / (1 + np.exp(-logit[:, 0])))
    assert np.allclose(to_probabilities(p[:, 1:]), p)


def test_extreme_logits_give_probabilities_that_sum_to_one():
    p = to_probabilities(np.array([[1e4, -1e4, 0.0], [-1e30, 1e30, 1e30]], np.float32))
    assert p.tolist() == [[1, 0, 0], [0, 0.5, 0.5]]


def test_values_that_are_no_probabilities_are_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"from -3 to 2.*from_logits=True"):
        to_probabilities(np.array([[-3.0, 2.0]]), from_logits=False)


def test_rounding_below_zero_is_no_logit():
    p = to_probabilities(np.array([[-1e-9, 1.0 + 1e-9]]))
    assert p.min() == 0
    assert p.max() == pytest.approx(1)


@pytest.mark.parametrize("shape", [(4,), (4, 0), (4, 3, 0)])
def test_shapes_without_an_item_and_a_class_axis_are_refused(shape):
    with pytest.raises(ValueError, match=r"\[item, class, ..., draw\]"):
        to_probabilities(np.zeros(shape))


def test_numpy_gives_numpy_and_a_tensor_gives_a_tensor(probabilities):
    assert isinstance(to_probabilities(probabilities), np.ndarray)
    tensor = to_probabilities(torch.from_numpy(probabilities).float().requires_grad_(), True)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.requires_grad


def test_single_precision_stays_and_half_is_raised(probabilities):
    kept = {np.float16: np.float32, np.float32: np.float32, np.float64: np.float64}
    for given, computed in kept.items():
        assert to_probabilities(probabilities.astype(given)).dtype == computed


def test_awkward_arrays_are_read_as_they_are(probabilities):
    for view in (probabilities[::-1], probabilities.astype(">f8"), probabilities.transpose(2, 1, 0)):
        assert np.array_equal(as_numpy(as_tensor(view)), view)
    probabilities.setflags(write=False)
    assert np.array_equal(as_numpy(as_tensor(probabilities)), probabilities)


@pytest.mark.gpu
def test_cuda_tensors_stay_on_their_device(probabilities):
    given = torch.from_numpy(probabilities).cuda()
    assert to_probabilities(given.half(), True).device == given.device

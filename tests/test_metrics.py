"""Measures of predictions against references, loops and examples worked by hand."""

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st

from baal_widgets.metrics import accuracy, brier, calibration_bins, ece, empty_bins, nll

EVERY = [accuracy, brier, ece, nll]


@pytest.fixture
def told(rng):
    """Probabilities of 500 items and their true classes, which they know something of."""
    p = rng.dirichlet(np.ones(4) / 2, size=500)
    return p, np.array([rng.choice(4, p=0.7 * row + 0.3 / 4) for row in p])


@st.composite
def predictions(draw):
    """`[item, class]` in either precision, with certain and tied rows among them, and targets."""
    items, classes = draw(st.integers(1, 40)), draw(st.integers(2, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    p = rng.dirichlet(np.full(classes, draw(st.sampled_from([0.05, 1.0, 50.0]))), size=items)
    p[rng.random(items) < 0.2] = np.eye(classes)[0]
    p[rng.random(items) < 0.1] = 1 / classes
    return p.astype(draw(st.sampled_from([np.float32, np.float64]))), rng.integers(classes, size=items)


def bins_by_loop(p, y, n_bins):
    held = [[] for _ in range(n_bins)]
    for row, truth in zip(p, y, strict=True):
        place = sum(row.max() >= row.dtype.type(edge / n_bins) for edge in range(1, n_bins))
        held[place].append((row.max(), float(row.argmax() == truth)))
    return held


@given(predictions(), st.integers(1, 15))
def test_bins_hold_what_a_loop_puts_into_them(told, n_bins):
    p, y = told
    bins, held = calibration_bins(p, y, n_bins), bins_by_loop(p, y, n_bins)
    assert bins.count.tolist() == [len(items) for items in held]
    for confidence, right, items in zip(bins.confidence, bins.accuracy, held, strict=True):
        assert np.allclose((confidence, right), np.mean(items, 0) if items else np.nan, equal_nan=True)
    assert ece(p, y, n_bins) == pytest.approx(
        sum(len(items) * abs(np.subtract(*np.mean(items, 0))) for items in held if items) / len(p)
    )


@given(predictions())
def test_accuracy_counts_where_the_largest_is_the_truth(told):
    p, y = told
    assert accuracy(p, y) == pytest.approx((p.argmax(1) == y).mean())
    assert [accuracy(p, y, k) <= accuracy(p, y, k + 1) for k in range(1, p.shape[1])].count(False) == 0
    assert accuracy(p, y, p.shape[1]) == 1


@given(predictions(), st.integers(0, 99))
def test_no_measure_minds_the_order_of_the_items(told, seed):
    p, y = told
    order = np.random.default_rng(seed).permutation(len(p))
    for measure in EVERY:
        assert measure(p, y) == pytest.approx(measure(p[order], y[order]), rel=1e-5)


def test_accuracy_likelihood_and_brier_are_those_of_sklearn(told):
    p, y = told
    assert accuracy(p, y) == pytest.approx(sklearn.metrics.accuracy_score(y, p.argmax(1)))
    assert accuracy(p, y, 2) == pytest.approx(sklearn.metrics.top_k_accuracy_score(y, p, k=2))
    assert nll(p, y) == pytest.approx(sklearn.metrics.log_loss(y, p))
    assert brier(p, y) == pytest.approx(np.mean(np.sum((p - np.eye(4)[y]) ** 2, axis=1)))
    two = np.stack([1 - p[:, 0], p[:, 0]], axis=1)
    assert brier(two, y == 0) == pytest.approx(2 * sklearn.metrics.brier_score_loss(y == 0, p[:, 0]))


@pytest.mark.slow  # the import
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of what torchmetrics imports
def test_ece_is_that_of_torchmetrics(told):
    from torchmetrics.functional.classification import multiclass_calibration_error

    p, y = map(torch.from_numpy, told)
    for n in (1, 5, 10, 15, 20):
        assert ece(p, y, n) == pytest.approx(float(multiclass_calibration_error(p, y, 4, n, "l1")), abs=1e-5)


def test_a_hand_worked_example():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    y = np.array([0, 1, 0, 1])
    assert accuracy(p, y) == 0.75
    assert nll(p, y) == pytest.approx(-np.log([0.9, 0.1, 0.6, 0.7]).mean())
    assert brier(p, y) == pytest.approx((0.02 + 1.62 + 0.32 + 0.18) / 4)
    assert ece(p, y) == pytest.approx((2 * abs(0.9 - 0.5) + abs(0.6 - 1) + abs(0.7 - 1)) / 4)


def test_a_perfect_predictor_has_no_error_at_all():
    p = np.eye(3)[[0, 1, 2, 1]]
    assert (accuracy(p, [0, 1, 2, 1]), nll(p, [0, 1, 2, 1]), brier(p, [0, 1, 2, 1]), ece(p, [0, 1, 2, 1])) == (
        1,
        0,
        0,
        0,
    )


def test_full_confidence_falls_in_the_last_bin_and_edges_in_the_bin_they_open():
    for dtype in (np.float32, np.float64):
        p = np.array([[1.0, 0.0], [0.7, 0.3], [0.6, 0.4], [0.5, 0.5]], dtype)
        assert calibration_bins(p, [0, 0, 0, 0]).count.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 0, 1]
    assert calibration_bins(p, [0, 0, 0, 0]).edges.tolist() == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]


def test_an_undecided_model_is_not_always_right():
    assert accuracy(np.full((4, 4), 0.25), [0, 1, 2, 3]) == 0.25
    assert accuracy(np.full((4, 4), 0.25), [0, 1, 2, 3], k=2) == 0.5


def test_a_certain_mistake_costs_much_but_not_everything():
    assert nll(np.array([[1.0, 0.0]]), [1]) == pytest.approx(708.4, abs=0.1)
    assert nll(np.array([[1.0, 0.0]], np.float32), [1]) == pytest.approx(87.3, abs=0.1)


def test_bins_of_parts_add_up_to_the_bins_of_the_whole(told):
    p, y = told
    whole, parts = calibration_bins(p, y), empty_bins()
    for part in (slice(0, 7), slice(7, 8), slice(8, 500)):
        parts = parts + calibration_bins(p[part], y[part])
    assert np.array_equal(parts.count, whole.count)
    assert np.allclose(parts.confidence, whole.confidence, equal_nan=True)
    assert np.allclose(parts.accuracy, whole.accuracy, equal_nan=True)
    assert parts.ece == pytest.approx(whole.ece)
    with pytest.raises(ValueError, match="10 and 3 bins"):
        parts + empty_bins(3)


@pytest.mark.parametrize("measure", EVERY)
def test_pixels_count_as_items(measure, told):
    p, y = told
    maps, truth = p.reshape(5, 10, 10, 4).transpose(0, 3, 1, 2), y.reshape(5, 10, 10)
    assert measure(maps, truth) == pytest.approx(measure(p, y))
    assert measure(maps, truth[:, None]) == pytest.approx(measure(p, y))


@pytest.mark.parametrize("measure", EVERY)
def test_tensors_lists_and_columns_of_targets_are_all_understood(measure, told):
    p, y = told
    expected = measure(p, y)
    tensor = torch.from_numpy(p).requires_grad_()
    for targets in (
        torch.from_numpy(y),
        torch.from_numpy(y)[:, None],
        y.tolist(),
        y.astype(np.uint8),
        y.astype(float),
    ):
        assert measure(tensor, targets) == pytest.approx(expected)
    assert type(measure(tensor, y)) is float


@pytest.mark.parametrize("measure", EVERY)
def test_a_yes_or_no_model_is_measured_as_its_two_classes(measure, rng):
    yes, y = rng.uniform(size=(50, 1)), rng.integers(2, size=50)
    assert measure(yes, y) == pytest.approx(measure(np.concatenate([1 - yes, yes], axis=1), y))


@pytest.mark.parametrize("measure", EVERY)
def test_nothing_to_measure_is_an_error(measure):
    with pytest.raises(ValueError, match=r"at least one item, got \(0, 3\)"):
        measure(np.zeros((0, 3)), np.zeros(0, int))


@pytest.mark.parametrize("measure", EVERY)
@pytest.mark.parametrize(
    ("targets", "complaint"),
    [
        ([0, 1], r"shaped \(3,\).*got \(2,\)"),
        ([[0, 1]] * 3, r"got \(3, 2\)"),
        ([0, 1, -1], "0 to 1, got values from -1 to 1.*marked -1"),
        ([0, 1, 2], "0 to 1, got values from 0 to 2"),
        ([0, 1, 0.5], "whole numbers"),
    ],
)
def test_targets_that_do_not_fit_are_refused(measure, targets, complaint):
    with pytest.raises(ValueError, match=complaint):
        measure(np.full((3, 2), 0.5), np.array(targets))


@pytest.mark.parametrize("measure", [brier, ece, nll])
def test_logits_are_refused_where_only_probabilities_make_sense(measure):
    with pytest.raises(ValueError, match="Expected probabilities, got values from -2 to 5"):
        measure(np.array([[5.0, -2.0]]), [0])


@pytest.mark.parametrize("n", [0, -1])
def test_bins_and_places_start_at_one(n):
    with pytest.raises(ValueError, match="at least one bin"):
        ece(np.eye(2), [0, 1], n_bins=n)
    with pytest.raises(ValueError, match="between 1 and the 2 classes"):
        accuracy(np.eye(2), [0, 1], k=n)


def test_a_model_gone_wrong_is_not_right_and_shows(told):
    p, y = told
    p[3] = np.nan
    assert accuracy(p, y) <= 499 / 500
    assert accuracy(p[3:4], y[3:4]) == 0
    assert np.isnan([nll(p, y), brier(p, y), ece(p, y)]).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
@pytest.mark.parametrize("measure", EVERY)
def test_predictions_may_lie_on_the_gpu_and_targets_elsewhere(measure, told):
    p, y = told
    assert measure(torch.from_numpy(p).cuda(), y) == pytest.approx(measure(p, y))

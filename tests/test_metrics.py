"""Measures of predictions against references, loops and examples worked by hand."""

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st

from baal_widgets import metrics
from baal_widgets.metrics import (
    accuracy,
    average_precision,
    brier,
    calibration_bins,
    classification_report,
    classwise_ece,
    confusion_matrix,
    ece,
    empty_bins,
    f1,
    nll,
    precision,
    recall,
)


def macro_f1(p, y):
    return f1(p, y, average="macro")


def mass_ece(p, y):
    return ece(p, y, binning="mass")


def micro_average_precision(p, y):
    return average_precision(p, y, average="micro")


EVERY = [accuracy, brier, classwise_ece, ece, macro_f1, mass_ece, micro_average_precision, nll]


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


@pytest.mark.parametrize("measure", [average_precision, brier, classwise_ece, ece, nll])
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


def test_every_promised_name_is_there():
    assert metrics.__all__ == sorted(metrics.__all__)
    assert [name for name in metrics.__all__ if not hasattr(metrics, name)] == []


@given(predictions())
def test_the_confusion_matrix_counts_pairs_of_true_and_likeliest_class(told):
    p, y = told
    counted = np.zeros((p.shape[1],) * 2, int)
    for row, truth in zip(p, y, strict=True):
        counted[truth, row.argmax()] += 1
    matrix = confusion_matrix(p, y)
    assert matrix.tolist() == counted.tolist()
    assert matrix.dtype == np.int64
    assert confusion_matrix(torch.from_numpy(p).log(), torch.from_numpy(y)).tolist() == counted.tolist()


@given(predictions(), st.sampled_from([None, "macro", "micro", "weighted"]))
def test_precision_recall_and_f1_are_those_of_sklearn(told, average):
    p, y = told
    for ours, theirs in (
        (precision, sklearn.metrics.precision_score),
        (recall, sklearn.metrics.recall_score),
        (f1, sklearn.metrics.f1_score),
    ):
        expected = theirs(y, p.argmax(1), labels=range(p.shape[1]), average=average, zero_division=0)
        assert ours(p, y, average=average) == pytest.approx(expected)
        assert isinstance(ours(p, y, average=average), np.ndarray if average is None else float)


def test_the_report_is_that_of_sklearn(told):
    p, y = told
    p[:, 1] = 0  # a class that is never taken
    report = classification_report(p, y, classes=["ant", "bee", "cat", "dog"])
    expected = sklearn.metrics.classification_report(
        y, p.argmax(1), target_names=["ant", "bee", "cat", "dog"], output_dict=True, zero_division=0
    )
    for row in report.rows:
        theirs = expected[row["class"]]
        assert (row["precision"], row["recall"], row["f1"], row["support"]) == pytest.approx(
            (theirs["precision"], theirs["recall"], theirs["f1-score"], theirs["support"])
        )
    assert report.accuracy == pytest.approx(expected["accuracy"])
    assert report.averaged("f1", "weighted") == pytest.approx(expected["weighted avg"]["f1-score"])
    assert [line.split()[0] for line in str(report).splitlines()[1:]] == [
        "ant", "bee", "cat", "dog", "macro", "weighted", "accuracy",
    ]  # fmt: skip
    assert len({len(line) for line in str(report).splitlines()}) == 1


def test_classes_without_names_are_called_by_their_index_and_names_must_be_as_many():
    assert [row["class"] for row in classification_report(np.eye(3), [0, 1, 2]).rows] == ["0", "1", "2"]
    with pytest.raises(ValueError, match="each of the 3 classes, got 2"):
        classification_report(np.eye(3), [0, 1, 2], classes=["a", "b"])


def test_long_class_names_widen_the_table():
    lines = str(classification_report(np.eye(2), [0, 1], classes=["a name of many letters", "b"])).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "a name of many letters      1.000   1.000  1.000        1"


def test_a_nan_is_taken_for_no_class_and_refused():
    with pytest.raises(ValueError, match="NaN in 1 of 2 items"):
        confusion_matrix(np.array([[np.nan, 1.0], [0.5, 0.5]]), [0, 1])


@pytest.mark.parametrize("measure", [average_precision, f1, precision, recall])
def test_an_average_that_does_not_exist_is_refused(measure):
    with pytest.raises(ValueError, match="'macro', 'micro', 'weighted' or None, got 'mean'"):
        measure(np.eye(2), [0, 1], average="mean")
    with pytest.raises(ValueError, match="'macro' or None, got 'mean'"):
        classwise_ece(np.eye(2), [0, 1], average="mean")


@given(predictions())
def test_average_precision_is_that_of_sklearn(told):
    p, y = told
    of_class = np.eye(p.shape[1])[y]
    there = of_class.any(axis=0)
    expected = [sklearn.metrics.average_precision_score(of_class[:, c], p[:, c]) for c in np.flatnonzero(there)]
    areas = average_precision(p, y)
    assert areas[there] == pytest.approx(expected, rel=1e-5)
    assert np.isnan(areas[~there]).all()
    assert average_precision(p, y, average="macro") == pytest.approx(np.mean(expected), rel=1e-5)
    weighted = np.average(expected, weights=of_class.sum(axis=0)[there])
    assert average_precision(p, y, average="weighted") == pytest.approx(weighted, rel=1e-5)
    micro = sklearn.metrics.average_precision_score(of_class.ravel(), p.ravel())
    assert average_precision(p, y, average="micro") == pytest.approx(micro, rel=1e-5)


def test_a_class_with_a_nan_has_no_average_precision(told):
    p, y = told
    p[0, 2] = np.nan
    assert np.isnan(average_precision(p, y)).tolist() == [False, False, True, False]


@pytest.mark.gpu
@pytest.mark.parametrize("measure", EVERY)
def test_predictions_may_lie_on_the_gpu_and_targets_elsewhere(measure, told):
    p, y = told
    assert measure(torch.from_numpy(p).cuda(), y) == pytest.approx(measure(p, y))

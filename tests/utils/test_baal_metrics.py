"""Baal's metric objects say of many batches what the functions say of all items at once."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baal_widgets import metrics
from baal_widgets.utils import get_metric
from baal_widgets.utils.metrics import (
    ECE,
    F1,
    Accuracy,
    ClassificationReport,
    ECE_PerCLs,
    Loss,
    Metrics,
    PRAuC,
    Precision,
    Recall,
    transpose_and_flatten,
)

OF_CLASSES = [Precision, Recall, F1, PRAuC]


@pytest.fixture
def baal():
    """Baal's own metrics."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from baal.utils import metrics as baal
    return baal


@pytest.fixture
def told(rng):
    """Logits of 90 items and their true classes."""
    return torch.from_numpy(rng.normal(size=(90, 3)) * 2), torch.from_numpy(rng.integers(3, size=90))


def fed(metric, output, target, cuts=()):
    for x, y in zip(torch.tensor_split(output, cuts), torch.tensor_split(target, cuts), strict=True):
        metric.update(x, y)
    return metric


@settings(max_examples=25)
@given(st.sets(st.integers(1, 89), max_size=5), st.booleans())
def test_how_items_are_cut_into_batches_does_not_matter(cuts, as_probabilities):
    rng = np.random.default_rng(0)
    x, y = torch.from_numpy(rng.normal(size=(90, 3)) * 2), torch.from_numpy(rng.integers(3, size=90))
    p = x.softmax(1)
    cuts = sorted(cuts)
    given = p if as_probabilities else x
    assert fed(Accuracy(), given, y, cuts).value == pytest.approx(metrics.accuracy(p, y))
    assert fed(ECE(7), given, y, cuts).value == pytest.approx(metrics.ece(p, y, 7))
    by_class = [metrics.ece(p[y == c], y[y == c]) for c in range(3)]
    assert fed(ECE_PerCLs(3), given, y, cuts).value == pytest.approx(by_class)


def test_nine_right_of_ten_is_nine_tenths_however_small_the_last_batch_is():
    accuracy = Accuracy()
    accuracy.update(torch.eye(2)[[0] * 9], torch.zeros(9, dtype=torch.long))
    accuracy.update(torch.eye(2)[[0]], torch.ones(1, dtype=torch.long))
    assert accuracy.value == pytest.approx(0.9)
    assert accuracy.standard_dev == pytest.approx(0.3)
    assert str(accuracy) == "0.900±0.300"


def test_a_loss_is_weighed_by_the_items_it_is_the_mean_of():
    loss = Loss()
    loss.update(torch.tensor(1.0, requires_grad=True), torch.zeros(9))
    loss.update(2.0, np.zeros(1))
    assert loss.value == pytest.approx(1.1)
    loss.update(torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16))
    assert loss.value == pytest.approx(17 / 13)
    with pytest.raises(ValueError, match="got none"):
        loss.update(np.zeros(0))


def test_losses_alone_count_alike_and_can_be_listed():
    loss, listed = Loss(), Loss(average=False)
    for value in (0.5, 1.5, 4.0):
        loss.update(value)
        listed.update(value)
    assert loss.value == 2.0
    assert listed.value.tolist() == [0.5, 1.5, 4.0]
    assert str(listed) == str(loss) == "2.000±1.472"


def test_several_k_give_an_accuracy_each(told):
    x, y = told
    top = fed(Accuracy(topk=(1, 2, 3)), x, y, [30])
    assert top.value == pytest.approx([metrics.accuracy(x, y, k) for k in (1, 2, 3)])
    assert top.value[2] == 1
    assert str(top).count("±") == 3
    assert fed(Accuracy(average=False, topk=(1, 2)), x, y, [30]).value.shape == (2, 2)


def test_an_accuracy_of_the_examples_of_baal():
    p = torch.tensor([[0.4, 0.5, 0.1], [0.1, 0.8, 0.1]])
    y = torch.tensor([[2], [1]])
    each = fed(Accuracy(average=False, topk=(2,)), p, y, [1])
    assert each.value.tolist() == [[0], [1]]
    error = fed(ECE(n_bins=3), p, y, [1])
    assert error.samples.tolist() == [0, 1, 1]
    assert error.tp.tolist() == [0, 0, 1]
    assert error.value == pytest.approx((0.5 + 0.2) / 2)
    assert error.standard_dev == pytest.approx(0.15)
    assert str(error) == "0.350±0.150"


def test_maps_with_one_class_for_each_pixel_are_understood(rng):
    p = torch.from_numpy(rng.dirichlet(np.ones(3), size=(4, 5, 6)).transpose(0, 3, 1, 2))
    y = torch.from_numpy(rng.integers(3, size=(4, 5, 6)))
    assert fed(Accuracy(), p, y).value == pytest.approx(float((p.argmax(1) == y).double().mean()))
    for make in (Accuracy, ECE, lambda: ECE_PerCLs(3), lambda: F1(3), lambda: PRAuC(3)):
        assert np.array_equal(fed(make(), p, y).value, fed(make(), p, y[:, None]).value)


def test_a_yes_or_no_model_is_measured_as_its_two_classes(rng):
    logit, y = torch.from_numpy(rng.normal(size=(40, 1)) * 3), torch.from_numpy(rng.integers(2, size=(40, 1)))
    both = torch.cat([-logit, logit], dim=1) / 2
    for kind in (Accuracy, ECE, lambda: F1(2), lambda: PRAuC(2)):
        assert fed(kind(), logit, y).value == pytest.approx(fed(kind(), both, y).value)


def test_the_first_batch_decides_until_the_reset():
    metric = ECE()
    metric.update(np.array([[4.0, -4.0]]), [0])
    metric.update(np.array([[1.0, 0.0]]), [0])  # by itself this would be a probability
    assert metric.bins.confidence[7] == pytest.approx(1 / (1 + np.exp(-1)))
    metric.reset()
    metric.update(np.array([[1.0, 0.0]]), [0])
    assert metric.value == 0
    with pytest.raises(ValueError, match="from_logits=True"):
        metric.update(np.array([[4.0, -4.0]]), [0])
    assert ECE(from_logits=True).from_logits is True


def test_a_refused_batch_leaves_the_metric_as_it_was(told):
    x, y = told
    for metric in (Accuracy(), ECE(), ECE_PerCLs(3), *(kind(3) for kind in (*OF_CLASSES, ClassificationReport))):
        fed(metric, x, y)
        before = str(metric)
        with pytest.raises(ValueError, match="targets shaped"):
            metric.update(x, y[:5])
        assert str(metric) == before


@pytest.mark.parametrize("make", [Loss, Accuracy, ECE, lambda: ECE_PerCLs(2), *(lambda k=k: k(2) for k in OF_CLASSES)])
def test_a_metric_without_items_is_nan_and_can_be_shown(make):
    metric = make()
    assert np.isnan(metric.value).all()
    assert np.isnan(metric.standard_dev).all()
    assert "nan±nan" in str(metric)


@pytest.mark.parametrize(
    "make", [Accuracy, ECE, lambda: ECE_PerCLs(3), *(lambda k=k: k(3) for k in (*OF_CLASSES, ClassificationReport))]
)
def test_a_reset_forgets_everything(make, told):
    metric = fed(make(), *told)
    assert str(metric) != str(make())
    metric.reset()
    assert str(metric) == str(make())


def test_classes_without_items_have_no_calibration():
    value = fed(ECE_PerCLs(3), torch.eye(3)[:2], torch.tensor([0, 1])).value
    assert value[:2].tolist() == [0, 0]
    assert np.isnan(value[2])
    with pytest.raises(ValueError, match="3 classes, got 4"):
        ECE_PerCLs(3).update(torch.eye(4), torch.arange(4))


def test_what_a_metric_takes_is_declared_and_not_read_from_its_name():
    assert Loss.takes == "loss"
    assert {kind.takes for kind in (Metrics, Accuracy, ECE, ECE_PerCLs, ClassificationReport, *OF_CLASSES)} == {
        "predictions"
    }
    with pytest.raises(NotImplementedError, match="Metrics needs an `update`"):
        Metrics().update(1.0)


def test_the_diagram_is_a_figure_and_a_page_if_asked(told, tmp_path):
    metric = fed(ECE(n_bins=4), *told)
    assert len(metric.plot(tmp_path / "ece.html").data) > 0
    assert "plotly" in (tmp_path / "ece.html").read_text()
    with pytest.raises(ValueError, match="ends in .html"):
        metric.plot(tmp_path / "ece.png")


@settings(max_examples=25)
@given(st.sets(st.integers(1, 89), max_size=5), st.booleans())
def test_scores_of_classes_are_those_of_all_batches_together(cuts, as_probabilities):
    rng = np.random.default_rng(0)
    x, y = torch.from_numpy(rng.normal(size=(90, 3)) * 2), torch.from_numpy(rng.integers(3, size=90))
    given, cuts = x.softmax(1) if as_probabilities else x, sorted(cuts)
    for kind, function in ((Precision, metrics.precision), (Recall, metrics.recall), (F1, metrics.f1)):
        whole = fed(kind(3), given, y, cuts)
        assert whole.value == pytest.approx(function(x, y, average="macro"))
        assert whole.standard_dev == pytest.approx(function(x, y).std())
        assert str(whole) == f"{whole.value:.3f}±{whole.standard_dev:.3f}"
        assert fed(kind(3, average=False), given, y, cuts).value == pytest.approx(function(x, y))
    report = fed(ClassificationReport(3), given, y, cuts)
    assert report.matrix.tolist() == metrics.confusion_matrix(x, y).tolist()
    assert str(report) == str(metrics.classification_report(x, y))
    assert fed(PRAuC(3, 5), given, y, cuts).value == pytest.approx(fed(PRAuC(3, 5), x, y).value)


@pytest.mark.slow  # the import of Baal
def test_the_report_is_that_of_baal_and_is_not_printed(told, baal, capsys):
    x, y = told
    ours, theirs = fed(ClassificationReport(3), x, y, [40]), fed(baal.ClassificationReport(3), x, y, [40])
    value = ours.value
    assert capsys.readouterr().out == ""
    for name, expected in theirs.value.items():
        assert value[name] == pytest.approx(expected)
    assert value["f1"] == pytest.approx(metrics.f1(x, y))
    assert value["support"].tolist() == ours.class_data.sum(axis=1).tolist() == np.bincount(y).tolist()
    assert ours.standard_dev == pytest.approx(value["f1"].std())


@pytest.mark.slow  # the import of Baal
def test_recall_is_what_baal_calls_precision(told, baal):
    x, y = told
    assert fed(Recall(3), x, y, [40]).value == pytest.approx(fed(baal.Precision(3), x, y, [40]).value)
    assert fed(Recall(3, average=False), x, y).value == pytest.approx(fed(baal.Precision(3, average=False), x, y).value)


def test_a_report_takes_class_indices_too(told, rng):
    x, y = told
    from_indices = fed(ClassificationReport(3), x.argmax(1), y, [40])
    assert from_indices.matrix.tolist() == fed(ClassificationReport(3), x, y).matrix.tolist()
    maps, truth = torch.from_numpy(rng.integers(3, size=(2, 4, 5))), torch.from_numpy(rng.integers(3, size=(2, 4, 5)))
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (truth.flatten(), maps.flatten()), 1)
    assert fed(ClassificationReport(3), maps, truth).matrix.tolist() == expected.tolist()
    with pytest.raises(ValueError, match="from 0 to 2, got values from 0 to 3"):
        ClassificationReport(3).update(torch.tensor([0, 3]), torch.tensor([0, 1]))


def test_a_report_without_items_can_be_read():
    report = ClassificationReport(2)
    assert np.isnan(report.value["accuracy"]).all()
    assert np.isnan(report.standard_dev)
    assert "nan" in str(report)


@pytest.mark.parametrize("kind", [*OF_CLASSES, ClassificationReport])
def test_another_number_of_classes_is_refused(kind):
    with pytest.raises(ValueError, match="2 classes, got 3. Set num_classes"):
        kind(2).update(torch.eye(3), torch.arange(3) % 2)


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(0, 99))
def test_the_area_is_the_average_precision_of_what_the_thresholds_tell_apart(n_bins, seed):
    rng = np.random.default_rng(seed)
    p, y = rng.dirichlet(np.ones(3) / 2, size=60), rng.integers(3, size=60)
    metric = fed(PRAuC(3, n_bins, average=False), torch.from_numpy(p), torch.from_numpy(y), [20, 50])
    levels = (p[..., None] > np.linspace(0.02, 0.99, n_bins)).sum(axis=-1)
    expected = metrics.average_precision(np.concatenate([levels, levels * 0], axis=1) / n_bins, y)[:3]
    assert metric.value == pytest.approx(expected, nan_ok=True)


@pytest.mark.slow  # the import of Baal
def test_the_area_is_close_to_that_of_baal_where_its_thresholds_span_the_curve(rng, baal):
    p = 0.05 + 0.85 * rng.dirichlet(np.ones(3), size=4000)
    p = torch.from_numpy(p / p.sum(axis=1, keepdims=True))
    y = torch.from_numpy(np.array([rng.choice(3, p=row) for row in p.numpy()]))
    for average in (True, False):
        ours, theirs = fed(PRAuC(3, 50, average), p, y), fed(baal.PRAuC(3, 50, average), p, y)
        assert ours.value == pytest.approx(theirs.value, abs=0.01)


def test_a_class_without_items_has_no_area_and_does_not_count():
    metric = fed(PRAuC(3, 10, average=False), torch.eye(3)[:2], torch.tensor([0, 1]))
    assert metric.value[:2].tolist() == [1, 1]
    assert np.isnan(metric.value[2])
    assert fed(PRAuC(3, 10), torch.eye(3)[:2], torch.tensor([0, 1])).value == 1
    with pytest.raises(ValueError, match="at least one threshold"):
        PRAuC(3, 0)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("loss", Loss), ("accuracy", Accuracy), ("ece", ECE), ("ece_per_cls", ECE_PerCLs), ("precision", Precision),
        ("recall", Recall), ("f1", F1), ("pr_auc", PRAuC), ("classification_report", ClassificationReport),
    ],
)  # fmt: skip
def test_a_metric_can_be_had_by_name(name, kind):
    metric = get_metric(name, num_classes=3)
    assert type(metric) is kind
    assert get_metric(name, 3, False).average is (name in ("classification_report", "ece", "ece_per_cls"))


def test_options_reach_the_metric_and_what_is_missing_is_named():
    assert get_metric("ece", n_bins=7).n_bins == 7
    assert get_metric("accuracy", topk=(1, 3)).topk == (1, 3)
    with pytest.raises(ValueError, match="one of accuracy, .*recall; got 'mse'"):
        get_metric("mse")
    with pytest.raises(ValueError, match="num_classes for 'f1'"):
        get_metric("f1")


@pytest.mark.slow  # the import of Baal
def test_pixels_become_rows_in_the_order_of_baal(rng, baal):
    for shape in ((4, 3), (2, 3, 4), (2, 3, 4, 5)):
        x = torch.from_numpy(rng.normal(size=shape))
        assert torch.equal(transpose_and_flatten(x), baal.transpose_and_flatten(x))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [*OF_CLASSES, ClassificationReport])
def test_batches_on_the_gpu_give_the_same(kind, told):
    x, y = told
    assert str(fed(kind(3), x.cuda(), y.cuda(), [40])) == str(fed(kind(3), x, y, [40]))

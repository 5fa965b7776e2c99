import numpy as np
import plotly.graph_objects as go
import pytest

from baal_widgets.metrics import calibration_bins, ece
from baal_widgets.plots import class_balance, learning_curve, pool_uncertainty, reliability


def row(n, accuracy=0.5, nll=1.0):
    return {"n_labelled": n, "accuracy": accuracy, "nll": nll, "n_test": 100}


def traces(figure):
    return {trace.name: trace for trace in figure.data}


def test_the_learning_curve_shows_what_was_measured():
    shown = traces(learning_curve([row(10, 0.5, 2.0), row(20, 0.75, 1.0)]))
    assert (list(shown["accuracy"].x), list(shown["accuracy"].y)) == ([10, 20], [0.5, 0.75])
    assert list(shown["NLL"].y) == [2.0, 1.0]


def test_rounds_without_a_measure_are_left_out():
    assert list(traces(learning_curve([{"n_labelled": 5}, row(10)]))["accuracy"].x) == [10]


def test_another_run_can_stand_beside():
    assert list(traces(learning_curve([row(10)], others={"random": [row(10, 0.3)]}))["random"].y) == [0.3]


@pytest.mark.parametrize("dark", [False, True])
def test_before_the_first_lesson_the_figures_say_what_to_do(dark):
    for figure in (learning_curve([], dark=dark), reliability(None, dark=dark)):
        assert isinstance(figure, go.Figure)
        assert "etrain" in figure.layout.annotations[0].text


def test_without_a_test_set_the_figures_say_what_is_missing():
    for figure in (learning_curve([{"n_labelled": 5}]), reliability({"n_labelled": 5})):
        assert "test_set" in figure.layout.annotations[0].text


def test_the_reliability_diagram_shows_the_bins():
    rng = np.random.default_rng(0)
    p, y = rng.dirichlet(np.ones(3), 200), rng.integers(0, 3, 200)
    bins = calibration_bins(p, y, n_bins=10)
    told = {
        "count": bins.count.tolist(),
        "confidence": [None if np.isnan(c) else c for c in bins.confidence],
        "accuracy": [None if np.isnan(a) else a for a in bins.accuracy],
    }
    figure = reliability({"reliability": told, "ece": ece(p, y), "n_labelled": 12})
    full = [place for place in range(10) if bins.count[place]]
    np.testing.assert_allclose(traces(figure)["model"].x, bins.confidence[full], rtol=1e-3)
    np.testing.assert_allclose(traces(figure)["model"].y, bins.accuracy[full], rtol=1e-3)
    assert f"ECE {ece(p, y):.3f} after 12 labels" in figure.layout.title.text
    assert figure.layout.title.subtitle.text == "200 test images"
    assert traces(reliability(told))["model"].y == traces(figure)["model"].y


def test_the_calibration_error_stands_beside_what_chance_makes_of_it():
    told = {"reliability": {"count": [4], "confidence": [0.9], "accuracy": [0.5]}, "ece": 0.4, "n_labelled": 7}
    figure = reliability({**told, "ece_interval": [0.3, 0.5], "ece_calibrated": 0.0213})
    assert figure.layout.title.subtitle.text == "4 test images; 95 %: 0.300 to 0.500; by chance alone 0.021"


def test_the_calibration_error_is_a_line_where_it_was_measured():
    assert "ECE" not in traces(learning_curve([row(10)]))
    shown = traces(learning_curve([row(10), row(20) | {"ece": 0.123456}]))["ECE"]
    assert (list(shown.x), list(shown.y)) == ([20], [0.1235])


def test_the_rarest_class_is_on_top_and_its_name_is_no_markup():
    figure = class_balance({"cat": 5, "<b>dog</b>": 0, "fish & chips": 2})
    assert list(figure.data[0].x) == [0, 2, 5]
    assert list(figure.layout.yaxis.ticktext) == ["&lt;b&gt;dog&lt;/b&gt;", "fish &amp; chips", "cat"]
    low, high = figure.layout.yaxis.range
    assert low > high


def test_of_many_classes_the_rarest_are_shown():
    figure = class_balance({f"class {n}": n for n in range(100)})
    assert list(figure.data[0].x) == list(range(20))
    assert figure.layout.title.subtitle.text == "the 20 rarest of 100"


def test_the_parts_of_the_uncertainty_are_stacked():
    history = [{"n_labelled": n, "pool": {"n": 9, "total": 1.5, "epistemic": 0.5, "aleatoric": 1.0}} for n in (5, 9)]
    figure = pool_uncertainty([*history, {"n_labelled": 12, "pool": None}, {"n_labelled": 15}])
    assert [list(trace.x) for trace in figure.data] == [[5, 9], [5, 9]]
    assert [trace.y[0] for trace in figure.data] == [1.0, 0.5]
    assert len({trace.stackgroup for trace in figure.data}) == 1
    assert "etrain" in pool_uncertainty([]).layout.annotations[0].text


def test_figures_are_small_on_the_wire():
    pool = {"n": 900, "total": 1.234567891, "epistemic": 0.2345678912, "aleatoric": 1.0}
    rows = [row(24 * n, 0.123456789, 1.23456789) | {"ece": 0.0123456789, "pool": pool} for n in range(1, 31)]
    rng = np.random.default_rng(0)
    told = {"count": [50] * 10, "confidence": rng.random(10).tolist(), "accuracy": rng.random(10).tolist()}
    last = {"reliability": told, "ece": 0.1, "n_labelled": 12}
    for dark in (False, True):
        figures = (
            learning_curve(rows, others={"random": rows}, dark=dark),
            reliability(last, dark=dark),
            pool_uncertainty(rows, dark=dark),
            class_balance({f"class {n}": n for n in range(30)}, dark=dark),
        )
        assert max(len(figure.to_json()) for figure in figures) < 8_000

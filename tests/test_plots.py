import json

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from baal_widgets.metrics import calibration_bins, ece
from baal_widgets.plots import _wilson, learning_curve, reliability


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
    np.testing.assert_allclose(traces(figure)["model"].x, bins.confidence[full])
    np.testing.assert_allclose(traces(figure)["model"].y, bins.accuracy[full])
    assert f"ECE {ece(p, y):.3f} after 12 labels (200 test images)" in figure.layout.title.text
    assert traces(reliability(told))["model"].y == traces(figure)["model"].y


def test_figures_are_small_on_the_wire():
    assert len(json.dumps(json.loads(learning_curve([row(n) for n in range(50)]).to_json()))) < 30_000


@given(st.integers(1, 500), st.floats(0, 1))
def test_the_interval_is_wilsons(n, share):
    hits = round(n * share)
    low, high = _wilson(hits / n, n)
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert low == pytest.approx(expected.low, abs=1e-4)
    assert high == pytest.approx(expected.high, abs=1e-4)
    assert low <= hits / n <= high

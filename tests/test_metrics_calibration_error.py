"""Calibration errors against references, and what resampling says of them against brute force and closed forms."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baal_widgets.metrics import calibration_bins, classwise_ece, ece, ece_if_calibrated, ece_interval

BINNINGS = ["width", "mass"]


def answered(p, rng, shift=0.0):
    """Truths that the probabilities `[item, 2]` promise too often, by a shift."""
    return (rng.random(len(p)) < p[:, 1] - shift).astype(int)


def yes_or_no(n, rng):
    yes = rng.uniform(0.5, 1.0, n)
    return np.stack([1 - yes, yes], axis=1)


def error_of(score, right, groups):
    return sum(abs(score[group].mean() - right[group].mean()) * len(group) for group in groups if len(group)) / len(
        score
    )


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(2, 5), st.integers(1, 12), st.integers(0, 9))
def test_bins_of_equal_mass_are_consecutive_parts_of_the_sorted_items(n, classes, n_bins, seed):
    rng = np.random.default_rng(seed)
    p, y = rng.dirichlet(np.ones(classes), n), rng.integers(classes, size=n)
    cuts = [place * n // n_bins for place in range(1, n_bins)]
    groups = np.split(p.max(axis=1).argsort(), cuts)
    assert calibration_bins(p, y, n_bins, "mass").count.tolist() == [len(group) for group in groups]
    assert ece(p, y, n_bins, "mass") == pytest.approx(error_of(p.max(axis=1), p.argmax(axis=1) == y, groups))
    by_class = [error_of(p[:, c], y == c, np.split(p[:, c].argsort(), cuts)) for c in range(classes)]
    assert classwise_ece(p, y, n_bins, "mass", average=None) == pytest.approx(by_class)
    assert classwise_ece(p, y, n_bins, "mass") == pytest.approx(np.mean(by_class))


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(2, 5), st.integers(1, 12), st.sampled_from([np.float32, np.float64]))
def test_the_classwise_error_bins_the_probability_of_every_class(n, classes, n_bins, dtype):
    rng = np.random.default_rng(n)
    p, y = rng.dirichlet(np.ones(classes), n).astype(dtype), rng.integers(classes, size=n)
    places = np.minimum((p * n_bins).astype(int), n_bins - 1)
    by_class = [
        error_of(p[:, c], y == c, [np.flatnonzero(places[:, c] == place) for place in range(n_bins)])
        for c in range(classes)
    ]
    assert classwise_ece(p, y, n_bins, average=None) == pytest.approx(by_class, rel=1e-5, abs=1e-7)


def test_items_of_equal_confidence_stay_together():
    p = np.repeat([[0.5, 0.5], [0.8, 0.2], [0.9, 0.1]], [2, 5, 3], axis=0)
    assert calibration_bins(p, np.zeros(10, int), 5, "mass").count.tolist() == [2, 0, 0, 5, 3]
    assert calibration_bins(p, np.zeros(10, int), 1, "mass").count.tolist() == [10]


def test_the_edges_of_bins_of_equal_mass_tell_where_they_begin(rng):
    p = yes_or_no(100, rng)
    bins = calibration_bins(p, answered(p, rng), 4, "mass")
    assert bins.edges.tolist() == [0, *np.sort(p[:, 1])[[25, 50, 75]].tolist(), 1]
    assert (bins.edges[:-1] <= bins.confidence).all()
    assert (bins.confidence < bins.edges[1:]).all()


def test_one_bin_of_either_kind_tells_mean_confidence_from_accuracy(rng):
    p = yes_or_no(200, rng)
    y = answered(p, rng, shift=0.2)
    gap = abs(p.max(axis=1).mean() - (y == 1).mean())
    for binning in BINNINGS:
        assert ece(p, y, 1, binning) == pytest.approx(gap)
        # of two classes one gap is the other with its sign turned
        assert classwise_ece(p, y, 1, binning, average=None) == pytest.approx([gap, gap])


@pytest.mark.parametrize("binning", BINNINGS)
@pytest.mark.parametrize("ties", [False, True])
def test_the_interval_is_that_of_errors_computed_one_resample_after_another(binning, ties, rng):
    p = rng.dirichlet(np.ones(3), 40)
    if ties:
        p = np.repeat(p[:8], 5, axis=0)
    y = rng.integers(3, size=40)
    low, high = ece_interval(p, y, 6, binning, level=0.8, resamples=50, rng=np.random.default_rng(7))
    drawn = np.random.default_rng(7).integers(40, size=(50, 40))
    order = p.max(axis=1).argsort(kind="stable")
    errors = [ece(p[order][items], y[order][items], 6, binning) for items in drawn]
    assert (low, high) == pytest.approx(tuple(np.quantile(errors, [0.1, 0.9])))


@pytest.mark.parametrize("binning", BINNINGS)
def test_resamples_taken_in_parts_are_as_many(binning, rng, monkeypatch):
    from baal_widgets.metrics import resampling

    p = yes_or_no(30, rng)
    y = answered(p, rng)
    parts = list(resampling._chunks(30, 100, at_once=210))
    assert (sum(parts), max(parts)) == (100, 7)
    monkeypatch.setattr(resampling, "_chunks", lambda items, resamples: iter([7] * 14 + [2]))
    assert ece_if_calibrated(p, binning=binning, resamples=100, rng=rng).samples.shape == (100,)
    low, high = ece_interval(p, y, binning=binning, resamples=100, rng=rng)
    assert 0 < low < high


@pytest.mark.parametrize("binning", BINNINGS)
def test_of_many_test_sets_the_interval_holds_the_true_error_in_about_as_many_as_it_says(binning, rng):
    held = 0
    for _ in range(200):
        p = yes_or_no(300, rng)
        low, high = ece_interval(p, answered(p, rng, 0.2), 5, binning, level=0.9, resamples=200, rng=rng)
        held += low < 0.2 < high
    assert 0.83 < held / 200 < 0.96


def test_a_higher_level_is_a_wider_interval(rng):
    p = yes_or_no(200, rng)
    y = answered(p, rng, 0.1)
    narrow = ece_interval(p, y, level=0.5, rng=np.random.default_rng(0))
    wide = ece_interval(p, y, level=0.99, rng=np.random.default_rng(0))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert ece_interval(p, y, level=0.5, rng=np.random.default_rng(0)) == narrow


@pytest.mark.parametrize("binning", BINNINGS)
def test_chance_alone_makes_the_error_of_a_binomial_count(binning, rng):
    chance = ece_if_calibrated(np.full((50, 4), 0.25), 10, binning, resamples=20000, rng=rng)
    count = scipy.stats.binom(50, 0.25)
    mean = sum(count.pmf(k) * abs(k / 50 - 0.25) for k in range(51))
    assert chance.mean == pytest.approx(mean, rel=0.02)
    assert chance.quantile(1.0) == chance.samples[-1] == chance.samples.max()
    within = sum(count.pmf(k) for k in range(51) if abs(k / 50 - 0.25) < 0.1 - 1e-9)
    assert (chance.samples < 0.1 - 1e-9).mean() == pytest.approx(within, abs=0.01)


@pytest.mark.parametrize("binning", BINNINGS)
def test_chance_is_that_of_truths_drawn_from_the_predictions(binning, rng):
    p = rng.dirichlet(np.ones(3), 200)
    errors = [ece(p, [rng.choice(3, p=row) for row in p], 8, binning) for _ in range(150)]
    chance = ece_if_calibrated(p, 8, binning, resamples=2000, rng=rng)
    assert scipy.stats.ks_2samp(errors, chance.samples).pvalue > 0.001
    assert chance.mean == pytest.approx(np.mean(errors), rel=0.1)


def test_p_values_of_calibrated_models_are_uniform_and_of_others_are_small(rng):
    calibrated, shifted = [], []
    for _ in range(150):
        p = yes_or_no(200, rng)
        chance = ece_if_calibrated(p, resamples=200, rng=rng)
        calibrated.append(chance.p_value(ece(p, answered(p, rng))))
        shifted.append(chance.p_value(ece(p, answered(p, rng, shift=0.2))))
    assert scipy.stats.kstest(calibrated, "uniform").pvalue > 0.001
    assert np.mean(np.array(shifted) < 0.05) > 0.95
    assert min(shifted) == pytest.approx(1 / 201)


def test_the_bias_shrinks_with_items_and_grows_with_bins(rng):
    p = yes_or_no(4000, rng)
    few, many = ece_if_calibrated(p[:100], rng=rng), ece_if_calibrated(p, rng=rng)
    assert many.mean < few.mean / 4
    assert ece_if_calibrated(p, 100, rng=rng).mean > many.mean * 2


def test_certain_predictions_leave_nothing_to_chance(rng):
    chance = ece_if_calibrated(np.eye(3)[[0, 1, 2, 2]], resamples=10, rng=rng)
    assert chance.samples.tolist() == [0] * 10
    assert (chance.p_value(0.0), chance.p_value(0.1)) == (1, pytest.approx(1 / 11))


def test_tensors_maps_and_yes_or_no_models_are_understood(rng):
    p = yes_or_no(60, rng)
    y = answered(p, rng)

    def both(p, y):
        return (
            ece_interval(p, y, resamples=20, rng=np.random.default_rng(0)),
            ece_if_calibrated(p, resamples=20, rng=np.random.default_rng(0)).mean,
        )

    expected = both(p, y)
    maps = torch.from_numpy(p).reshape(3, 4, 5, 2).movedim(-1, 1)
    assert both(maps, torch.from_numpy(y).reshape(3, 4, 5)) == expected
    assert both(torch.from_numpy(p[:, 1:]), torch.from_numpy(y)[:, None]) == expected


def test_a_model_gone_wrong_has_no_calibration(rng):
    p = yes_or_no(20, rng)
    p[3] = np.nan
    assert np.isnan(classwise_ece(p, np.zeros(20, int)))
    assert np.isnan(ece_interval(p, np.zeros(20, int), rng=rng)).all()
    assert np.isnan(ece_if_calibrated(p, rng=rng).mean)
    assert np.isnan(ece_if_calibrated(p, rng=rng).p_value(0.1))


def test_what_makes_no_sense_is_refused(rng):
    p, y = np.eye(2), [0, 1]
    for measure in (ece, classwise_ece, calibration_bins):
        with pytest.raises(ValueError, match="'width' or 'mass', got 'size'"):
            measure(p, y, 10, "size")
        with pytest.raises(ValueError, match="at least one bin, got n_bins=0"):
            measure(p, y, 0, "mass")
    for level in (0, 1, 95):
        with pytest.raises(ValueError, match=f"between 0 and 1, such as 0.95, got {level}"):
            ece_interval(p, y, level=level, rng=rng)
    with pytest.raises(ValueError, match="at least one resample"):
        ece_interval(p, y, resamples=0, rng=rng)
    with pytest.raises(ValueError, match=r"at least one item, got \(0, 2\)"):
        ece_if_calibrated(np.zeros((0, 2)), rng=rng)
    with pytest.raises(ValueError, match="Expected probabilities"):
        ece_if_calibrated(np.array([[3.0, -2.0]]), rng=rng)


@pytest.mark.gpu
@pytest.mark.parametrize("binning", BINNINGS)
def test_predictions_on_the_gpu_have_the_same_errors(binning, rng):
    p = yes_or_no(60, rng)
    y = answered(p, rng)
    for measure in (ece, classwise_ece):
        assert measure(torch.from_numpy(p).cuda(), y, 10, binning) == pytest.approx(measure(p, y, 10, binning))

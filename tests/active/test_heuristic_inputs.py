"""What heuristics take: batches, tensors, pixels with a reduction, and predictions gone wrong."""

import weakref
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baal_widgets.active.heuristics import (
    BALD,
    Certainty,
    Entropy,
    Margin,
    Random,
    Variance,
)

KINDS = [BALD, Certainty, Entropy, Margin, Variance]


@pytest.fixture
def logits(rng):
    return rng.normal(size=(12, 4, 6)) * 3


@pytest.fixture
def maps(rng):
    """Predictions of a segmentation model, `[item, class, high, wide, draw]`."""
    return rng.dirichlet(np.ones(4), size=(5, 3, 2, 6)).transpose(0, 4, 1, 2, 3)


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("kind", [*KINDS, partial(Random, seed=3)])
@given(cuts=st.lists(st.integers(0, 12), max_size=4))
def test_how_the_predictions_are_cut_into_batches_does_not_matter(kind, cuts):
    logits = np.random.default_rng(1).normal(size=(12, 4, 6))
    batches = lambda: (b for b in np.split(logits, sorted(cuts)))  # noqa: E731
    whole = kind().get_uncertainties(logits)
    assert np.allclose(kind().get_uncertainties(batches()), whole)
    assert np.allclose(kind().get_uncertainties_generator(list(batches())), whole)
    assert np.allclose(kind().scores(batches()), kind().scores(logits))
    assert np.array_equal(kind()(batches()), kind()(logits))


def test_the_first_batch_decides_for_all_whether_there_are_logits(rng):
    spread = rng.normal(size=(4, 3, 5))
    likely = rng.dirichlet(np.ones(3), size=(4, 5)).transpose(0, 2, 1)  # logits that look like probabilities
    batches = [spread, likely]
    together = BALD().get_uncertainties(np.concatenate(batches))
    assert np.allclose(BALD().get_uncertainties(iter(batches)), together)


def test_a_first_batch_of_nan_leaves_the_decision_to_the_second(rng):
    p = rng.dirichlet(np.ones(3), size=(4, 5)).transpose(0, 2, 1)
    with pytest.warns(UserWarning, match="4 of 8 items"):
        late = BALD().get_uncertainties(iter([np.full_like(p, np.nan), p]))
    assert np.allclose(late[4:], BALD().get_uncertainties(p))


def test_generators_are_consumed_one_batch_at_a_time(rng):
    class Batch(np.ndarray):
        """An array that weak references can point to."""

    made = []

    def batches():
        for _ in range(5):
            batch = rng.dirichlet(np.ones(3), size=(2, 4)).transpose(0, 2, 1).view(Batch)
            assert sum(earlier() is not None for earlier in made) <= 1  # the one that is being left
            made.append(weakref.ref(batch))
            yield batch
            del batch

    assert len(BALD().get_uncertainties(batches())) == 10


def test_no_batches_are_no_items():
    ranks, scores = BALD().get_ranks(iter([]))
    assert len(ranks) == len(scores) == 0
    assert len(BALD()(np.zeros((0, 3, 2)))) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_that_ask_for_gradients_rank_as_arrays_do(kind, logits):
    tensor = torch.from_numpy(logits).requires_grad_()
    assert np.array_equal(kind().get_uncertainties(tensor), kind().get_uncertainties(logits))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_on_the_gpu_rank_as_arrays_do(kind, logits):
    tensor = torch.from_numpy(logits).cuda()
    assert np.allclose(kind().get_uncertainties(tensor), kind().get_uncertainties(logits))


@pytest.mark.parametrize("several", [list, tuple])
def test_several_outputs_are_refused_also_inside_a_batch(several, logits):
    with pytest.raises(TypeError, match=r"one output.*heuristic\(predictions\[0\]\)"):
        BALD()(several([logits, logits]))
    with pytest.raises(TypeError, match="one output"):
        BALD()(iter([several([logits, logits])]))


@pytest.mark.parametrize("name", ["max", "min", "mean", "sum"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_named_reduction_is_numpys_over_all_axes_but_the_first(name, kind, maps):
    pixels = kind(reduction="none").get_uncertainties(maps)
    expected = getattr(np, name)(pixels.reshape(5, -1), axis=1)
    assert np.allclose(kind(reduction=name).get_uncertainties(maps), expected)


@pytest.mark.parametrize(
    "reduction",
    [
        np.mean,
        lambda pixels: np.mean(pixels, axis=(1, 2)),
        lambda pixels, axis: pixels.mean(axis),
        lambda pixels, **kw: pixels.mean(**kw),
        lambda pixels: pixels.mean((1, 2)),
    ],
)
def test_a_function_of_the_pixels_is_a_reduction_with_or_without_axis(reduction, maps):
    assert np.allclose(BALD(reduction=reduction)(maps), BALD(reduction="mean")(maps))


def test_reductions_with_options_of_their_own_work(maps):
    top = BALD(reduction=partial(np.quantile, q=0.9)).get_uncertainties(maps)
    assert top.shape == (5,)
    assert (top <= BALD(reduction="max").get_uncertainties(maps)).all()
    assert np.allclose(BALD(reduction=np.maximum.reduce)(maps), BALD(reduction="max")(maps))


def test_one_score_an_item_is_left_as_it_is_by_every_reduction(logits):
    for reduction in ("max", "mean", np.median, lambda pixels: pixels.mean((1, 2))):
        assert np.array_equal(BALD(reduction=reduction)(logits), BALD()(logits))


def test_scores_of_pixels_are_not_ordered_without_a_reduction(maps):
    with pytest.raises(ValueError, match=r"\(5, 3, 2\).*reduction='mean'"):
        Entropy()(maps)


def test_a_reduction_that_loses_the_items_is_refused(maps):
    with pytest.raises(ValueError, match="one score for each of 5 items"):
        Entropy(reduction=lambda pixels: pixels.max())(maps)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("probable", [True, False])
def test_a_bad_prediction_is_asked_last_and_leaves_the_others_bit_for_bit_alone(kind, bad, probable, logits):
    predictions = (softmax(logits) if probable else logits).astype(np.float32)
    before = kind().get_uncertainties(predictions)
    predictions[before.argmax(), 0, 0] = predictions[before.argmin(), 1, 1] = bad
    with pytest.warns(UserWarning, match="2 of 12 items") as told:
        ranks, after = kind().get_ranks(predictions)
    assert len(told) == 1
    gone = [before.argmin(), before.argmax()]
    assert sorted(ranks[-2:]) == sorted(gone)
    assert np.array_equal(np.delete(after, gone), np.delete(before, gone))
    assert set(after[gone]) == {-np.inf if kind().reversed else np.inf}
    with pytest.warns(UserWarning, match="put last"):
        assert set(kind().scores(predictions)[gone]) == {-np.inf}


def test_one_warning_serves_a_whole_generator(logits):
    logits[[1, 8], 0, 0] = np.nan
    with pytest.warns(UserWarning, match="2 of 12 items") as told:
        BALD().get_uncertainties(np.array_split(logits, 4).__iter__())
    assert len(told) == 1


def test_shuffling_never_brings_a_bad_item_forward(logits):
    logits[3] = np.nan
    with pytest.warns(UserWarning, match="put last"):
        lasts = {int(BALD(shuffle_prop=1.0, seed=seed)(logits)[-1]) for seed in range(20)}
    assert lasts == {3}


def test_a_bad_pixel_spoils_its_item_unless_the_reduction_looks_past_it(maps):
    maps[2, 0, 0, 0, 0] = np.nan
    with pytest.warns(UserWarning, match="1 of 5 items"):
        assert BALD(reduction="mean")(maps)[-1] == 2
    with pytest.warns(UserWarning, match="1 of 5 items"):
        assert np.isinf(BALD().get_uncertainties(maps)).sum() == 1
    assert np.isfinite(BALD(reduction=np.nanmean).get_uncertainties(maps)).all()


def test_a_class_masked_by_minus_infinity_is_no_defect(logits):
    logits[:, 0] = -np.inf
    assert np.allclose(BALD().get_uncertainties(logits), BALD().get_uncertainties(logits[:, 1:]))

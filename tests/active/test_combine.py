import numpy as np
import pytest

from baal_widgets.active.heuristics import BALD, Certainty, CombineHeuristics, Entropy, Margin, PowerSampling, Variance


@pytest.fixture
def outputs(rng):
    """What a detector gives: classes, and boxes as plain numbers."""
    classes = rng.dirichlet(np.ones(4), size=(12, 6)).transpose(0, 2, 1)
    return [classes, rng.normal(size=(12, 4, 6))]


def test_scores_are_weighed_by_their_share(outputs):
    combined = CombineHeuristics([BALD(), Variance()], weights=[3, 1], reduction="sum")
    expected = 0.75 * BALD().get_uncertainties(outputs[0]) + 0.25 * Variance().get_uncertainties(outputs[1])
    ranks, scores = combined.get_ranks(outputs)
    assert np.allclose(scores, expected)
    assert np.array_equal(ranks, np.argsort(-expected, kind="stable"))
    assert np.array_equal(CombineHeuristics([BALD(), Variance()], weights=[3, 1])(outputs), ranks)


def test_weighing_twice_gives_the_same(outputs):
    combined = CombineHeuristics([BALD(), Variance()], weights=[3, 1])
    assert np.array_equal(combined.get_uncertainties(outputs), combined.get_uncertainties(outputs))
    assert combined.weights == [0.75, 0.25]


def test_heuristics_that_count_up_and_down_go_together(outputs):
    both = [outputs[0], outputs[0]]
    ranks = CombineHeuristics([Entropy(), Margin()], [1, 1], reduction="sum")(both)
    assert np.array_equal(
        ranks, np.argsort(-(Entropy().scores(outputs[0]) + Margin().scores(outputs[0])), kind="stable")
    )


def test_one_heuristic_alone_ranks_as_by_itself(outputs):
    for heuristic in (BALD(), Certainty()):
        assert np.array_equal(CombineHeuristics([heuristic], [2])([outputs[0]]), heuristic(outputs[0]))


@pytest.mark.parametrize("reduction", ["max", "min", "mean", "sum", lambda scores: np.median(scores, axis=1)])
def test_any_reduction_brings_the_scores_together(outputs, reduction):
    assert sorted(CombineHeuristics([BALD(), Variance()], [1, 2], reduction)(outputs)) == list(range(12))


def test_batches_are_combined_as_the_whole_is(outputs):
    combined = CombineHeuristics([BALD(), Variance()], [1, 2])
    whole = combined.get_uncertainties(outputs)
    batches = [[classes, boxes] for classes, boxes in zip(*(np.array_split(one, 3) for one in outputs), strict=True)]
    assert np.allclose(combined.get_uncertainties(iter(batches)), whole)
    each = [iter(np.array_split(one, 3)) for one in outputs]
    assert np.allclose(combined.get_uncertainties(each), whole)
    assert combined.get_uncertainties(iter([])).shape == (0,)


def test_an_item_that_one_of_them_cannot_score_comes_last(outputs):
    outputs[1][5] = np.nan
    with pytest.warns(UserWarning, match="1 of 12 items"):
        ranks = CombineHeuristics([BALD(), Variance()], [1, 0])(outputs)
    assert ranks[-1] == 5


def test_combined_scores_can_be_drawn_from(outputs):
    heuristic = PowerSampling(CombineHeuristics([BALD(), Variance()], [1, 1]), query_size=4, seed=0)
    assert len(set(heuristic(outputs))) == 4


def test_outputs_that_do_not_match_are_refused(outputs):
    combined = CombineHeuristics([BALD(), Variance()], [1, 2])
    with pytest.raises(ValueError, match="list of 2 outputs.*got 1"):
        combined(outputs[:1])
    with pytest.raises(ValueError, match="got one array"):
        combined(outputs[0])
    with pytest.raises(ValueError, match="reduction='mean'"):
        CombineHeuristics([BALD(), Variance(reduction="none")], [1, 2])(outputs)


@pytest.mark.parametrize(("heuristics", "weights"), [([], []), ([BALD()], [1, 2]), ([BALD()], [0]), ([BALD()], [-1])])
def test_weights_that_make_no_sense_are_refused(heuristics, weights):
    with pytest.raises(ValueError, match="Expected .*weight"):
        CombineHeuristics(heuristics, weights)

import numpy as np
import pytest
import torch

from baal_widgets import metrics
from baal_widgets.simulation.evaluation import N_BINS, evaluate, measures
from baal_widgets.simulation.network import Shape, draw_factors, initial_weights, logits
from baal_widgets.simulation.training import Lanes

CPU = torch.device("cpu")


@pytest.mark.parametrize("classes", [2, 7])
def test_a_stack_measures_what_the_metrics_measure_one_by_one(rng, classes):
    p = torch.from_numpy(rng.dirichlet(np.full(classes, 0.3), size=(4, 300))).float()
    p[0, :50] = p[0, 0]  # equal confidences stay together in bins of equal mass
    y = torch.from_numpy(rng.integers(classes - 1, size=300))  # one class never occurs
    told, f1 = measures(p, y)
    for run in range(4):
        alone = {
            "nll": metrics.nll(p[run], y),
            "accuracy": metrics.accuracy(p[run], y),
            "ece": metrics.ece(p[run], y, N_BINS),
            "ece_mass": metrics.ece(p[run], y, N_BINS, "mass"),
            "brier": metrics.brier(p[run], y),
            "macro_f1": metrics.f1(p[run], y, "macro"),
        }
        assert {name: values[run] for name, values in told.items()} == pytest.approx(alone, abs=2e-6)
        assert np.allclose(f1[run], metrics.f1(p[run], y))


def test_the_three_ways_to_predict_are_what_they_are_called(rng):
    shape = Shape((5, 8, 3), dropout=0.5)
    x, y = torch.from_numpy(rng.normal(size=(40, 5))).float(), torch.from_numpy(rng.integers(3, size=40))
    weights = 5 * initial_weights(shape, [3], CPU)
    told, f1 = evaluate(shape, weights, Lanes.of([3], CPU), x, y, draws=6, step=2)
    (factor,) = draw_factors(shape, [3], 6, "test", 2, CPU)
    draws = torch.stack([logits(shape.layers(weights), x[None], [factor[:, t, None]])[0] for t in range(6)], dim=-1)
    ways = {
        "det": logits(shape.layers(weights), x[None])[0].softmax(dim=1),
        "bma": draws.softmax(dim=1).mean(dim=-1),
        "logit": draws.mean(dim=-1).softmax(dim=1),
    }
    for way, p in ways.items():
        assert told[f"nll_{way}"][0] == pytest.approx(metrics.nll(p, y), rel=1e-5)
    assert len({round(float(told[f"nll_{way}"][0]), 4) for way in ways}) == 3
    assert np.allclose(f1[0], metrics.f1(ways["bma"], y))

"""How good each run's predictions are: the measures of `metrics`, for a stack of runs at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from baal_widgets.arrays import as_numpy
from baal_widgets.metrics.calibration_error import Binning, bin_of, inner_edges
from baal_widgets.simulation import network
from baal_widgets.simulation.network import Shape
from baal_widgets.simulation.training import Lanes

Floats = npt.NDArray[np.float64]

WAYS = ("det", "bma", "logit")
"""How a test prediction is made: without dropout; the mean of the draws' probabilities, which is the Bayesian model
average; or the softmax of the mean of their logits, which is what Baal 2.1 computes."""
MEASURES = ("nll", "accuracy", "ece", "ece_mass", "brier", "macro_f1")
N_BINS = 15


def evaluate(
    shape: Shape, weights: Tensor, lanes: Lanes, features: Tensor, labels: Tensor, draws: int, step: int
) -> tuple[dict[str, Floats], Floats]:
    """Each measure in each way, `[run]` by names like "nll_bma", and the F1 of each class of the BMA `[run, class]`.

    `features` and `labels` are those of the test set, `[item, feature]` and `[item]`. Runs of one seed are tested
    with the same masks.
    """
    layers = shape.layers(weights)
    factors = network.draw_factors(shape, lanes.seeds, draws, "test", step, features.device)
    parts = [
        (each.softmax(dim=3).mean(dim=1), each.mean(dim=1).softmax(dim=2))
        for _, each in network.draw_logits(layers, features[None], [lanes.spread(factor) for factor in factors])
    ]
    predictions = {
        "det": network.logits(layers, features.expand(len(weights), -1, -1)).softmax(dim=2),
        "bma": torch.cat([bma for bma, _ in parts], dim=1),
        "logit": torch.cat([logit for _, logit in parts], dim=1),
    }
    told = {way: measures(each, labels) for way, each in predictions.items()}
    named = {f"{name}_{way}": values for way, (found, _) in told.items() for name, values in found.items()}
    return named, told["bma"][1]


def measures(probabilities: Tensor, labels: Tensor) -> tuple[dict[str, Floats], Floats]:
    """The `MEASURES` of each run, `[run]`, and its F1 for each class, `[run, class]`.

    `probabilities` are `[run, item, class]`, `labels` `[item]`. Calibration errors have 15 bins, of equal width or of
    equal mass. They are what `metrics` gives run by run, but for its checks and for NaN, which these don't meet.
    """
    classes = probabilities.shape[2]
    confidence, guess = probabilities.max(dim=2)
    right = (guess == labels).double()
    truth = torch.nn.functional.one_hot(labels, classes)
    own = probabilities.gather(2, labels.expand(len(probabilities), -1)[..., None])[..., 0]
    f1 = _f1(torch.nn.functional.one_hot(guess, classes), truth)
    found = {
        "nll": -own.clamp(min=torch.finfo(own.dtype).tiny).log().mean(dim=1, dtype=torch.float64),
        "accuracy": right.mean(dim=1),
        "ece": _ece(confidence, right, "width"),
        "ece_mass": _ece(confidence, right, "mass"),
        "brier": (probabilities - truth).square().sum(dim=2).mean(dim=1, dtype=torch.float64),
        "macro_f1": f1.mean(dim=1),
    }
    return {name: as_numpy(values).astype(np.float64) for name, values in found.items()}, as_numpy(f1)


def _ece(confidence: Tensor, right: Tensor, binning: Binning) -> Tensor:
    place = bin_of(confidence, inner_edges(confidence, N_BINS, binning))
    # a product rather than scatter_add_, whose sums on a GPU differ from call to call
    members = torch.nn.functional.one_hot(place, N_BINS).double()
    gaps = torch.einsum("rib,ri->rb", members, right - confidence)
    return gaps.abs().sum(dim=1) / confidence.shape[1]


def _f1(guess: Tensor, truth: Tensor) -> Tensor:
    """F1 from one-hot guesses `[run, item, class]` and truths `[item, class]`; 0 where a class is never right."""
    hits = (guess * truth).sum(dim=1).double()
    return 2 * hits / (guess.sum(dim=1) + truth.sum(dim=0)).clamp(min=1)

"""Which items a method asks for: the package's heuristics, given what a run knows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from baal_widgets.active.heuristics import HEURISTICS, AbstractHeuristic, get_heuristic
from baal_widgets.active.scores import predictive_entropy
from baal_widgets.arrays import Array, as_floats, as_numpy
from baal_widgets.simulation import network
from baal_widgets.simulation.network import Layers, Shape
from baal_widgets.simulation.protocol import Ints, Method
from baal_widgets.simulation.randomness import generator
from baal_widgets.simulation.training import Lanes


class LogitEntropy(AbstractHeuristic):
    """Ask first where the softmax of the mean logits is unsure: what Baal 2.1 computes under the name of Entropy.

    It is not the entropy of the model average: a draw with large logits has more of a say than the others. Takes
    "logits" `[item, class, draw]`. For comparisons; `Entropy` is the one to use.
    """

    takes = ("logits",)

    def __init__(self) -> None:
        super().__init__(reverse=True)

    def compute_score(self, predictions: Array, *known: object) -> np.ndarray:
        return as_numpy(predictive_entropy(as_floats(predictions).mean(dim=-1).softmax(dim=1)))


def names() -> list[str]:
    """The methods that go by name: the registered heuristics that can choose by themselves, and "logit_entropy"."""
    return sorted({*HEURISTICS, "logit_entropy"} - {"precomputed"})


def name_of(method: Method) -> str:
    """What a method is called in the results. Raises `ValueError` for a name that isn't known."""
    if not isinstance(method, str):
        return method[0]
    if method not in names():
        raise ValueError(f"Expected a method among {names()}, or a name with a function, got {method!r}.")
    return method


def heuristic_for(method: Method, seed: int, step: int) -> AbstractHeuristic:
    """The heuristic of a query, with a chance of its own; what `takes` says is the same at every step."""
    rng = generator(seed, "query", step)
    if not isinstance(method, str):
        return method[1](rng)
    return LogitEntropy() if method == "logit_entropy" else get_heuristic(method, seed=rng)


def predict(
    shape: Shape, layers: Layers, lanes: Lanes, inputs: Tensor, draws: int, step: int, keep: int
) -> tuple[Tensor, Tensor]:
    """Probabilities and logits of every draw, `[run, item, class, draw]`, for the first `keep` items.

    `inputs` are `[run, item, feature]`. Runs of one seed are scored under the same masks.
    """
    factors = network.draw_factors(shape, lanes.seeds, draws, "score", step, inputs.device)
    spread = [lanes.spread(factor) for factor in factors]
    logits = inputs.new_empty(len(spread[0]), keep, shape.sizes[-1], draws)
    for where, part in network.draw_logits(layers, inputs, spread):
        room = logits[:, where]
        room.copy_(part[:, :, : room.shape[1]].permute(0, 2, 3, 1))
    return logits.softmax(dim=2), logits


def candidates(items: Ints, labelled: Ints, seed: int, step: int, share: float, least: int) -> Ints:
    """Among which items a run chooses: those without a label, or a share of them, in the order of `items`.

    The share is drawn from all items, and so is nearly the same for runs of one seed that have asked differently.
    """
    left = items[~np.isin(items, labelled)]
    if share == 1:
        return left
    drawn = items[generator(seed, "scored", step).permutation(len(items))]
    drawn = drawn[~np.isin(drawn, labelled)][: max(least, round(share * len(left)))]
    return left[np.isin(left, drawn)]


def chosen(
    heuristic: AbstractHeuristic,
    n: int,
    pool: Ints,
    labelled: Ints,
    features: Tensor,
    layers: Layers,
    predictions: tuple[Tensor, Tensor] | None,
    targets: Tensor | None,
) -> Ints:
    """The `n` items of `pool` to ask about, first first, for one run.

    `predictions` are its probabilities and logits `[item, class, draw]`, `targets` the probabilities of the target
    items. `features` are those of all items. A heuristic that looks at predictions too gets, as "features", what goes
    into the last layer; one that doesn't gets the features themselves.
    """
    where = torch.from_numpy(pool).to(features.device)
    known: list[object] = []
    for name in heuristic.takes:
        if name == "items":
            known.append(pool)
        elif name == "features":
            own = features[where]
            known.append(network.last_hidden(layers, own[None])[0] if "predictions" in heuristic.takes else own)
        elif name == "labelled_features":
            known.append(features[torch.from_numpy(labelled).to(features.device)])
        elif name == "target_predictions":
            known.append(targets)
        else:
            assert predictions is not None
            known.append(predictions[name == "logits"])
    ranks, _ = heuristic.sized(n).ranking(*known)
    return pool[ranks[:n]]


def looked_at(heuristics: Sequence[AbstractHeuristic]) -> set[str]:
    """All that any of the heuristics takes."""
    return {name for heuristic in heuristics for name in heuristic.takes}

"""LURE put to the test: the pool's loss, estimated from a few of its items that were not drawn evenly."""

from __future__ import annotations

import numpy as np
import torch

from baal_widgets.active.heuristics import GibbsSampling, Precomputed
from baal_widgets.active.scores import predictive_entropy
from baal_widgets.arrays import as_floats
from baal_widgets.risk import lure_risk, sequential_proposals
from baal_widgets.simulation import network, selection
from baal_widgets.simulation.network import Shape
from baal_widgets.simulation.protocol import Case, Pool, Protocol
from baal_widgets.simulation.randomness import generator
from baal_widgets.simulation.training import Lanes, train

CPU = torch.device("cpu")


def risks(
    pool: Pool, case: Case, protocol: Protocol, seed: int, drawn: int = 100, repetitions: int = 2000
) -> dict[str, float]:
    """The mean loss of a seed's first network on what it has not learned from: of the whole "pool", and the means over
    `repetitions` of what `drawn` of its items say, as they are ("naive") and weighed ("lure").

    Items are drawn without replacement, in proportion to the exponential of their entropy over its spread.
    """
    items, labels = case(pool, seed)
    shape = Shape((pool.features.shape[1], *protocol.hidden, pool.n_classes), protocol.dropout)
    features = as_floats(pool.features).float()
    order = generator(seed, "initial").permutation(items)
    learned, left = order[: protocol.initial], np.sort(order[protocol.initial :])
    lanes, given = Lanes.of([seed], CPU), torch.from_numpy(labels)
    weights = train(shape, protocol, lanes, features, *_batch(learned, given), step=0)
    inputs = features[torch.from_numpy(left)][None]
    layers = shape.layers(weights)
    p = selection.predict(shape, layers, lanes, inputs, protocol.draws, 0, len(left))[0][0]
    own = torch.log_softmax(network.logits(layers, inputs)[0], dim=1)
    losses = -own.gather(1, given[torch.from_numpy(left)][:, None])[:, 0].double().numpy()
    scores = predictive_entropy(p).double().numpy()
    ask = GibbsSampling(Precomputed(reverse=True), drawn, float(scores.std()), generator(seed, "draws"))
    naive, corrected = [], []
    for _ in range(repetitions):
        chosen, shares = ask.get_ranks(scores)
        naive.append(losses[chosen].mean())
        corrected.append(float(lure_risk(losses[chosen], sequential_proposals(shares, chosen), len(losses))))
    return {"pool": float(losses.mean()), "naive": float(np.mean(naive)), "lure": float(np.mean(corrected))}


def _batch(items: np.ndarray, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    chosen = torch.from_numpy(items)[None]
    return chosen, labels[chosen]

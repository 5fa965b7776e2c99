"""BatchBALD beside Baal's and batchbald_redux's, and how its cost grows."""

from __future__ import annotations

import numpy as np
import torch

from baal_widgets.active.batches import batchbald
from benchmarks.harness import Comparison, Growth, Quality, whatever


def pool(items, draws, classes=10, device="cpu"):
    """Predictions `[item, class, draw]` of a model that is unsure of some items and sure of others; float32."""
    rng = np.random.default_rng(0)
    sharpness = rng.uniform(0.5, 3, size=(items, 1, 1))
    logits = sharpness * (rng.normal(size=(items, classes, 1)) + rng.normal(size=(items, classes, draws)))
    return torch.from_numpy(logits).softmax(dim=1).float().to(device)


def joint_information(probabilities, picked, samples=20_000):
    """I(labels of the picks; weights) in nats, estimated from the same draws of labels whoever picked."""
    rng = np.random.default_rng(0)
    chosen = np.asarray(probabilities)[np.asarray(picked)].astype(float)
    items, _, draws = chosen.shape
    weights = rng.integers(draws, size=samples)
    likelihood = np.zeros((samples, draws))
    for item in chosen:
        edges = item.cumsum(axis=0)[:, weights].T
        label = (rng.random((samples, 1)) > edges).sum(axis=1).clip(max=item.shape[0] - 1)
        likelihood += np.log(item[label] + 1e-300)
    highest = likelihood.max(axis=1, keepdims=True)
    marginal = highest[:, 0] + np.log(np.exp(likelihood - highest).mean(axis=1))
    return float((likelihood[np.arange(samples), weights] - marginal).mean())


def told(picked, items, draws, batch):
    return joint_information(pool(items, draws), picked)


def beside_baal(device, items, draws, batch):
    from baal.active.heuristics import BatchBALD

    predictions = pool(items, draws, device=device)
    theirs = BatchBALD(num_samples=batch)
    array = predictions.cpu().numpy()

    def baals():
        torch.manual_seed(0)
        return theirs.get_ranks(array)[0][:batch]

    return {"baal_widgets": lambda: batchbald(predictions, batch, rng=0).items.cpu().numpy(), "Baal 2.1": baals}


def beside_redux(device, items, draws, batch):
    from batchbald_redux.batchbald import get_batchbald_batch

    predictions = pool(items, draws, device=device)
    logs = predictions.double().log().transpose(1, 2).contiguous()

    def redux():
        torch.manual_seed(0)
        return get_batchbald_batch(logs, batch, 10_000, dtype=torch.double, device=device).indices

    return {"baal_widgets": lambda: batchbald(predictions, batch, rng=0).items.cpu().numpy(), "batchbald_redux": redux}


def picking(items=2_000, draws=20, batch=10):
    """`batchbald` with one of its sizes left open."""

    def run(device, size):
        told = {"items": items, "draws": draws, "batch": batch}
        told = {name: size if value is None else value for name, value in told.items()}
        predictions = pool(told["items"], told["draws"], device=device)
        return lambda: batchbald(predictions, told["batch"], rng=0)

    return run


INFORMATION = Quality(name="joint information, nats", of=told, slack=0.005)

COMPARISONS = [
    Comparison(
        "batchbald beside baal",
        "BatchBALD, {batch} of {items:,}, {draws} draws, 10 classes",
        "Baal 2.1",
        100,
        beside_baal,
        sizes={"items": 2_000, "draws": 20, "batch": 10},
        quick={"items": 30, "draws": 5, "batch": 3},
        slow=["Baal 2.1"],
        agree=whatever,
        quality=INFORMATION,
    ),
    Comparison(
        "batchbald beside redux",
        "BatchBALD, {batch} of {items:,}, {draws} draws, 10 classes",
        "batchbald_redux",
        20,
        beside_redux,
        sizes={"items": 2_000, "draws": 100, "batch": 20},
        quick={"items": 30, "draws": 5, "batch": 3},
        slow=["batchbald_redux"],
        agree=whatever,
        quality=INFORMATION,
    ),
    Growth(
        "over items", "BatchBALD, 10 of so many, 20 draws", [1_000, 4_000, 16_000], picking(items=None), at_most=1.1
    ),
    Growth("over draws", "BatchBALD, 10 of 2,000, so many draws", [10, 40, 160], picking(draws=None), at_most=1.1),
    Growth(
        "over picks",
        "BatchBALD, so many of 2,000, 20 draws",
        [5, 10, 20, 40],
        picking(batch=None),
        at_most=2,
        quick=[2, 4],
        note="The first picks are cheap, since the joint distribution of a few labels is small and exact.",
    ),
]

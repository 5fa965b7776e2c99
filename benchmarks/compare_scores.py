"""Scores of single items beside Baal's, whole and streamed, and how far they are from what memory allows."""

from __future__ import annotations

import numpy as np

from baal_widgets.active import heuristics
from baal_widgets.active.running import RunningScores
from baal_widgets.active.scores import bald
from benchmarks.harness import Comparison, Growth, Limit


def predictions(items, classes, draws):
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(items, classes, draws)).astype(np.float32)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def beside_baal(name):
    def ways(device, items, classes, draws):
        from baal.active import heuristics as baals

        told = predictions(items, classes, draws)
        ours, theirs = getattr(heuristics, name)(), getattr(baals, name)()
        return {
            "baal_widgets": lambda: ours.get_uncertainties(told),
            "Baal 2.1": lambda: theirs.get_uncertainties(told),
        }

    return ways


def streamed(device, items, classes, draws):
    """Draws that come one at a time: kept and scored as Baal must, or only summed."""
    import torch
    from baal.active.heuristics import BALD

    def drawn():
        generator = torch.Generator().manual_seed(0)
        for _ in range(draws):
            yield torch.randn(items, classes, generator=generator).softmax(dim=1)

    def ours():
        running = RunningScores()
        for draw in drawn():
            running.add(draw[..., None])
        return running.bald.numpy()

    def theirs():
        kept = np.empty((items, classes, draws), np.float32)
        for place, draw in enumerate(drawn()):
            kept[..., place] = draw.numpy()
        return BALD().get_uncertainties(kept)

    return {"baal_widgets": ours, "Baal 2.1": theirs}


def grown(items=20_000, classes=10, draws=20):
    def run(device, size):
        told = [size if value is None else value for value in (items, classes, draws)]
        array = predictions(*told)
        return lambda: bald(array)

    return run


def read_once(device, items, classes, draws):
    """BALD has to read every number once: `bald` alone, of probabilities."""
    import torch

    told = torch.from_numpy(predictions(items, classes, draws)).to(device)
    return (lambda: bald(told)), 4.0 * told.numel()


SIZES = {"items": 50_000, "classes": 10, "draws": 20}
QUICK = {"items": 60, "classes": 4, "draws": 5}
WORK = "{items:,} items, {classes} classes, {draws} draws"

COMPARISONS = [
    Comparison(
        "bald",
        f"BALD: {WORK}",
        "Baal 2.1",
        4,
        beside_baal("BALD"),
        sizes=SIZES,
        quick=QUICK,
        note="The logarithms alone of so many numbers take nearly half of our time.",
    ),
    Comparison("entropy", f"Entropy: {WORK}", "Baal 2.1", 1, beside_baal("Entropy"), sizes=SIZES, quick=QUICK),
    Comparison("streamed", f"BALD, draw by draw: {WORK}", "Baal 2.1", 1, streamed, sizes=SIZES, quick=QUICK),
    Comparison(
        "streamed, memory",
        f"BALD, draw by draw, peak memory: {WORK}",
        "Baal 2.1",
        5,
        streamed,
        sizes=SIZES,
        quick=QUICK,
        measures="bytes",
    ),
    Growth("bald over items", "BALD of so many items", [10_000, 40_000, 160_000], grown(items=None), at_most=1.1),
    Growth("bald over classes", "BALD of so many classes", [10, 40, 160], grown(classes=None), at_most=1.1),
    Growth("bald over draws", "BALD of so many draws", [10, 40, 160], grown(draws=None), at_most=1.1),
    Limit("bald, bytes", f"BALD reading once: {WORK}", "bytes", read_once, sizes=SIZES, quick=QUICK),
]

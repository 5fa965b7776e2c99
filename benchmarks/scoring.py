"""How long MC-Dropout takes to score images, beside Baal on the same model: `python benchmarks/scoring.py`.

Each repetition runs every way once, one after the other, so that whatever else the machine does meets all alike. Prints
medians and their ratios, and writes them as JSON with `--out`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
import warnings

import numpy as np
import torch
from torch import nn
from torchvision.models import vgg16

from baal_widgets import MCDropoutModule, ModelWrapper
from baal_widgets.active.heuristics import BALD


def baals(model, images, draws, caching):
    """Baal's wrapper, its own way or with its cache for deterministic layers."""
    from baal import ModelWrapper as BaalWrapper
    from baal.bayesian.caching_utils import MCCachingModule
    from baal.bayesian.dropout import MCDropoutModule as BaalDropout
    from baal.modelwrapper import TrainingArgs

    model = BaalDropout(model)
    args = TrainingArgs(batch_size=len(images), use_cuda=images.is_cuda, replicate_in_memory=not caching)
    wrapper = BaalWrapper(MCCachingModule(model) if caching else model, args)
    wrapper.eval()
    return lambda: wrapper.predict_on_batch(images, draws)


def ours(model, images, draws):
    wrapper = ModelWrapper(MCDropoutModule(model), device=images.device)
    wrapper.eval()
    return lambda: wrapper.predict_on_batch(images, draws)


def floor(model, images, draws):
    """No sampler can do less: what comes before the first dropout once, and the rest for every draw."""
    model.eval()

    def run():
        with torch.no_grad():
            before = model.classifier[:2](torch.flatten(model.avgpool(model.features(images)), 1))
            return model.classifier[3:](before.repeat(draws, 1))

    return run


def timed(run, cuda):
    began = time.perf_counter()
    run()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=32, help="pixels a side of the images")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", help="where to write the figures as JSON")
    told = parser.parse_args()

    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    images = torch.randn(told.images, 3, told.side, told.side, device=told.device)

    def made() -> nn.Module:
        torch.manual_seed(0)
        return vgg16(num_classes=10).to(told.device).eval()

    ways = {
        "floor": floor(made(), images, told.draws),
        "baal_widgets": ours(made(), images, told.draws),
        "Baal": baals(made(), images, told.draws, caching=False),
        "Baal, caching": baals(made(), images, told.draws, caching=True),
    }
    scores = {name: BALD().get_uncertainties(run()).mean() for name, run in ways.items() if name != "floor"}
    assert np.ptp(list(scores.values())) < 0.5 * max(scores.values()), scores  # all score the same thing
    seconds = {name: [] for name in ways}
    for _ in range(told.repetitions):
        for name, run in ways.items():
            seconds[name].append(timed(run, images.is_cuda))
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    print(f"VGG-16, {told.images} images of {told.side} x {told.side}, {told.draws} draws, {told.device}")
    for name, median in medians.items():
        spread = f"{min(seconds[name]):.3f} to {max(seconds[name]):.3f}"
        print(f"{name:14} {median:8.3f} s  ({spread})  {median / medians['baal_widgets']:6.2f} x baal_widgets")
    if told.out:
        machine = {"machine": platform.machine(), "torch": torch.__version__, "threads": torch.get_num_threads()}
        with open(told.out, "w") as file:
            json.dump({**vars(told), **machine, "seconds": seconds, "medians": medians}, file, indent=1)


if __name__ == "__main__":
    main()

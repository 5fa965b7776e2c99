"""MC-Dropout scoring of images beside Baal on the same model: time, memory, growth, and the distance to the machine."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from torchvision.models import vgg16

from baal_widgets import MCDropoutModule, ModelWrapper, TrainingArgs
from baal_widgets.active.heuristics import BALD
from benchmarks.harness import FLOOR, OURS, Comparison, Growth, Limit

DEFAULT, CACHING = "Baal 2.1", "Baal 2.1, MCCachingModule"


class Images(Dataset):
    """Noise shaped as images; each with a target that nobody looks at, which Baal's wrapper wants."""

    def __init__(self, items, side):
        self.images = torch.randn(items, 3, side, side, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, item):
        return self.images[item], 0


def model_on(device, hidden):
    """VGG-16 with He's weights, and its own classifier where `hidden` is 4096."""
    torch.manual_seed(0)
    with torch.device("meta"):
        model = vgg16(num_classes=10, init_weights=False)
        for layer, (inputs, outputs) in {0: (25088, hidden), 3: (hidden, hidden), 6: (hidden, 10)}.items():
            model.classifier[layer] = nn.Linear(inputs, outputs)
    model.to_empty(device=device)
    with torch.no_grad():
        for one in model.parameters():
            bound = (6 / one[0].numel()) ** 0.5 if one.ndim > 1 else 0
            one.uniform_(-bound, bound)
    return model.eval()


def ours(device, hidden, items, side, batch, draws):
    wrapper = ModelWrapper(MCDropoutModule(model_on(device, hidden)), TrainingArgs(batch_size=batch), device=device)
    data = Images(items, side)
    return lambda: wrapper.scores_on_dataset(data, BALD(), iterations=draws)


def baals(device, hidden, items, side, batch, draws, caching=False):
    from baal import ModelWrapper as BaalWrapper
    from baal.active.heuristics import BALD as BaalBALD  # noqa: N811
    from baal.bayesian.caching_utils import MCCachingModule
    from baal.bayesian.dropout import MCDropoutModule as BaalDropout
    from baal.modelwrapper import TrainingArgs as BaalArgs

    model = BaalDropout(model_on(device, hidden))
    args = BaalArgs(batch_size=batch, use_cuda=device.startswith("cuda"), replicate_in_memory=not caching, workers=0)
    wrapper, data = BaalWrapper(MCCachingModule(model) if caching else model, args), Images(items, side)

    def run():
        parts = wrapper.predict_on_dataset_generator(data, iterations=draws, verbose=False)
        return BaalBALD().get_uncertainties_generator(parts)

    return run


def floor(device, hidden, items, side, batch, draws):
    """One deterministic pass over the images, and what comes after the first dropout for every draw, batch by batch."""
    model, data = model_on(device, hidden), Images(items, side).images
    first, last = model.classifier[:2], nn.Sequential(*(one for one in model.classifier[3:] if not drops(one)))

    def run():
        with torch.inference_mode():
            for images in data.split(batch):
                known = first(torch.flatten(model.avgpool(model.features(images.to(device))), 1))
                last(known.repeat(draws, 1)).cpu()

    return run


def drops(layer):
    return isinstance(layer, nn.Dropout)


def ways(device, **sizes):
    return {
        FLOOR: floor(device, **sizes),
        OURS: ours(device, **sizes),
        DEFAULT: baals(device, **sizes),
        CACHING: baals(device, **sizes, caching=True),
    }


def memory_ways(device, **sizes):
    return {OURS: ours(device, **sizes), DEFAULT: baals(device, **sizes)}


def same_scores(results):
    """Masks differ, so that scores do: their mean over the images is the same to within what the draws leave open."""
    means = {name: float(np.mean(scores)) for name, scores in results.items() if name != FLOOR}
    assert max(means.values()) < 1.5 * min(means.values()), means


def grown(**fixed):
    def run(device, size):
        sizes = {name: size if value is None else value for name, value in fixed.items()}
        return ours(device, 4096 if size >= 10 else 8, **sizes)

    return run


def operations(device, hidden, items, side, batch, draws):
    """What the split leaves to do: multiplications and additions of the layers before the first dropout, and after."""
    from torch.utils.flop_counter import FlopCounterMode

    model = model_on(device, hidden)
    with FlopCounterMode(display=False) as before, torch.no_grad():
        known = model.classifier[:2](torch.flatten(model.avgpool(model.features(torch.zeros(1, 3, side, side))), 1))
    with FlopCounterMode(display=False) as after, torch.no_grad():
        model.classifier[3:](known)
    run = ours(device, hidden, items, side, batch, draws)
    return run, items * (before.get_total_flops() + draws * after.get_total_flops())


QUICK = {"hidden": 256, "items": 3, "side": 32, "batch": 2, "draws": 20}
SMALL, LARGE = (
    {"hidden": 4096, "items": 96, "side": 32, "batch": 16, "draws": 20},
    {"hidden": 4096, "items": 4, "side": 224, "batch": 2, "draws": 20},
)
CACHED = (
    "MCCachingModule leaves as many multiplications as we do, and reads the weights more often; with a mask for each "
    "item none can be left out. The floor, one pass and the products of the draws alone, was 2.8x as fast as it at "
    "32 x 32: 5x would take masks that the items share."
)
FLOPS = (
    "At 32 x 32 twenty whole passes are 8.65 thousand million multiplications an image, one pass and twenty ends of it "
    "0.75: 11.5 times fewer. More than that must come from quicker kernels. "
)
WORK = "BALD of {items} images of {side} x {side} by VGG-16, {draws} draws, batches of {batch}"

COMPARISONS = (
    [
        Comparison(
            f"vgg16-{sizes['side']}",
            WORK,
            DEFAULT,
            12,
            ways,
            sizes=sizes,
            quick=QUICK,
            within=1.3,
            also={CACHING: least},
            repetitions=3,
            slow=(DEFAULT,),
            agree=same_scores,
            note=more + CACHED,
        )
        for sizes, least, more in ((SMALL, 2, FLOPS), (LARGE, 1.5, ""))
    ]
    + [
        Comparison(
            f"vgg16-{sizes['side']}-memory",
            f"Memory above the model: {WORK}",
            DEFAULT,
            5,
            memory_ways,
            sizes=sizes,
            quick=QUICK,
            measures="bytes",
            agree=same_scores,
        )
        for sizes in ({**SMALL, "items": 32}, {**LARGE, "items": 2})
    ]
    + [
        Growth(
            "vgg16 over draws",
            "BALD of 16 images of 32 x 32 by VGG-16, so many draws",
            [10, 20, 40, 80],
            grown(items=16, side=32, batch=16, draws=None),
            at_most=1.0,
            quick=[2, 4],
            repetitions=3,
        ),
        Growth(
            "vgg16 over images",
            "BALD of so many images of 32 x 32 by VGG-16, 20 draws, batches of 16",
            [16, 32, 64, 128],
            grown(items=None, side=32, batch=16, draws=20),
            at_most=1.05,
            quick=[2, 4],
            repetitions=3,
        ),
        Limit(
            "vgg16 of the machine",
            f"{WORK}: arithmetic that the split leaves",
            "flops",
            operations,
            sizes=SMALL,
            quick=QUICK,
            repetitions=3,
        ),
    ]
)

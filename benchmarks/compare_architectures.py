"""MC-Dropout scoring of other kinds of models beside Baal's default: small ones, one of each kind."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from torchvision.models import VisionTransformer, efficientnet_b0, mobilenet_v3_small, resnet18

from baal_widgets import MCDropoutModule, ModelWrapper, TrainingArgs
from baal_widgets.active.heuristics import BALD
from benchmarks.compare_scoring import model_on
from benchmarks.harness import OURS, Comparison, whatever

AGAINST = "Baal 2.1"
WORDS = 32, 64  # words of an item, numbers of a word


class Noise(Dataset):
    """Images, or sentences of words that are numbers already; each with a target that nobody looks at."""

    def __init__(self, items, *shape):
        self.items = torch.randn(items, *shape, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, item):
        return self.items[item], 0


class Sentences(nn.Module):
    """A model of sentences, whose last word's state goes through a dropout into the classes."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.dropout, self.last = inner, nn.Dropout(0.5), nn.Linear(128, 10)

    def forward(self, words):
        states = self.inner(words)
        states = states[0] if isinstance(states, tuple) else states
        return self.last(self.dropout(states[:, -1]))


def resnet():
    model = resnet18(num_classes=10)
    model.fc = nn.Sequential(nn.Dropout(0.5), model.fc)
    return model


def vit():
    return VisionTransformer(64, 16, 4, 4, 128, 512, dropout=0.1, num_classes=10)


def lstm():
    return Sentences(nn.LSTM(WORDS[1], 128, num_layers=2, batch_first=True))


def encoder():
    layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.1, batch_first=True)
    words = nn.Linear(WORDS[1], 128)
    return Sentences(nn.Sequential(words, nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)))


MODELS = {
    "vgg16": lambda: model_on("cpu", 512),
    "resnet18": resnet,
    "mobilenet_v3_small": lambda: mobilenet_v3_small(num_classes=10),
    "efficientnet_b0": lambda: efficientnet_b0(num_classes=10),
    "vit": vit,
    "lstm": lstm,
    "transformer encoder": encoder,
}


def made(model, data):
    """A model in `eval` mode whose logits differ by about 1: some begin with zeros, and then masks change nothing."""
    torch.manual_seed(0)
    built = MODELS[model]().eval()
    last = [layer for layer in built.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        nn.init.normal_(last.weight)
        last.weight /= built(data.items[:8]).std()
    return built


def ways(device, model, items, shape, draws):
    from baal import ModelWrapper as BaalWrapper
    from baal.active.heuristics import BALD as BaalBALD  # noqa: N811
    from baal.bayesian.dropout import MCDropoutModule as BaalDropout
    from baal.modelwrapper import TrainingArgs as BaalArgs

    data = Noise(items, *shape)
    built = made(model, data).to(device)
    ours = ModelWrapper(MCDropoutModule(built), TrainingArgs(batch_size=8), device=device)
    args = BaalArgs(batch_size=8, use_cuda=device.startswith("cuda"), workers=0)
    theirs = BaalWrapper(BaalDropout(built), args)

    def baals():
        parts = theirs.predict_on_dataset_generator(data, iterations=draws, verbose=False)
        return BaalBALD().get_uncertainties_generator(parts)

    return {OURS: lambda: ours.scores_on_dataset(data, BALD(), iterations=draws), AGAINST: baals}


def alike(results):
    """Masks differ, so that scores do: their mean is about the same."""
    means = {name: float(np.mean(scores)) for name, scores in results.items()}
    assert max(means.values()) < 1.5 * min(means.values()), means


def beside(model, least, items, shape, what="a head of dropout", agree=alike, note=""):
    return Comparison(
        model,
        f"BALD of {{items}} items {'x'.join(map(str, shape))} by {model} with {what}, {{draws}} draws, batches of 8",
        AGAINST,
        least,
        ways,
        sizes={"model": model, "items": items, "shape": shape, "draws": 20},
        quick={"model": model, "items": 8, "shape": shape, "draws": 20},
        repetitions=3,
        slow=(AGAINST,),
        agree=agree,
        note=note,
    )


SMALL = (3, 64, 64)
COMPARISONS = [
    beside("vgg16", 5, 8, (3, 32, 32), "its own classifier, 512 wide"),
    beside("resnet18", 5, 8, SMALL),
    beside("mobilenet_v3_small", 5, 32, SMALL, "its own classifier"),
    beside("efficientnet_b0", 5, 8, SMALL, "its own classifier"),
    beside("vit", 1, 32, SMALL, "dropout throughout",
           note="Only the patches are made before the first dropout: the draws are nearly all there is to do."),
    beside("lstm", 5, 64, WORDS),
    beside("transformer encoder", None, 64, WORDS, "dropout throughout", whatever,
           note="Baal leaves the dropout inside the encoder off, and takes torch's fused layer past it: it does less."),
]  # fmt: skip

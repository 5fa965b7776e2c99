"""A session goes on in the arithmetic that it had found, also where another would be found now."""

import pytest
import torch
from torch import nn

from baal_widgets import ModelWrapper, TrainingArgs
from baal_widgets.bayesian import trials
from baal_widgets.session import LabellingSession
from baal_widgets.training import Training
from tests.test_session import timeless

CLASSES = ["a", "b"]
QUICK = Training(batch_size=16, lr=1e-2, min_steps=5, max_steps=10, window=4)


class Pool(torch.utils.data.Dataset):
    def __init__(self, n=150, seed=0):
        self.images = torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, item):
        return self.images[item], int(self.images[item].mean() > 0)


ORACLE = [Pool()[item][1] for item in range(150)]


def wrapper(arithmetic):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(256, 2)
    return ModelWrapper(nn.Sequential(*layers), TrainingArgs(criterion=nn.CrossEntropyLoss(), arithmetic=arithmetic))


def options(arithmetic):
    return {"training": QUICK, "iterations": 5, "query_size": 4, "test_set": Pool(40, 1), "device": "cpu",
            "model": wrapper(arithmetic)}  # fmt: skip


def clock(monkeypatch, fast):
    """Time by which the fast layout takes a hundredth of any other, or a hundred times as long."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    monkeypatch.setattr(trials, "SHARE", 4.0)
    monkeypatch.setattr(trials, "CORRELATION", 0.99)  # it is found out here whether a choice is kept, not what it takes
    now, real = [0.0], nn.Conv2d.forward

    def forward(self, x):
        now[0] += 1.0 if x.is_contiguous() == (not fast) else 100.0
        return real(self, x)

    monkeypatch.setattr(nn.Conv2d, "forward", forward)
    monkeypatch.setattr(trials, "clock_of", lambda _: lambda: now[0])


@pytest.mark.parametrize("fast", [True, False])
def test_a_session_that_is_resumed_keeps_to_what_it_had_found(fast, monkeypatch, tmp_path):
    clock(monkeypatch, fast)
    whole = LabellingSession(Pool(), classes=CLASSES, journal=tmp_path / "whole.db", **options("measured"))
    whole.simulate(ORACLE, rounds=3)
    with LabellingSession(Pool(), classes=CLASSES, journal=tmp_path / "parts.db", **options("measured")) as part:
        part.simulate(ORACLE, rounds=1)
        assert part.history[-1]["arithmetic"] == (["channels_last"] if fast else [])
    monkeypatch.undo()
    clock(monkeypatch, not fast)
    for rounds in (1, 1):
        with LabellingSession(Pool(), classes=CLASSES, journal=tmp_path / "parts.db", **options("measured")) as part:
            part.simulate(ORACLE, rounds=rounds)
            assert timeless(part.history) == timeless(whole.history)[: part.round]
    assert timeless(whole.history)[-1]["arithmetic"] == (["channels_last"] if fast else [])


def test_a_session_on_the_processor_is_plain_and_says_nothing_of_it(monkeypatch):
    clock(monkeypatch, True)
    session = LabellingSession(Pool(), classes=CLASSES, journal=None, **options("auto"))
    session.simulate(ORACLE, rounds=1)
    assert "arithmetic" not in session.history[-1]

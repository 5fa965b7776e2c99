"""All draws in one pass: deterministic layers run once for each image, and the numbers are those of naive passes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer, efficientnet_b0, mobilenet_v3_small, resnet18, vgg16

from baal_widgets.bayesian.common import sample, sample_calls
from baal_widgets.bayesian.consistent_dropout import MCConsistentDropoutModule
from baal_widgets.bayesian.dropout import MCDropoutModule
from baal_widgets.bayesian.passes import CopyError, DrawsPerItem
from baal_widgets.bayesian.together import items_at_once, stochastic_parts, within_budget

DRAWS, ITEMS = 3, 2


class Around(nn.Module):
    """A residual connection around a dropout, behind a layer that is dear enough to be run once."""

    def __init__(self, dropout=None):
        super().__init__()
        self.before, self.dropout, self.after = nn.Linear(6, 3000), dropout or nn.Dropout(0.5), nn.Linear(3000, 3)
        self.dear = nn.Sequential(nn.Linear(3000, 3000), nn.ReLU(), nn.Linear(3000, 3000), nn.ReLU())

    def forward(self, x):
        x = self.dear(self.before(x))
        return self.after(x + F.relu(self.dropout(x)))


class Counted(Around):
    """Asks how many items there are before it drops."""

    def forward(self, x):
        n = len(x)
        return self.after(self.dropout(self.dear(self.before(x))).view(n, -1))


class ByFunction(Around):
    """The whole model counts as the stochastic part, since its own `forward` drops."""

    def forward(self, x):
        x = self.dear(self.before(x))
        return self.after(x + F.dropout(x, 0.5, training=self.training))


class InPlace(Around):
    """Adds what was dropped to what wasn't, in place, which no mapped pass can do."""

    def forward(self, x):
        x = self.dear(self.before(x))
        x += self.dropout(x)
        return self.after(x)


class Sentence(nn.Module):
    def __init__(self, kind, batch_first=True):
        super().__init__()
        self.batch_first, self.before, self.after = batch_first, nn.Linear(6, 8), nn.Linear(8, 3)
        self.inner = kind(batch_first)

    def forward(self, x):
        x = self.before(x)
        out = self.inner(x if self.batch_first else x.transpose(0, 1))
        out = out[0] if isinstance(out, tuple) else out
        return self.after(out.mean(1 if self.batch_first else 0))


def encoder(batch_first):
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=batch_first)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def recurrent(batch_first):
    return nn.LSTM(8, 8, num_layers=2, dropout=0.5, batch_first=batch_first)


def gated(batch_first):
    return nn.GRU(8, 8, num_layers=2, dropout=0.5, batch_first=batch_first)


def resnet():
    model = resnet18(num_classes=3)
    model.fc = nn.Sequential(nn.Dropout(0.5), model.fc)
    return model


def vit():
    model = VisionTransformer(32, 8, 2, 2, 32, 64, dropout=0.2, attention_dropout=0.2, num_classes=3)
    nn.init.normal_(model.heads.head.weight)  # torchvision begins with zeros
    return model


IMAGES, ROWS, WORDS = (3, 32, 32), (6,), (5, 6)
# how to build it, an item's shape, a module that no dropout comes before
KINDS = {
    "vgg16": (lambda: vgg16(num_classes=3), IMAGES, "features"),
    "resnet18 with a dropout head": (resnet, IMAGES, "layer4"),
    "mobilenet_v3_small": (lambda: mobilenet_v3_small(num_classes=3), IMAGES, "features"),
    "efficientnet_b0": (lambda: efficientnet_b0(num_classes=3), IMAGES, "features"),
    "vit": (vit, IMAGES, "conv_proj"),
    "a residual connection around a dropout": (Around, ROWS, "dear"),
    "a residual connection around a dropout in place": (lambda: Around(nn.Dropout(0.5, inplace=True)), ROWS, "dear"),
    "a batch that is counted": (Counted, ROWS, "dear"),
    "functional dropout": (ByFunction, ROWS, "dear"),
    "LSTM": (lambda: Sentence(recurrent), WORDS, "before"),
    "LSTM, time first": (lambda: Sentence(recurrent, False), WORDS, "before"),
    "GRU": (lambda: Sentence(gated), WORDS, "before"),
    "TransformerEncoder": (lambda: Sentence(encoder), WORDS, "before"),
    "TransformerEncoder, time first": (lambda: Sentence(encoder, False), WORDS, "before"),
}


def made(name, wrap=MCDropoutModule):
    build, shape, before = KINDS[name]
    torch.manual_seed(0)
    model = wrap(build().eval()).eval()
    return model, torch.randn(ITEMS, *shape), model.parent_module.get_submodule(before)


@pytest.mark.parametrize("name", KINDS)
def test_what_comes_before_the_first_dropout_runs_once_for_each_image_from_the_first_batch_on(name):
    model, x, before = made(name)
    rows = []
    before.register_forward_hook(lambda _, __, output: rows.append(output.shape[:1].numel()))
    with torch.no_grad():
        for _ in range(2):
            draws = model.sample(x, DRAWS)
    assert draws.shape == (ITEMS, 3, DRAWS)
    assert draws.var(dim=-1).max() > 0
    # the first batch is also where it is found out that a copy made late would not do
    assert rows in ([ITEMS, ITEMS], [ITEMS, ITEMS, ITEMS])


@pytest.mark.parametrize("name", KINDS)
def test_draws_are_those_of_naive_passes_with_the_same_masks(name):
    model, x, _ = made(name)
    with torch.no_grad():
        model.sample(x, DRAWS)
        torch.manual_seed(1)
        draws = model.sample(x, DRAWS)
        torch.manual_seed(1)
        naive = model(torch.cat([x] * DRAWS)).view(DRAWS, ITEMS, 3).permute(1, 2, 0)
    assert torch.allclose(draws, naive, atol=1e-5, rtol=1e-4)
    assert torch.equal(draws.argsort(dim=1), naive.argsort(dim=1))


@pytest.mark.parametrize("build", [InPlace, lambda: Around(nn.LSTM(3000, 3000, 2, dropout=0.5))])
def test_a_model_that_no_late_copy_suits_gives_draws_all_the_same(build):
    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = build()
            if isinstance(self.inner.dropout, nn.LSTM):
                self.inner.dropout = Both(self.inner.dropout)

        def forward(self, x):
            return self.inner(x)

    class Both(nn.Module):
        def __init__(self, lstm):
            super().__init__()
            self.lstm, self.narrow, self.wide = nn.LSTM(4, 4, 2, dropout=0.5), nn.Linear(3000, 4), nn.Linear(4, 3000)

        def forward(self, x):
            return self.wide(self.lstm(self.narrow(x)[None])[0][0])

    torch.manual_seed(0)
    model, x = MCDropoutModule(First().eval()).eval(), torch.randn(ITEMS, 6)
    with torch.no_grad():
        model.sample(x, DRAWS)
        torch.manual_seed(1)
        draws = model.sample(x, DRAWS)
        torch.manual_seed(1)
        naive = model(torch.cat([x] * DRAWS)).view(DRAWS, ITEMS, 3).permute(1, 2, 0)
    assert torch.equal(draws, naive)
    assert draws.var(dim=-1).min() > 0
    assert not any(part.can_copy or part.can_map for part in stochastic_parts(model))


def test_a_mapped_transformer_layer_gives_draws_of_the_same_distribution():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.dear, self.after = nn.Linear(8, 8), nn.Linear(8, 1)
            self.inner = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)

        def forward(self, x):
            x = self.dear(x)
            return self.after((x + self.inner(x)).mean(1))

    torch.manual_seed(0)
    model, x = MCDropoutModule(Wrapped().eval()).eval(), torch.randn(2, 4, 8)
    for part in stochastic_parts(model):
        part.can_copy = False
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("baal_widgets.bayesian.together._MAPPING", 0.0)
        draws = model.sample(x, 4000)[:, 0]
        assert all(part.can_map for part in stochastic_parts(model))
        naive = sample_calls(model, x, 4000, replicate=False)[:, 0]
    error = (draws.var(dim=-1) / 4000).sqrt() * 5
    assert ((draws.mean(dim=-1) - naive.mean(dim=-1)).abs() < error * 2**0.5).all()
    assert (draws.var(dim=-1) / naive.var(dim=-1) - 1).abs().max() < 0.25
    both = torch.corrcoef(draws)[0, 1]  # the masks of two items are independent
    assert abs(both) < 5 / 4000**0.5


def test_a_key_padding_mask_goes_with_its_items():
    class Padded(Sentence):
        def forward(self, batch):
            x = self.before(batch["x"])
            return self.after(self.inner(x, src_key_padding_mask=batch["unused"])[:, 0])

    torch.manual_seed(0)
    model = MCDropoutModule(Padded(encoder).eval()).eval()
    batch = {"x": torch.randn(ITEMS, 5, 6), "unused": torch.arange(5) >= torch.tensor([[3], [5]])}
    with torch.no_grad():
        torch.manual_seed(1)
        draws = model.sample(batch, DRAWS)
        torch.manual_seed(1)
        naive = model({name: torch.cat([one] * DRAWS) for name, one in batch.items()})
    assert torch.allclose(draws, naive.view(DRAWS, ITEMS, 3).permute(1, 2, 0), atol=1e-6)
    assert all(part.can_copy for part in stochastic_parts(model))


@pytest.mark.parametrize("name", ["vgg16", "mobilenet_v3_small", "TransformerEncoder", "a batch that is counted"])
def test_consistent_draws_are_those_of_one_pass_for_each_and_run_what_comes_before_once(name):
    build = {"TransformerEncoder": lambda: Sentence(lambda first: nn.Sequential(nn.Dropout(0.3), encoder(first)))}
    torch.manual_seed(0)
    model = MCConsistentDropoutModule(build.get(name, KINDS[name][0])().eval()).eval()
    x, before = torch.randn(4, *KINDS[name][1]), model.parent_module.get_submodule(KINDS[name][2])
    with torch.no_grad():
        torch.manual_seed(1)
        expected = sample_calls(model, x, DRAWS, replicate=False)
        for part in model.modules():
            if hasattr(part, "redraw"):
                part.redraw()
        rows = []
        before.register_forward_hook(lambda _, __, output: rows.append(len(output)))
        torch.manual_seed(1)
        draws = model.sample(x, DRAWS)
        again = model.sample(x[1:], DRAWS)
    assert torch.allclose(draws, expected, atol=1e-5, rtol=1e-4)
    assert torch.allclose(again, draws[1:], atol=1e-5, rtol=1e-4)
    if name != "a batch that is counted":  # its copies can't be made late
        assert rows == [4, 3]


def test_consistent_draws_of_a_residual_model_fall_back_to_a_pass_for_each_draw_with_the_same_masks():
    torch.manual_seed(0)
    model, x = MCConsistentDropoutModule(Around().eval()).eval(), torch.randn(4, 6)
    with torch.no_grad():
        torch.manual_seed(1)
        draws = model.sample(x, DRAWS)
        again = sample_calls(model, x, DRAWS, replicate=False)
    assert torch.equal(draws, again)


class Deep(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(6, 64), nn.Dropout(0.5), nn.Linear(64, 4096), nn.Dropout(0.5), nn.Linear(4096, 3))
        self.rows = []
        self[3].register_forward_hook(lambda _, args, __: self.rows.append(len(args[0])))


def test_the_draws_of_a_batch_take_no_more_rows_at_once_than_the_budget_has_room_for():
    torch.manual_seed(0)
    model, x = MCDropoutModule(Deep().eval()).eval(), torch.randn(40, 6)
    row = 2 * 4096 * 4  # what a dropout takes and gives
    with torch.no_grad(), within_budget(50 * row):
        torch.manual_seed(1)
        draws = model.sample(x, 10)
        torch.manual_seed(1)
        again = model.sample(x, 10)
        assert items_at_once(model, x, 10) <= 5
    assert draws.shape == (40, 3, 10)
    assert torch.equal(draws, again)
    rows = model.parent_module.rows
    assert sum(rows) == 2 * 400
    assert 10 <= max(rows) <= 50
    with torch.no_grad():
        model.sample(x, 10)
    assert rows[-1] == 400


def test_draws_common_to_all_items_do_not_depend_on_the_budget():
    torch.manual_seed(0)
    model, x = MCConsistentDropoutModule(Deep().eval()).eval(), torch.randn(40, 6)
    with torch.no_grad():
        whole = model.sample(x, 10)
        with within_budget(1):
            assert items_at_once(model, x, 10) == 1
            parts = model.sample(x, 10)
    assert torch.allclose(whole, parts, atol=1e-6)


def test_a_pass_that_is_not_worth_mapping_is_not_mapped():
    model = MCDropoutModule(nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5)).eval()).eval()
    for part in stochastic_parts(model):
        part.can_copy = False
    rows = []
    model.parent_module[0].register_forward_hook(lambda _, __, output: rows.append(len(output)))
    sample(model, torch.randn(4, 6), DRAWS)
    assert rows == [4 * DRAWS]


def test_arguments_that_are_not_rows_of_items_are_refused():
    from baal_widgets.bayesian.passes import Copies

    layer = nn.LSTM(4, 4, 2, dropout=0.5, batch_first=True)
    copies = Copies(2, 3, [], [])
    state = torch.zeros(2, 2, 4)
    with pytest.raises(CopyError):
        copies.enter(layer, (torch.zeros(2, 5, 4), (state, state)), {})
    with pytest.raises(CopyError):
        copies.enter(nn.Dropout(), (torch.zeros(5, 4),), {})
    assert issubclass(type(MCDropoutModule(nn.Sequential(nn.Dropout())).parent_module[0]), DrawsPerItem)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["vgg16", "a residual connection around a dropout", "TransformerEncoder"])
def test_draws_on_the_gpu_differ_and_run_what_comes_before_once(name):
    model, x, before = made(name)
    model, x = model.cuda(), x.cuda()
    with torch.no_grad():
        model.sample(x, DRAWS)
        rows = []
        before.register_forward_hook(lambda _, __, output: rows.append(len(output)))
        draws = model.sample(x, DRAWS)
    assert rows == [ITEMS]
    assert draws.shape == (ITEMS, 3, DRAWS)
    assert draws.var(dim=-1).max() > 0

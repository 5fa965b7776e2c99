import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from torchvision import models

from baal_widgets import MCDropoutModule, ModelWrapper
from baal_widgets.active.scores import bald
from baal_widgets.bayesian.consistent_dropout import MCConsistentDropoutModule
from baal_widgets.bayesian.folded import FoldedDropoutModule, can_fold
from baal_widgets.bayesian.frozen import is_frozen, split
from baal_widgets.models import replace_head


def frozen(*layers):
    made = nn.Sequential(*layers)
    for parameter in made.parameters():
        parameter.requires_grad_(False)
    return made


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("resnet18", nn.Dropout),
        ("mobilenet_v3_small", nn.Dropout),
        ("vgg11", nn.Dropout),
        ("vit_b_16", nn.Dropout),
        ("convnext_tiny", nn.Dropout),
    ],
)
def test_the_head_of_a_backbone_is_what_learns_and_drops_and_makes_the_same_output(name, first):
    torch.manual_seed(0)
    model = replace_head(models.get_model(name, weights=None), 4).eval()
    images = torch.randn(2, 3, 224 if name == "vit_b_16" else 64, 224 if name == "vit_b_16" else 64)
    found = split(model, images)
    assert isinstance(found.head[0], first)
    assert not any(one.requires_grad for _, part in found.backbone() for one in part.parameters(recurse=False))
    with torch.no_grad():
        torch.testing.assert_close(found.head(found.features(images)), model(images))


def test_the_split_is_before_the_first_layer_that_drops_though_it_be_frozen():
    model = nn.Sequential(frozen(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 8)), nn.Linear(8, 2)).eval()
    assert [type(layer) for layer in split(model, torch.randn(3, 4)).head] == [nn.Dropout, nn.Linear, nn.Linear]


def test_layers_behind_the_one_that_learns_are_part_of_the_head():
    model = nn.Sequential(frozen(nn.Linear(4, 8)), nn.Dropout(0.5), nn.Linear(8, 2), nn.LogSoftmax(1)).eval()
    assert [type(layer) for layer in split(model, torch.randn(3, 4)).head] == [nn.Dropout, nn.Linear, nn.LogSoftmax]


class Residual(nn.Module):
    """Its output is not that of its head alone."""

    def __init__(self):
        super().__init__()
        self.body, self.head = frozen(nn.Linear(4, 4)), nn.Linear(4, 4)

    def forward(self, x):
        return x + self.head(self.body(x))


class Noisy(Residual):
    def forward(self, x):
        return self.head(self.body(x) + 0.1 * torch.randn_like(x))


class Twice(Residual):
    def forward(self, x):
        return self.head(self.body(self.head(x)))


@pytest.mark.parametrize("kind", [Residual, Noisy, Twice])
def test_a_model_that_does_more_than_pass_features_to_its_head_is_left_whole(kind):
    assert split(kind().eval(), torch.randn(3, 4)) is None


def test_a_model_that_learns_from_its_first_layer_on_is_left_whole():
    assert split(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2)).eval(), torch.randn(3, 4)) is None
    assert split(nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 2)).eval(), torch.randn(3, 4)) is None
    assert split(frozen(nn.Linear(4, 2)).eval(), torch.randn(3, 4)) is None


def test_a_layer_shared_with_the_backbone_that_learns_is_not_frozen():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(frozen(nn.Linear(4, 4)), shared, nn.ReLU(), shared).eval()
    assert split(model, torch.randn(3, 4)) is None


def test_normalisation_nobody_has_frozen_is_not_taken_for_frozen():
    assert not is_frozen(nn.BatchNorm2d(3, affine=False))
    assert is_frozen(frozen(nn.BatchNorm2d(3)))
    assert is_frozen(nn.BatchNorm2d(3, affine=False, track_running_stats=False))


def test_training_leaves_the_statistics_of_a_frozen_backbone_and_moves_the_others(rng):
    backbone, own = frozen(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten()), nn.BatchNorm1d(8)
    wrapper = ModelWrapper(nn.Sequential(backbone, own, nn.Linear(8, 2)), nn.CrossEntropyLoss(), device="cpu")
    before, moved = backbone[1].running_mean.clone(), own.running_mean.clone()
    data = [(torch.randn(1, 4, 4) + 3, item % 2) for item in range(16)]
    wrapper.train_on_dataset(data, batch_size=4, epoch=1)
    assert torch.equal(backbone[1].running_mean, before)
    assert backbone[1].num_batches_tracked == 0
    assert not torch.equal(own.running_mean, moved)


def test_a_frozen_backbone_trains_with_all_of_its_blocks():
    model = replace_head(models.convnext_tiny(weights=None, stochastic_depth_prob=0.9), 4, dropout=0.0)
    wrapper = ModelWrapper(model, device="cpu")
    wrapper.train()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(images), model(images))


HEADS = [
    lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(30, 4)),
    lambda: nn.Sequential(nn.Dropout(0.2), nn.Linear(30, 12, bias=False), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 4)),
    lambda: nn.Sequential(nn.Linear(30, 12), nn.Hardswish(inplace=True), nn.Dropout(0.5), nn.Linear(12, 4)),
    lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(30, 9), nn.Tanh(), nn.Linear(9, 4)),
]


@pytest.mark.parametrize("head", HEADS)
def test_folded_draws_are_those_of_the_same_masks_one_by_one(head):
    torch.manual_seed(0)
    model, data = head(), torch.randn(50, 30)
    assert can_fold(model)
    kept, given = data.clone(), []
    for kind in (FoldedDropoutModule, MCConsistentDropoutModule):
        assert torch.equal(data, kept)  # the other one lets a layer work in place
        torch.manual_seed(3)
        module = kind(model).eval()
        with torch.no_grad():
            given.append(torch.cat([module.sample(part, 7) for part in data.split(20)]))
    assert given[0].std(dim=-1).min() > 0
    torch.testing.assert_close(*given)


def test_a_wrapper_draws_from_a_head_by_one_product_a_batch(monkeypatch):
    wrapper = ModelWrapper(FoldedDropoutModule(HEADS[0]()), device="cpu")
    products, linear = [], torch.nn.functional.linear
    monkeypatch.setattr(
        "baal_widgets.bayesian.folded.F.linear", lambda *told: products.append(told[1].shape) or linear(*told)
    )
    assert wrapper.predict_on_dataset(torch.randn(50, 30), batch_size=25, iterations=7).shape == (50, 4, 7)
    assert 1 <= products.count((28, 30)) <= 2
    assert products.count((4, 30)) <= 1  # to see once what an item costs
    assert set(products) <= {(28, 30), (4, 30)}


@pytest.mark.parametrize(
    "head",
    [
        nn.Sequential(nn.Dropout(0.5), nn.ReLU(), nn.Linear(30, 4)),
        nn.Sequential(nn.Dropout(0.5), nn.Linear(30, 4), nn.BatchNorm1d(4)),
        nn.Sequential(nn.AlphaDropout(0.5), nn.Linear(30, 4)),
    ],
)
def test_heads_that_do_not_fold_are_drawn_one_by_one(head):
    assert not can_fold(head)
    draws = FoldedDropoutModule(head).eval().sample(torch.randn(6, 30), 5)
    assert draws.shape == (6, 4, 5)
    assert draws.std(dim=-1).max() > 0


def test_masks_shared_by_all_items_rank_as_near_to_the_limit_as_masks_of_their_own():
    torch.manual_seed(0)
    head, data = nn.Sequential(nn.Dropout(0.5), nn.Linear(200, 10)), torch.randn(500, 200).relu()
    with torch.no_grad():
        head[1].weight.mul_(3)
        own, shared = MCDropoutModule(head).eval(), FoldedDropoutModule(head).eval()
        limit = bald(own.sample(data, 2000).softmax(dim=1))
        near = {}
        for name, module in (("own", own), ("shared", shared)):
            found = []
            for seed in range(10):
                torch.manual_seed(seed)
                vars(module).pop("_seed", None)
                for part in module.modules():
                    if hasattr(part, "redraw"):
                        part.redraw()
                found.append(bald(module.sample(data, 20).softmax(dim=1)))
            near[name] = np.mean([spearmanr(one, limit).statistic for one in found])
            assert np.isclose(np.mean([one.mean() for one in found]), limit.mean(), rtol=0.1)
    print(near)
    assert near["shared"] > near["own"] - 0.03

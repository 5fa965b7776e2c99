"""Any posterior serves any heuristic in a session."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from baal_widgets import LabellingSession, ModelWrapper, Training
from baal_widgets.active.heuristics import EPIG, PowerBALD
from baal_widgets.bayesian.batchnorm import MCBatchNormModule
from baal_widgets.bayesian.common import BayesianModule
from baal_widgets.bayesian.consistent_dropout import MCConsistentDropoutModule
from baal_widgets.bayesian.dropout import MCDropoutModule
from baal_widgets.bayesian.gaussian_process import GaussianProcessModule
from baal_widgets.bayesian.laplace import LaplaceModule
from baal_widgets.bayesian.swag import SWAGModule
from baal_widgets.bayesian.variational import VariationalModule
from baal_widgets.bayesian.weight_drop import MCDropoutConnectModule
from baal_widgets.ensemble import EnsembleModule
from baal_widgets.learning import posterior_of
from baal_widgets.modelwrapper import TrainingArgs

CLASSES = ["low", "middle", "high"]
QUICK = Training(batch_size=16, lr=1e-2, min_steps=20, max_steps=40, window=10)


def make_data(n, seed):
    x = torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (n, 4)).astype(np.float32))
    return TensorDataset(x, torch.bucketize(x.sum(1), torch.tensor([-0.7, 0.7])))


def make_model(*, dropout=True, norm=False):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Linear(4, 32), nn.BatchNorm1d(32) if norm else nn.Identity(), nn.ReLU()]
        return nn.Sequential(*layers, *([nn.Dropout(0.3)] if dropout else []), nn.Linear(32, 3))


POOL, TEST = make_data(60, 1), make_data(50, 2)
ORACLE = POOL.tensors[1].tolist()

POSTERIORS = {
    "MC-Dropout": lambda: MCDropoutModule(make_model()),
    "consistent dropout": lambda: MCConsistentDropoutModule(make_model()),
    "DropConnect": lambda: MCDropoutConnectModule(make_model(dropout=False), ["Linear"], 0.3),
    "MC-BatchNorm": lambda: MCBatchNormModule(make_model(dropout=False, norm=True)),
    "variational": lambda: VariationalModule(make_model(dropout=False)),
    "SWAG": lambda: SWAGModule(make_model(dropout=False)),
    "Laplace": lambda: LaplaceModule(make_model(dropout=False)),
    "Gaussian process": lambda: GaussianProcessModule(make_model(dropout=False)),
    "ensemble": lambda: EnsembleModule(make_model(dropout=False), members=3),
}


def make_session(model, heuristic="bald", **options):
    told = {"query_size": 12, "training": QUICK, "iterations": 5, "test_set": TEST, "journal": None, **options}
    return LabellingSession(POOL, model, CLASSES, heuristic=heuristic, **told)


@pytest.mark.parametrize("name", POSTERIORS)
def test_every_posterior_serves_a_session(name):
    model = POSTERIORS[name]()
    held = copy.deepcopy(model.state_dict())
    session = make_session(model, query_size=24)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(laplace|curvlinops).*")
        session.simulate(ORACLE, rounds=1)
    last = session.history[-1]
    assert last["n_labelled"] == 24
    assert last["uncertainty"] > 0  # the draws differ
    assert all(torch.equal(value, held[key]) for key, value in model.state_dict().items())
    assert isinstance(session.model if not isinstance(session.model, ModelWrapper) else session.model.model, nn.Module)


@pytest.mark.parametrize(
    "heuristic",
    ["batch_bald", "ical", "epig", "badge", "coreset", "typiclust", "max_herding", "power_bald", "margin", "random"],
)
def test_every_heuristic_serves_a_session(heuristic):
    session = make_session(make_model(), heuristic, training=Training(min_steps=4, max_steps=4, window=2))
    session.simulate(ORACLE, rounds=1)
    assert session.history[-1]["n_labelled"] == 12
    assert len(set(session.ask().items)) == 12
    assert not set(session.ask().items) & set(session.labels)


def test_a_heuristic_by_name_is_there_again_after_a_restart(tmp_path):
    session = make_session(make_model(), "power_bald", journal=tmp_path / "labels.db")
    asked = session.ask()
    session.close()
    again = LabellingSession.open(tmp_path / "labels.db", POOL, make_model())
    assert type(again.heuristic) is type(PowerBALD())
    assert again.ask() == asked


def test_scores_shown_are_those_the_draw_was_made_by():
    session = make_session(make_model(), "power_bald")
    session.simulate(ORACLE, rounds=1)
    assert all(0 <= score <= np.log(3) for score in session.ask().scores)


def test_features_choose_the_first_query_where_nothing_is_labelled():
    one, two = (make_session(make_model(), "max_herding").ask() for _ in range(2))
    assert one == two
    assert all(score is not None for score in one.scores)
    assert make_session(make_model(), "bald").ask().scores == (None,) * 12


def test_items_are_weighed_together_by_the_same_models():
    assert isinstance(posterior_of(make_model(), joint=True), MCConsistentDropoutModule)
    assert type(posterior_of(make_model())) is MCDropoutModule
    ensemble = POSTERIORS["ensemble"]()
    assert posterior_of(ensemble, joint=True) is ensemble
    assert isinstance(ensemble, BayesianModule)


def test_targets_say_whose_labels_matter():
    session = make_session(make_model(), EPIG(), targets=make_data(7, 3))
    session.simulate(ORACLE, rounds=1)
    assert all(score > 0 for score in session.ask().scores)


def test_a_model_with_nothing_stochastic_is_refused_with_advice():
    with pytest.raises(ValueError, match=r"no dropout that is on.*LaplaceModule\(model\) or EnsembleModule"):
        make_session(make_model(dropout=False))


class Sentences(Dataset):
    """Sequences of 1 to 5 tokens, which a `collate_fn` has to pad."""

    def __len__(self):
        return 30

    def __getitem__(self, item):
        return torch.arange(item % 5 + 1), item % 2


def padded(pairs):
    inputs, targets = zip(*pairs, strict=True)
    return nn.utils.rnn.pad_sequence(list(inputs), batch_first=True), torch.tensor([int(one) for one in targets])


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.dropout, self.head = nn.Embedding(5, 8), nn.Dropout(0.5), nn.Linear(8, 2)

    def forward(self, tokens):
        return self.head(self.dropout(self.embedding(tokens).mean(dim=1)))


@pytest.mark.parametrize("heuristic", ["bald", "badge", "max_herding"])
def test_a_collate_fn_for_pairs_serves_where_there_are_no_targets(heuristic):
    args = TrainingArgs(criterion=nn.CrossEntropyLoss(), collate_fn=padded)
    session = LabellingSession(
        Sentences(), ModelWrapper(Reader(), args, device="cpu"), ["even", "odd"], heuristic=heuristic, query_size=6,
        training=QUICK, iterations=5, test_set=Sentences(), journal=None,
    )  # fmt: skip
    session.simulate([item % 2 for item in range(30)], rounds=1)
    assert session.history[-1]["n_test"] == 30
    assert len(session.ask().items) == 6


def test_a_session_predicts_as_the_wrapper_is_told_to():
    class Rows(nn.Linear):
        most = 0

        def forward(self, x):
            Rows.most = max(Rows.most, 0 if vars(self)["training"] else len(x))
            return super().forward(x)

    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), Rows(8, 3))
    args = TrainingArgs(criterion=nn.CrossEntropyLoss(), replicate_in_memory=False)
    make_session(ModelWrapper(model, args, device="cpu")).simulate(ORACLE, rounds=1)
    assert 0 < Rows.most <= 60


def test_the_callers_wrapper_measures_nothing_of_a_session():
    wrapper = ModelWrapper(make_model(), nn.CrossEntropyLoss(), device="cpu")
    wrapper.train_on_dataset(POOL, batch_size=32)
    measured, kept = wrapper.get_metrics("train"), copy.deepcopy(wrapper.active_learning_metrics)
    make_session(wrapper).simulate(ORACLE, rounds=1)
    assert wrapper.get_metrics("train") == measured
    assert wrapper.active_learning_metrics == kept
    assert wrapper.args.optimizer is None


def test_a_wrapper_fits_its_posterior_after_training_and_predicts_with_it():
    for name in ("ensemble", "Laplace", "SWAG", "Gaussian process", "MC-BatchNorm"):
        torch.manual_seed(0)
        wrapper = ModelWrapper(POSTERIORS[name](), nn.CrossEntropyLoss(), device="cpu")
        with pytest.raises(RuntimeError, match="fit"):
            wrapper.predict_on_dataset(POOL, iterations=4)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(laplace|curvlinops).*")
            wrapper.train_on_dataset(POOL, epoch=3)
        draws = wrapper.predict_on_dataset(POOL, iterations=4, batch_size=32)
        assert draws.shape == (60, 3, 3 if name == "ensemble" else 4)
        assert draws.var(axis=-1).max() > 0


def weight(wrapper):
    return sum(float(p.detach().square().sum()) for p in wrapper.get_params())


def test_the_penalty_of_a_posterior_is_part_of_the_training():
    class Pulling(MCDropoutModule):
        asked: list[int] = []  # noqa: RUF012

        def penalty(self, n_items):
            self.asked.append(n_items)
            return 1e3 * sum(p.square().sum() for p in self.parameters())

    wrapper = ModelWrapper(Pulling(make_model()), nn.CrossEntropyLoss(), device="cpu")
    optimizer = torch.optim.SGD(wrapper.get_params(), lr=1e-5)
    size = weight(wrapper)
    losses = wrapper.train_on_dataset(POOL, optimizer, epoch=5)
    assert set(Pulling.asked) == {60}
    assert losses[0] > 100
    assert weight(wrapper) < 0.9 * size

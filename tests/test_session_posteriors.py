"""Any posterior serves any heuristic in a session."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

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

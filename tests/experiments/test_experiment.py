import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from baal_widgets import ActiveLearningDataset, MCDropoutModule, ModelWrapper, TrainingArgs
from baal_widgets.active.heuristics import (
    BADGE,
    BALD,
    EPIG,
    ICAL,
    BatchBALD,
    CombineHeuristics,
    CoreSet,
    MaxHerding,
    PowerBALD,
    Random,
    TypiClust,
)
from baal_widgets.active.stopping_criteria import (
    LabellingBudgetStoppingCriterion,
    StabilizingPredictionsStoppingCriterion,
)
from baal_widgets.experiments import ActiveLearningExperiment, FrameworkAdapter, ModelWrapperAdapter

N, D, C = 40, 4, 3


def make_data(n, seed):
    x = torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (n, D)).astype(np.float32))
    return TensorDataset(x, torch.bucketize(x.sum(1), torch.tensor([-0.7, 0.7])))


def make_wrapper(seed=0, epoch=2, **options):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(D, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, C))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    args = TrainingArgs(optimizer, batch_size=8, epoch=epoch, criterion=nn.CrossEntropyLoss(), use_cuda=False)
    return ModelWrapper(MCDropoutModule(model), args, **options)


def make_dataset(labelled=6):
    return ActiveLearningDataset(make_data(N, 1), labelled=[item < labelled for item in range(N)])


def make_experiment(heuristic=None, wrapper=None, dataset=None, **options):
    told = {"query_size": 10, "iterations": 4, "random_state": 0, **options}
    dataset = make_dataset() if dataset is None else dataset
    return ActiveLearningExperiment(wrapper or make_wrapper(), dataset, make_data(20, 2), heuristic or BALD(), **told)


def test_it_goes_on_until_everything_is_labelled():
    experiment = make_experiment()
    records = experiment.start(verbose=False)
    assert [record["n_labelled"] for record in records] == [6, 16, 26, 36]
    assert len(experiment.al_dataset) == N
    assert all(np.isfinite(record[name]) for record in records for name in ("train_loss", "test_loss"))
    assert experiment.start(verbose=False) is records  # and is done


def test_a_criterion_ends_it():
    dataset = make_dataset()
    experiment = make_experiment(dataset=dataset, criterion=LabellingBudgetStoppingCriterion(dataset, 20))
    assert [record["n_labelled"] for record in experiment.start(verbose=False)] == [6, 16]
    assert len(dataset) == 26


def test_it_ends_with_the_pool_whatever_the_criterion_says():
    dataset = make_dataset()
    experiment = make_experiment(dataset=dataset, criterion=LabellingBudgetStoppingCriterion(dataset, 1000))
    assert [record["n_labelled"] for record in experiment.start(verbose=False)] == [6, 16, 26, 36, 40]


def test_every_round_begins_from_the_same_weights_and_optimizer_state():
    wrapper = make_wrapper()
    begun = copy.deepcopy(wrapper.state_dict())
    adapter = ModelWrapperAdapter(wrapper)
    adapter.train(make_dataset())
    assert wrapper.args.optimizer.state_dict()["state"]
    assert not torch.equal(wrapper.state_dict()["parent_module.0.weight"], begun["parent_module.0.weight"])
    adapter.reset_weights()
    assert not wrapper.args.optimizer.state_dict()["state"]
    assert all(torch.equal(value, begun[name]) for name, value in wrapper.state_dict().items())


@pytest.mark.parametrize(
    "heuristic",
    [Random, PowerBALD, EPIG, BatchBALD, ICAL, BADGE, CoreSet, TypiClust, MaxHerding],
)
def test_every_kind_of_heuristic_runs(heuristic):
    experiment = make_experiment(heuristic(seed=0) if heuristic not in (CombineHeuristics,) else heuristic)
    assert [record["n_labelled"] for record in experiment.start(verbose=False)] == [6, 16, 26, 36]


def test_a_part_of_the_pool_may_be_looked_at():
    experiment = make_experiment(pool_size=12, query_size=4)
    next(experiment.rounds())
    assert len(experiment.loop.uncertainties) == 12
    assert len(experiment.al_dataset) == 10


def test_what_was_stopped_goes_on_elsewhere():
    def run(rounds):
        experiment = make_experiment(Random(seed=0))
        steps = experiment.rounds()
        for _ in range(rounds):
            next(steps)
        return experiment

    begun = run(2)
    state = copy.deepcopy(begun.state_dict())
    other = make_experiment(Random(seed=0))
    other.load_state_dict(state)
    assert other.records == begun.records
    assert np.array_equal(other.al_dataset.labelled, begun.al_dataset.labelled)
    assert [record["n_labelled"] for record in other.start(verbose=False)] == [6, 16, 26, 36]


def test_one_seed_makes_two_runs_the_same():
    def run():
        wrapper = make_wrapper()
        return make_experiment(PowerBALD(seed=3), wrapper).start(verbose=False)

    assert run() == run()


def test_progress_is_shown(capsys):
    make_experiment(Random()).start()
    assert "Active learning" in capsys.readouterr().err


def test_nothing_labelled_is_said_so():
    with pytest.raises(ValueError, match="label_randomly"):
        make_experiment(dataset=make_dataset(0)).start()


def test_another_library_may_train():
    class Constant:
        def __init__(self):
            self.seen = []

        def reset_weights(self):
            self.seen.append("reset")

        def train(self, al_dataset):
            return {"train_loss": 1.0 / len(al_dataset)}

        def evaluate(self, dataset, average_predictions):
            return {"test_loss": float(average_predictions)}

        def predict(self, dataset, iterations):
            return np.random.default_rng(0).dirichlet(np.ones(C), size=(len(dataset), iterations)).transpose(0, 2, 1)

    trainer: FrameworkAdapter = Constant()
    records = make_experiment(wrapper=trainer).start(verbose=False)
    assert [record["test_loss"] for record in records] == [4.0] * 4
    assert trainer.seen == ["reset"] * 4
    with pytest.raises(TypeError, match="has no reset_weights, evaluate, predict"):
        make_experiment(wrapper=nn.Linear(1, 1))


def test_models_that_settle_end_it():
    dataset = make_dataset()
    criterion = StabilizingPredictionsStoppingCriterion(dataset, threshold=-1, patience=2)
    experiment = make_experiment(dataset=dataset, criterion=criterion, query_size=4, stop_set=make_data(30, 3))
    assert len(experiment.start(verbose=False)) == 3
    assert "stable" in criterion.reason
    with pytest.raises(ValueError, match="stop_set="):
        make_experiment(criterion=StabilizingPredictionsStoppingCriterion(make_dataset())).start(verbose=False)

import copy

import numpy as np
import pytest
import torch
import torchmetrics
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate

from baal_widgets.bayesian.batchnorm import MCBatchNormModule
from baal_widgets.bayesian.dropout import MCDropoutModule
from baal_widgets.bayesian.gaussian_process import GaussianProcessModule
from baal_widgets.bayesian.laplace import LaplaceModule
from baal_widgets.bayesian.swag import SWAGModule
from baal_widgets.ensemble import EnsembleModule
from baal_widgets.modelwrapper import ModelWrapper, TrainingArgs, average_draws
from baal_widgets.utils.metrics import ECE, Accuracy

N, D, C = 20, 4, 3


def classes(n=N):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, D, generator=generator)
    return TensorDataset(x, x[:, :C].argmax(1))


class Unlabelled(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, item):
        return torch.full((D,), float(item))


def plain():
    torch.manual_seed(0)
    return nn.Linear(D, C)


def stochastic():
    torch.manual_seed(0)
    return MCDropoutModule(nn.Sequential(nn.Linear(D, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, C)))


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), **{"lr": 0.1, **options})


def wrap(model=None, criterion=None, **options):
    return ModelWrapper(model or plain(), criterion or nn.CrossEntropyLoss(), **options)


class Counting(nn.Module):
    """Counts its calls, and the items in each."""

    def __init__(self):
        super().__init__()
        self.inner, self.sizes = nn.Linear(D, C), []

    def forward(self, x):
        self.sizes.append((len(x), self.training))
        return self.inner(x)


# How it is called


def test_positional_arguments_are_read_as_baal_1_does():
    model = Counting()
    wrapper, data = wrap(model), classes()
    assert len(wrapper.train_on_dataset(data, sgd(model), 5, 2, False, 0, default_collate, None)) == 2
    assert model.sizes == [(5, True)] * 8
    model.sizes.clear()
    wrapper.test_on_dataset(data, 10, False, 0, default_collate, 1)
    assert model.sizes == [(10, False)] * 2
    model.sizes.clear()
    assert wrapper.predict_on_dataset(data, 10, 3, False, 0, default_collate, False, False).shape == (N, C, 3)
    assert model.sizes == [(30, False)] * 2
    assert [len(b) for b in wrapper.predict_on_dataset_generator(data, 15, 2, False)] == [15, 5]
    history = wrapper.train_and_test_on_datasets(data, data, sgd(model), 10, 3, False, 0, default_collate, None)
    assert len(history) == 3
    x, y = data[:4]
    wrapper.train_on_batch(x, y, sgd(model), False, None)
    wrapper.test_on_batch(x, y, False, 2)
    assert wrapper.predict_on_batch(x, 5, False).shape == (4, C, 5)


def test_positional_arguments_are_read_as_baal_2_does():
    model = Counting()
    args = TrainingArgs(sgd(model), batch_size=5, epoch=2, use_cuda=False, criterion=nn.CrossEntropyLoss())
    for wrapper in (ModelWrapper(model, args), ModelWrapper(model, args=args)):
        model.sizes.clear()
        data = classes()
        assert len(wrapper.train_on_dataset(data)) == 2
        assert model.sizes == [(5, True)] * 8
        model.sizes.clear()
        wrapper.test_on_dataset(data, 3)
        assert model.sizes == [(15, False)] * 4
        assert wrapper.predict_on_dataset(data, 3, True, False).dtype == np.float16
        assert [b.shape for b in wrapper.predict_on_dataset_generator(data, 2)] == [(5, C, 2)] * 4
        model.sizes.clear()
        history, weights = wrapper.train_and_test_on_datasets(data, data, True, None, 0, 2)
        assert len(history) == 1
        assert sum(training for _, training in model.sizes) == 8
        assert weights.keys() == model.state_dict().keys()
        x, y = data[:4]
        wrapper.train_on_batch(x, y)
        model.sizes.clear()
        wrapper.test_on_batch(x, y, 2)
        assert model.sizes[0][0] == 8
        assert wrapper.predict_on_batch(x, 5).shape == (4, C, 5)


@pytest.mark.parametrize("second", [False, True])
def test_all_keywords_work_in_both_styles(second):
    model = plain()
    criterion = nn.CrossEntropyLoss()
    wrapper = ModelWrapper(model, TrainingArgs(criterion=criterion)) if second else ModelWrapper(model, criterion)
    data, common = classes(), {"batch_size": 8, "use_cuda": False, "workers": 0, "collate_fn": default_collate}
    train = {**common, "optimizer": sgd(model), "epoch": 2, "regularizer": lambda: model.weight.square().sum()}
    assert len(wrapper.train_on_dataset(dataset=data, **train)) == 2
    assert len(list(wrapper.training_steps(data, **train))) == 6
    assert wrapper.test_on_dataset(data, **common, average_predictions=2) > 0
    told = {**common, "iterations": 4, "half": True, "verbose": False}
    assert wrapper.predict_on_dataset(data, **told).shape == (N, C, 4)
    assert len(list(wrapper.predict_on_dataset_generator(data, **told))) == 3
    history, weights = wrapper.train_and_test_on_datasets(
        train_dataset=data, test_dataset=data, **train, return_best_weights=True, patience=3, min_epoch_for_es=1,
        skip_epochs=1,
    )  # fmt: skip
    assert len(history) == 2
    assert weights is not None
    x, y = data[:4]
    wrapper.train_on_batch(data=x, target=y, optimizer=train["optimizer"], cuda=False, regularizer=None)
    wrapper.test_on_batch(data=x, target=y, cuda=False, average_predictions=3)
    assert wrapper.predict_on_batch(data=x, iterations=2, cuda=False).shape == (4, C, 2)


def test_arguments_that_are_not_known_or_come_twice_are_refused():
    wrapper, data = wrap(), classes()
    with pytest.raises(TypeError, match="no argument 'iteration'"):
        wrapper.predict_on_dataset(data, iteration=3)
    with pytest.raises(TypeError, match="'batch_size' twice"):
        wrapper.test_on_dataset(data, 3, batch_size=3)
    with pytest.raises(TypeError, match="takes dataset, iterations, half, verbose"):
        ModelWrapper(plain(), TrainingArgs()).predict_on_dataset(data, 1, False, False, 4)
    with pytest.raises(TypeError, match="no argument 'epochs'"):
        wrapper.train_and_test_on_datasets(data, data, epochs=3)
    with pytest.raises(ValueError, match="iterations"):
        wrapper.predict_on_batch(data[:2][0], 0)


def test_the_arguments_can_be_read_and_set():
    args = TrainingArgs()
    wrapper = ModelWrapper(plain(), args)
    assert wrapper.args is args
    assert wrapper.criterion is None
    wrapper.criterion = F.cross_entropy
    assert args.criterion is F.cross_entropy
    assert wrapper.replicate_in_memory
    assert not ModelWrapper(plain(), None, False).replicate_in_memory
    called = []
    wrapper.args.regularizer = lambda: called.append(1) or torch.zeros(())
    wrapper.train_on_dataset(classes())
    assert called == [1]


def test_cuda_that_is_not_there_is_warned_of_once_a_call(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model, data, (x, y) = stochastic(), classes(), classes()[:4]
    told = TrainingArgs(sgd(model), batch_size=4, epoch=2, use_cuda=True, criterion=nn.CrossEntropyLoss())
    first, second = wrap(model), ModelWrapper(model, told)
    calls = [
        lambda: first.train_on_dataset(data, None, 4, 2, True),
        lambda: first.test_on_dataset(data, 4, True),
        lambda: first.predict_on_dataset(data, 4, 3, True),
        lambda: list(first.predict_on_dataset_generator(data, 4, 3, True)),
        lambda: first.train_and_test_on_datasets(data, data, None, 4, 2, True),
        lambda: first.test_on_batch(x, y, True, 2),
        lambda: second.train_on_dataset(data),
        lambda: second.test_on_dataset(data, 2),
        lambda: second.predict_on_dataset(data, 3),
        lambda: second.test_on_batch(x, y, 2),
    ]
    for call in calls:
        with pytest.warns(UserWarning, match="running on the CPU") as warned:
            call()
        assert len(warned) == 1


def test_the_device_that_is_named_wins_over_the_arguments_and_a_call_over_both():
    wrapper = wrap(args=TrainingArgs(use_cuda=True), device="cpu")
    assert wrapper.predict_on_dataset(classes()).shape[0] == N  # no warning of CUDA
    assert wrapper.device.type == "cpu"


def test_the_callers_arguments_stay_as_they_were():
    args = TrainingArgs()
    wrapper = ModelWrapper(plain(), nn.CrossEntropyLoss(), False, args=args)
    assert (args.criterion, args.replicate_in_memory) == (None, True)
    assert wrapper.criterion is not None
    assert not wrapper.replicate_in_memory
    wrapper.replicate_in_memory = True
    assert wrapper.args.replicate_in_memory
    assert ModelWrapper(plain(), args).args is args


# Training


def test_the_loss_falls_and_the_accuracy_rises():
    model = plain()
    wrapper = wrap(model)
    wrapper.add_metric("accuracy", Accuracy)
    losses = wrapper.train_on_dataset(classes(200), sgd(model, lr=0.5), 20, 15)
    assert losses == sorted(losses, reverse=True)
    wrapper.test_on_dataset(classes(200))
    assert wrapper.get_metrics()["test_accuracy"] > 0.9


def test_epochs_are_not_squared():
    model = Counting()
    wrapper = wrap(model)
    history = wrapper.train_and_test_on_datasets(classes(), classes(), sgd(model), batch_size=N, epoch=4)
    assert sum(training for _, training in model.sizes) == 4
    assert len(history) == 4


def by_hand(model, data, epochs, momentum):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=momentum)
    for _ in range(epochs):
        optimizer.zero_grad()
        F.cross_entropy(model(data.tensors[0]), data.tensors[1]).backward()
        optimizer.step()
    return model.weight


@pytest.mark.parametrize("default", [True, False])
@pytest.mark.parametrize("method", ["train_on_dataset", "train_and_test_on_datasets", "training_steps"])
def test_the_momentum_is_kept_from_epoch_to_epoch(default, method):
    model, data = plain(), classes()
    optimizer = None if default else sgd(model, lr=0.01, momentum=0.9)
    datasets = [data, data] if "test" in method else [data]
    list(getattr(wrap(model), method)(*datasets, optimizer=optimizer, batch_size=N, epoch=5))
    assert torch.allclose(model.weight, by_hand(plain(), data, 5, 0.9), atol=1e-5)
    assert not torch.allclose(model.weight, by_hand(plain(), data, 5, 0.0), atol=1e-5)


def test_a_regularizer_is_added_to_the_loss():
    x, y = classes()[:4]
    model = plain()
    with_it = wrap(model).train_on_batch(x, y, sgd(model), regularizer=lambda: torch.tensor(5.0))
    model = plain()
    without = wrap(model).train_on_batch(x, y, sgd(model))
    assert float(with_it - without) == pytest.approx(5)


def test_the_best_weights_are_those_of_the_least_test_loss():
    model = plain()
    wrapper, data = wrap(model), classes()
    worse = torch.optim.SGD(model.parameters(), lr=0.5, maximize=True)
    seen = []
    original = wrapper._test
    wrapper._test = lambda *a, **k: seen.append(copy.deepcopy(model.state_dict())) or original(*a, **k)
    history, best = wrapper.train_and_test_on_datasets(data, data, worse, N, 10, return_best_weights=True, patience=2)
    losses = [entry["test_loss"] for entry in history]
    assert len(history) == 3  # the first is the best, two without a better one
    assert int(np.argmin(losses)) == 0
    assert all(torch.equal(best[name], value) for name, value in seen[0].items())
    assert not torch.equal(model.weight, best["weight"])


@pytest.mark.parametrize(
    "posterior",
    [
        lambda model: model,
        lambda model: EnsembleModule(model, 2),
        lambda model: SWAGModule(model, snapshots=3),
        lambda model: MCBatchNormModule(model, 4),
        lambda model: GaussianProcessModule(model, n_features=16),
        lambda model: LaplaceModule(model, hessian="diag"),
    ],
    ids=["none", "ensemble", "SWAG", "MC-BatchNorm", "Gaussian process", "Laplace"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_best_weights_come_with_what_was_fitted_to_them(posterior):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, C))
    wrapper, x = wrap(posterior(net), device="cpu"), classes().tensors[0]
    opposite = TensorDataset(x, x[:, :C].argmin(1))  # the test loss rises from the first epoch on
    predictions = []
    test = wrapper._test
    wrapper._test = lambda *args, **named: (test(*args, **named), seeded())[0]

    def seeded():
        torch.manual_seed(1)
        predictions.append(wrapper.predict_on_dataset(opposite, 5, 7, use_cuda=False))

    history, best = wrapper.train_and_test_on_datasets(
        classes(), opposite, sgd(wrapper.model, lr=0.3), 5, 4, use_cuda=False, return_best_weights=True
    )
    least = int(np.argmin([each["test_loss"] for each in history]))
    assert least < len(history) - 1
    wrapper.load_state_dict(best)
    seeded()
    assert np.allclose(predictions[-1], predictions[least], atol=1e-6)
    assert not np.allclose(predictions[-1], predictions[-2], atol=1e-3)


def test_patience_waits_for_the_least_number_of_epochs():
    model = plain()
    worse = torch.optim.SGD(model.parameters(), lr=0.5, maximize=True)
    data = classes()
    history = wrap(model).train_and_test_on_datasets(data, data, worse, N, 10, patience=1, min_epoch_for_es=6)
    assert len(history) == 6


def test_tests_come_after_every_so_many_epochs_and_at_the_end():
    data = classes()
    assert len(wrap().train_and_test_on_datasets(data, data, epoch=5, skip_epochs=2)) == 3


def test_an_empty_dataset_is_refused_for_training_and_testing_and_predicts_nothing():
    wrapper, empty = wrap(), classes(0)
    with pytest.raises(ValueError, match="dataset to train on, got an empty one"):
        wrapper.train_on_dataset(empty)
    with pytest.raises(ValueError, match="dataset to train on, got an empty one"):
        next(wrapper.training_steps(empty))
    with pytest.raises(ValueError, match="dataset to test on, got an empty one"):
        wrapper.test_on_dataset(empty)
    assert len(wrapper.predict_on_dataset(empty)) == 0
    assert list(wrapper.predict_on_dataset_generator(empty)) == []


def test_what_is_missing_is_named():
    wrapper = ModelWrapper(plain(), criterion=None)
    x, y = classes()[:2]
    for call in (
        lambda: wrapper.train_on_dataset(classes()),
        lambda: wrapper.test_on_dataset(classes()),
        lambda: wrapper.test_on_batch(x, y),
    ):
        with pytest.raises(ValueError, match="Expected a criterion"):
            call()
    with pytest.raises(ValueError, match="Expected an optimizer"):
        wrapper.train_on_batch(x, y)
    assert wrapper.predict_on_dataset(classes()).shape == (N, C, 20)


# Predicting


@pytest.mark.parametrize("replicate", [True, False])
@pytest.mark.parametrize("iterations", [1, 5])
def test_predictions_are_item_class_draw(replicate, iterations):
    wrapper = wrap(stochastic(), replicate_in_memory=replicate)
    predictions = wrapper.predict_on_dataset(classes(), batch_size=8, iterations=iterations)
    assert predictions.shape == (N, C, iterations)
    assert predictions.dtype == np.float32
    if iterations > 1:
        assert (predictions.std(axis=-1) > 0).any(axis=1).all()


@pytest.mark.parametrize("replicate", [True, False])
def test_a_deterministic_model_draws_the_same_each_time(replicate):
    model = plain()
    predictions = wrap(model, replicate_in_memory=replicate).predict_on_dataset(classes(), batch_size=8, iterations=3)
    expected = model(classes().tensors[0]).detach().numpy()
    assert np.allclose(predictions, expected[..., None], atol=1e-6)


@pytest.mark.parametrize("replicate", [True, False])
def test_maps_keep_their_axes_between_class_and_draw(replicate):
    model, images = nn.Conv2d(1, C, 3), torch.randn(6, 1, 7, 9)
    predictions = wrap(model, replicate_in_memory=replicate).predict_on_dataset(TensorDataset(images), 4, 2)
    assert predictions.shape == (6, C, 5, 7, 2)
    assert np.allclose(predictions[..., 1], model(images).detach().numpy(), atol=1e-5)


def test_the_generator_gives_what_the_array_holds():
    wrapper = wrap(stochastic())
    torch.manual_seed(1)
    whole = wrapper.predict_on_dataset(classes(), batch_size=8, iterations=4)
    torch.manual_seed(1)
    parts = list(wrapper.predict_on_dataset_generator(classes(), batch_size=8, iterations=4))
    assert [len(part) for part in parts] == [8, 8, 4]
    assert np.array_equal(np.concatenate(parts), whole)


def test_items_without_a_target_are_predicted_on():
    predictions = wrap().predict_on_dataset(Unlabelled(), iterations=2)
    assert np.allclose(predictions[3, :, 0], plain()(torch.full((D,), 3.0)).detach().numpy(), atol=1e-5)


def test_half_precision_halves_the_array():
    wrapper = wrap()
    half = wrapper.predict_on_dataset(classes(), iterations=2, half=True)
    assert half.dtype == np.float16
    assert np.allclose(half, wrapper.predict_on_dataset(classes(), iterations=2), atol=1e-2)


def test_progress_is_shown_when_asked_for(capfd):
    wrapper = wrap()
    wrapper.predict_on_dataset(classes())
    assert capfd.readouterr() == ("", "")
    wrapper.predict_on_dataset(classes(), verbose=True)
    assert "Predicting" in capfd.readouterr().err


def test_prediction_tracks_no_gradient_and_leaves_the_model_in_eval_mode():
    model = Counting()
    wrapper = wrap(model)
    wrapper.train()
    assert model.training
    wrapper.predict_on_dataset(classes())
    assert not model.training
    assert not wrapper.predict_on_batch(torch.ones(2, D), 2).requires_grad


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, data):
        parts = data.values() if isinstance(data, dict) else data
        return self.scale * sum(part for part in parts if isinstance(part, torch.Tensor))


class Several(Dataset):
    def __init__(self, form):
        self.form = form

    def __len__(self):
        return N

    def __getitem__(self, item):
        one, two = torch.full((C,), float(item)), torch.full((C,), 1.0)
        x = {"one": one, "two": two, "name": "text"} if self.form is dict else self.form((one, two))
        return x, torch.zeros(C)


@pytest.mark.parametrize("form", [list, tuple, dict])
@pytest.mark.parametrize("replicate", [True, False])
def test_a_model_may_take_several_inputs(form, replicate):
    wrapper = ModelWrapper(Sum(), nn.MSELoss(), replicate)
    predictions = wrapper.predict_on_dataset(Several(form), batch_size=8, iterations=3)
    assert np.allclose(predictions, (np.arange(N) + 1.0)[:, None, None] * np.ones((C, 3)))
    assert wrapper.test_on_dataset(Several(form), average_predictions=2) == pytest.approx(
        np.mean(np.arange(1, 21) ** 2)
    )
    assert np.isfinite(wrapper.train_on_dataset(Several(form), torch.optim.SGD(wrapper.get_params(), lr=1e-4))[0])


class Heads(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.one, self.two, self.form = nn.Linear(D, C), nn.Linear(D, 2), form

    def forward(self, x):
        one, two = self.one(x), self.two(x)
        return {"one": one, "two": two, "none": None} if self.form is dict else self.form((one, two))


def both_heads(output, target):
    one, two = (
        output.values()
        if isinstance(output, dict) and "none" not in output
        else list(output.values() if isinstance(output, dict) else output)[:2]
    )
    return F.cross_entropy(one, target) + two.square().mean()


@pytest.mark.parametrize("form", [list, tuple, dict])
@pytest.mark.parametrize("replicate", [True, False])
def test_a_model_may_have_several_outputs(form, replicate):
    wrapper = ModelWrapper(Heads(form), both_heads, replicate)
    one, two = wrapper.predict_on_dataset(classes(), batch_size=8, iterations=3)
    assert (one.shape, two.shape) == ((N, C, 3), (N, 2, 3))
    batches = list(wrapper.predict_on_dataset_generator(classes(), batch_size=8, iterations=3))
    assert [[part.shape[0] for part in batch] for batch in batches] == [[8, 8], [8, 8], [4, 4]]
    wrapper.train_on_dataset(classes())
    assert wrapper.test_on_dataset(classes(), average_predictions=2) > 0


class Failing(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.weight, self.error = nn.Parameter(torch.ones(())), error

    def forward(self, x):
        raise self.error


def test_an_error_of_the_model_keeps_its_name():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        wrap().predict_on_batch(torch.ones(2, D + 1), 3)
    with pytest.raises(KeyError, match="mine"):
        wrap(Failing(KeyError("mine"))).predict_on_batch(torch.ones(2, D), 3)


# Averaging


def test_the_average_is_that_of_the_probabilities():
    draws = torch.tensor([[[0.0, 4.0], [0.0, 0.0], [0.0, -4.0]]])
    mean = draws.softmax(1).mean(-1)
    for criterion in (nn.CrossEntropyLoss(), F.cross_entropy):
        assert torch.allclose(average_draws(draws, criterion).softmax(1), mean)
        assert float(criterion(average_draws(draws, criterion), torch.tensor([2]))) == pytest.approx(
            -float(mean[0, 2].log())
        )
    for criterion in (nn.NLLLoss(), F.nll_loss):
        assert torch.allclose(average_draws(draws.log_softmax(1), criterion), mean.log())
    for criterion in (nn.BCEWithLogitsLoss(), F.binary_cross_entropy_with_logits):
        assert torch.allclose(average_draws(draws, criterion).sigmoid(), draws.sigmoid().mean(-1))
    assert torch.allclose(average_draws(draws, nn.MSELoss()), draws.mean(-1))


def test_extreme_logits_average_to_finite_ones():
    draws = torch.tensor([[[1000.0, 1000.0], [-1000.0, -1000.0]]])
    for criterion in (nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss()):
        assert average_draws(draws, criterion).isfinite().all()


@pytest.mark.parametrize("replicate", [True, False])
def test_the_test_loss_is_that_of_the_mean_probabilities(replicate):
    wrapper = wrap(stochastic(), replicate_in_memory=replicate)
    y = classes().tensors[1]
    torch.manual_seed(2)
    draws = torch.from_numpy(wrapper.predict_on_dataset(classes(), batch_size=N, iterations=10))
    torch.manual_seed(2)
    loss = wrapper.test_on_dataset(classes(), batch_size=N, average_predictions=10)
    assert loss == pytest.approx(float(F.nll_loss(draws.softmax(1).mean(-1).log(), y)), rel=1e-5)


def test_the_test_loss_weighs_items_not_batches():
    model, data = plain(), classes()
    loss = wrap(model).test_on_dataset(data, batch_size=19)
    assert loss == pytest.approx(float(F.cross_entropy(model(data.tensors[0]), data.tensors[1]).detach()), rel=1e-5)


# Metrics


def test_metrics_start_anew_with_each_phase():
    wrapper, data = wrap(), classes()
    wrapper.add_metric("ece", lambda: ECE(n_bins=20))
    assert wrapper.metrics["train_ece"] is not wrapper.metrics["test_ece"]
    wrapper.train_on_dataset(data, epoch=3)
    assert wrapper.metrics["train_ece"].samples.sum() == N
    assert wrapper.metrics["test_ece"].samples.sum() == 0
    for _ in range(2):
        wrapper.test_on_dataset(data)
    assert wrapper.metrics["test_ece"].samples.sum() == N
    assert 0 <= wrapper.metrics["test_ece"].value <= 1


def test_the_filter_of_metrics_is_exact():
    wrapper = wrap()
    wrapper.add_metric("retrained_test", Accuracy)
    assert wrapper.get_metrics("train").keys() == {"train_loss", "train_retrained_test", "dataset_size"}
    assert wrapper.get_metrics("test").keys() == {"test_loss", "test_retrained_test", "dataset_size"}
    assert wrapper.get_metrics("test_loss").keys() == {"test_loss", "dataset_size"}
    assert wrapper.get_metrics("tes").keys() == {"dataset_size"}
    assert len(wrapper.get_metrics()) == 5


def test_what_was_measured_is_kept_for_each_size_of_the_labelled_set():
    wrapper = wrap()
    for size in (5, 9):
        wrapper.train_on_dataset(classes(size))
        wrapper.test_on_dataset(classes())
    assert list(wrapper.active_learning_metrics) == [5, 9]
    assert wrapper.active_learning_metrics[9].keys() == {"train_loss", "test_loss", "dataset_size"}
    assert wrapper.active_learning_metrics[9]["dataset_size"] == 9
    wrapper.active_step(7, {"mine": 1})
    assert wrapper.active_learning_metrics[7] == {"mine": 1}


def test_torchmetrics_objects_are_metrics_too():
    wrapper, data = wrap(), classes()
    wrapper.add_metric("acc", lambda: torchmetrics.Accuracy(task="multiclass", num_classes=C))
    wrapper.train_on_dataset(data)
    wrapper.test_on_dataset(data, batch_size=6)
    right = (wrapper.model(data.tensors[0]).argmax(1) == data.tensors[1]).float().mean()
    assert wrapper.get_metrics()["test_acc"] == pytest.approx(float(right))


def test_one_metric_object_for_both_phases_is_refused():
    shared = Accuracy()
    with pytest.raises(ValueError, match="new metric"):
        wrap().add_metric("acc", lambda: shared)


# The model


@pytest.mark.parametrize("method", ["reset_fcs", "reset_all"])
def test_weights_are_drawn_anew(method):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2), nn.BatchNorm1d(2))
    before = copy.deepcopy(model.state_dict())
    getattr(wrap(model), method)()
    after = model.state_dict()
    assert not torch.equal(before["2.weight"], after["2.weight"])
    assert torch.equal(before["0.weight"], after["0.weight"]) == (method == "reset_fcs")


def test_attention_is_drawn_anew_too():
    model = nn.TransformerEncoderLayer(8, 2, 16)
    before = copy.deepcopy(model.state_dict())
    wrap(model).reset_all()
    assert not torch.equal(before["self_attn.in_proj_weight"], model.state_dict()["self_attn.in_proj_weight"])


def test_weights_go_out_and_come_back():
    one, other = wrap(plain()), wrap(nn.Linear(D, C))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.model.weight, other.model.weight)
    assert [p.shape for p in one.get_params()] == [(C, D), (C,)]


def test_everything_runs_on_the_device_that_is_named():
    wrapper = wrap(device="cpu")
    assert wrapper.device == torch.device("cpu")
    x, y = next(iter(DataLoader(classes(), batch_size=4)))
    assert wrapper.test_on_batch(x, y).device.type == "cpu"

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from baal_widgets.active.scores import bald, to_probabilities
from baal_widgets.ensemble import EnsembleModelWrapper, EnsembleModule, ensemble_prediction
from baal_widgets.modelwrapper import ModelWrapper, TrainingArgs

N, D, C = 24, 4, 3


def data(n=N):
    x = torch.randn(n, D, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, x[:, :C].argmax(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(1, 5, num_layers=2, batch_first=True)
        self.head = nn.Linear(5, C)

    def forward(self, x):
        return self.head(self.rnn(x[..., None])[0][:, -1])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.last = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, C)
        self.two.weight = self.one.weight
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)

    def forward(self, x):
        return self.last(self.two(self.one(x).relu())) * self.scale


def normed():
    return nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, C))


MODELS = {"BatchNorm": normed, "LSTM": Recurrent, "tied weights": Tied}


def wrapped(make=normed, **options):
    torch.manual_seed(0)
    return EnsembleModelWrapper(make(), nn.CrossEntropyLoss(), device="cpu", **options)


def trained(make=normed, checkpoints=3):
    wrapper = wrapped(make)
    for _ in range(checkpoints):
        wrapper.reset_all()
        wrapper.train_on_dataset(data(), batch_size=8, epoch=2)
        wrapper.add_checkpoint()
    return wrapper


def state(model):
    """Everything that training changes, as bytes; and the modes."""
    tensors = {name: one.detach().numpy().tobytes() for name, one in model.state_dict().items()}
    return tensors, [layer.training for layer in model.modules()]


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_predictions_are_those_of_each_checkpoint_loaded_in_turn(make):
    wrapper, members = wrapped(make), []
    for _ in range(3):
        wrapper.reset_all()
        wrapper.train_on_dataset(data(), batch_size=8)
        wrapper.add_checkpoint()
        members.append(copy.deepcopy(wrapper.model).eval())
    x = data().tensors[0]
    with torch.no_grad():
        expected = torch.stack([member(x) for member in members], dim=-1)
    wrapper.reset_all()
    got = wrapper.predict_on_dataset(data(), batch_size=N)
    assert got.shape == (N, C, 3)
    assert np.array_equal(got, expected.numpy())
    assert expected.std(-1).min() > 0  # or the test above tells nothing
    assert torch.equal(wrapper.predict_on_batch(x), expected)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_predicting_leaves_the_weights_that_the_model_has(make):
    wrapper = trained(make)
    wrapper.reset_all()
    wrapper.eval()
    x, before = data().tensors[0], state(wrapper.model)
    output = wrapper.model(x)
    wrapper.predict_on_dataset(data())
    wrapper.predict_on_batch(x)
    assert state(wrapper.model) == before
    assert torch.equal(wrapper.model(x), output)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_model_trains_on_after_predicting(make):
    wrapper, x = trained(make), data().tensors[0]
    wrapper.predict_on_batch(x)
    before = {name: one.clone() for name, one in wrapper.model.named_parameters()}
    wrapper.train_on_dataset(data(), epoch=2)
    # a bias before BatchNorm has no gradient
    assert all(one.ndim == 1 or not torch.equal(one, before[name]) for name, one in wrapper.model.named_parameters())
    wrapper.eval()
    with torch.no_grad():
        fresh = make().eval()
        fresh.load_state_dict(wrapper.model.state_dict())
        assert torch.equal(fresh(x), wrapper.model(x))


def test_a_pass_in_training_mode_leaves_the_checkpoints_alone():
    wrapper = trained()
    x, before = data().tensors[0], copy.deepcopy(wrapper.state_dict()["checkpoints."])
    live = state(wrapper.model)
    wrapper.train()
    wrapper.predict_on_batch(x)
    assert state(wrapper.model)[0] == live[0]
    for one, other in zip(wrapper.state_dict()["checkpoints."], before, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other)


def test_iterations_do_not_matter_and_checkpoints_do():
    wrapper, x = trained(checkpoints=2), data().tensors[0]
    assert wrapper.predict_on_dataset(data(), 4, 7).shape == wrapper.predict_on_dataset(data(), 4, 1).shape == (N, C, 2)
    wrapper.add_checkpoint()
    assert wrapper.predict_on_batch(x, 50).shape == (N, C, 3)
    wrapper.clear_checkpoints()
    for predict in (lambda: wrapper.predict_on_batch(x), lambda: wrapper.predict_on_dataset(data())):
        with pytest.raises(ValueError, match="add_checkpoint"):
            predict()


def test_the_second_calling_style_works_too():
    torch.manual_seed(0)
    model = normed()
    args = TrainingArgs(torch.optim.SGD(model.parameters(), 0.1), 8, 1, False, criterion=nn.CrossEntropyLoss())
    wrapper = EnsembleModelWrapper(model, args)
    wrapper.train_on_dataset(data())
    wrapper.add_checkpoint()
    assert wrapper.predict_on_dataset(data(), 20).shape == (N, C, 1)


def test_batches_do_not_matter():
    wrapper = trained()
    assert np.allclose(wrapper.predict_on_dataset(data(), 5), wrapper.predict_on_dataset(data(), N), atol=1e-6)


def test_the_test_loss_is_that_of_the_mean_probability():
    wrapper, (x, y) = trained(), data().tensors
    wrapper.eval()
    mean = wrapper.predict_on_batch(x).softmax(1).mean(-1)
    assert wrapper.test_on_dataset(data(), 8) == pytest.approx(float(F.nll_loss(mean.log(), y)), abs=1e-5)


def test_early_stopping_sees_the_model_that_trains():
    wrapper = trained(checkpoints=2)
    history = wrapper.train_and_test_on_datasets(data(), data(), None, 8, 3)
    losses = [step["test_loss"] for step in history]
    assert len(set(losses)) == 3
    wrapper.clear_checkpoints()
    assert losses[-1] == pytest.approx(
        ModelWrapper(wrapper.model, nn.CrossEntropyLoss(), device="cpu").test_on_dataset(data()), abs=1e-5
    )
    assert len(wrapper.train_and_test_on_datasets(data(), data(), epoch=2)) == 2  # with no checkpoint at all


def test_the_state_carries_the_checkpoints_through_a_file():
    wrapper, other = trained(), wrapped()
    file = io.BytesIO()
    torch.save(wrapper.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    assert np.array_equal(wrapper.predict_on_dataset(data()), other.predict_on_dataset(data()))
    assert state(wrapper.model)[0] == state(other.model)[0]


def test_a_plain_state_loads_and_leaves_the_checkpoints():
    wrapper, x = trained(), data().tensors[0]
    before, plain = wrapper.predict_on_batch(x), wrapped().model.state_dict()
    wrapper.load_state_dict(plain)
    assert torch.equal(wrapper.predict_on_batch(x), before)
    assert all(torch.equal(one, plain[name]) for name, one in wrapper.model.state_dict().items())


def test_without_checkpoints_the_state_is_a_plain_one():
    wrapper = wrapped()
    normed().load_state_dict(wrapper.state_dict())
    assert list(wrapper.state_dict()) == list(wrapper.model.state_dict())


def test_a_checkpoint_does_not_follow_the_model():
    wrapper, x = trained(checkpoints=1), data().tensors[0]
    wrapper.eval()
    before = wrapper.predict_on_batch(x)
    wrapper.train_on_dataset(data(), epoch=3)
    assert not torch.equal(wrapper.model.eval()(x), before[..., 0])
    assert torch.equal(wrapper.predict_on_batch(x), before)


def test_a_checkpoint_added_within_a_pass_counts_from_then_on():
    wrapper = trained(checkpoints=1)
    batches = wrapper.predict_on_dataset_generator(data(), 8)
    shapes = [next(batches).shape]
    wrapper.add_checkpoint()
    assert shapes + [batch.shape for batch in batches] == [(8, C, 1), (8, C, 2), (8, C, 2)]


def test_weights_of_another_model_are_refused_by_name():
    model, x = normed(), torch.randn(2, D)
    lacking = {name: one for name, one in model.state_dict().items() if name != "3.bias"}
    with pytest.raises(ValueError, match=r"3\.bias"):
        ensemble_prediction(x, model, [lacking])
    with pytest.raises(ValueError, match="at least one"):
        ensemble_prediction(x, model, [])
    wider = nn.Sequential(nn.Linear(D, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, C)).state_dict()
    with pytest.raises(ValueError, match=r"shaped \(9, 4\)"):
        ensemble_prediction(x, model, [wider])


def test_models_of_several_inputs_and_outputs_are_fine():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(D, C)

        def forward(self, inputs):
            return {"sum": self.one(inputs["a"] + inputs["b"]), "first": self.one(inputs["a"])}

    model, x = Two().eval(), torch.randn(5, D)
    weights = [Two().state_dict(), Two().state_dict()]
    out = ensemble_prediction({"a": x, "b": x}, model, weights, cuda=False)
    assert out["sum"].shape == out["first"].shape == (5, C, 2)
    assert torch.allclose(out["first"][..., 1], F.linear(x, weights[1]["one.weight"], weights[1]["one.bias"]))


# EnsembleModule


def retrain(model, epochs=30):
    """Trains a model from new weights."""

    def train():
        for layer in model.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        model.train()
        optimizer = torch.optim.Adam(model.parameters(), 0.02)
        for _ in range(epochs):
            optimizer.zero_grad()
            F.cross_entropy(model(data().tensors[0]), data().tensors[1]).backward()
            optimizer.step()

    return train


def fitted(make=normed, members=3, epochs=30):
    torch.manual_seed(0)
    ensemble = EnsembleModule(make(), members)
    ensemble.fit(data(), train=retrain(ensemble, epochs))
    return ensemble.eval()


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_fitting_leaves_weights_statistics_and_modes_bit_for_bit(make):
    torch.manual_seed(0)
    model = make()
    model(data().tensors[0])
    model.get_submodule("0" if isinstance(model, nn.Sequential) else "").eval()
    ensemble = EnsembleModule(model, 2)
    before = state(model)
    ensemble.fit(data(), train=retrain(ensemble, 3))
    assert state(model) == before
    with torch.no_grad():
        ensemble.eval().sample(data().tensors[0], 5)
    assert state(model)[0] == before[0]
    assert list(ensemble.state_dict()) == [f"parent_module.{name}" for name in model.state_dict()]


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_draws_are_the_trained_models_whatever_number_is_asked_for(make):
    torch.manual_seed(0)
    model, x, outputs = make(), data().tensors[0], []
    ensemble = EnsembleModule(model, 3)
    again = retrain(ensemble, 3)

    def train():
        again()
        with torch.no_grad():
            outputs.append(copy.deepcopy(model).eval()(x))

    ensemble.fit(data(), train=train)
    ensemble.eval()
    with torch.no_grad():
        for draws in (1, 3, 20):
            assert torch.equal(ensemble.sample(x, draws), torch.stack(outputs, dim=-1))
    assert torch.stack(outputs).std(0).min() > 0


def test_a_call_is_a_member_and_seeds_say_which():
    ensemble, x = fitted(), data().tensors[0]
    members = ensemble.sample(x, 1)
    torch.manual_seed(1)
    calls = [ensemble(x) for _ in range(12)]
    which = [[torch.equal(call, members[..., i]) for i in range(3)].index(True) for call in calls]
    assert set(which) == {0, 1, 2}
    torch.manual_seed(1)
    assert all(torch.equal(ensemble(x), call) for call in calls)


def test_training_mode_is_the_models_own_pass():
    ensemble, x = fitted(), data().tensors[0]
    model = ensemble.parent_module
    twin = copy.deepcopy(model).train()
    assert torch.equal(ensemble.train()(x), twin(x))
    assert torch.equal(model[1].running_mean, twin[1].running_mean)


def test_an_ensemble_without_members_says_what_to_do():
    ensemble, x = EnsembleModule(normed(), 2).eval(), data().tensors[0]
    for draw in (lambda: ensemble.sample(x, 3), lambda: ensemble(x)):
        with pytest.raises(RuntimeError, match=r"call fit\(dataset, train="):
            draw()
    with pytest.raises(ValueError, match="train="):
        ensemble.fit(data())
    with pytest.raises(ValueError, match="from 1 on"):
        EnsembleModule(normed(), 0)


def test_training_that_fails_leaves_the_model_and_the_earlier_members():
    ensemble, x = fitted(), data().tensors[0]
    model = ensemble.parent_module
    before, members = state(model), ensemble.sample(x, 1)
    again = retrain(ensemble, 1)

    def fail():
        again()
        raise FloatingPointError("the loss became nan")

    with pytest.raises(FloatingPointError):
        ensemble.fit(data(), train=fail)
    assert state(model) == before
    assert torch.equal(ensemble.sample(x, 1), members)


def test_training_may_look_at_the_model_in_eval_mode():
    ensemble, seen = EnsembleModule(normed(), 2), []
    again = retrain(ensemble, 2)

    def train():
        again()
        ensemble.eval()
        seen.append(torch.equal(ensemble(data().tensors[0]), ensemble.parent_module(data().tensors[0])))

    ensemble.fit(data(), train=train)
    assert seen == [True, True]


def test_the_block_gives_the_deterministic_model_back():
    torch.manual_seed(0)
    model, x = normed().eval(), data().tensors[0]
    expected = model(x)
    with EnsembleModule(model, 2) as ensemble:
        ensemble.fit(data(), train=retrain(ensemble, 2))
        assert ensemble.eval().sample(x, 2).shape == (N, C, 2)
    assert torch.equal(ensemble(x), expected)
    assert torch.equal(ensemble.unpatch()(x), expected)
    assert torch.equal(model(x), expected)


def test_members_survive_pickling_and_copying():
    ensemble, x = fitted(), data().tensors[0]
    for other in (pickle.loads(pickle.dumps(ensemble)), copy.deepcopy(ensemble)):
        assert torch.equal(other.sample(x, 1), ensemble.sample(x, 1))


def test_a_wrapper_fits_the_members_after_training():
    torch.manual_seed(0)
    ensemble = EnsembleModule(normed(), 3)
    wrapper = ModelWrapper(ensemble, nn.CrossEntropyLoss(), device="cpu")
    wrapper.train_on_dataset(data(), batch_size=8, epoch=3)
    got = wrapper.predict_on_dataset(data(), batch_size=5, iterations=20)
    assert got.shape == (N, C, 3)
    assert np.allclose(got, wrapper.predict_on_dataset(data(), batch_size=N), atol=1e-6)
    assert got.std(-1).min() > 0


OPTIMIZERS = {
    "SGD": lambda model: torch.optim.SGD(model.parameters(), 0.1, momentum=0.9),
    "Adam": lambda model: torch.optim.Adam(model.parameters(), 0.01),
}


def remembered(optimizer):
    """What an optimizer knows of earlier steps, in one row."""
    told = optimizer.state_dict()["state"].values()
    return torch.cat([value.flatten() for each in told for value in each.values() if value is not None])


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_optimizer_goes_on_after_the_members_as_if_there_were_none(make_optimizer):
    left = []
    for make in (lambda model: model, lambda model: EnsembleModule(model, 2)):
        torch.manual_seed(0)
        model = make(normed())
        optimizer = make_optimizer(model)
        wrapper = ModelWrapper(model, nn.CrossEntropyLoss(), device="cpu")
        wrapper.train_on_dataset(data(), optimizer, batch_size=N, epoch=3)  # one batch: shuffling does not matter
        left.append((remembered(optimizer), model.state_dict().values()))
    assert torch.allclose(left[0][0], left[1][0], atol=1e-5)
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(left[0][1], left[1][1], strict=True))


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_every_member_starts_with_an_optimizer_that_remembers_nothing(make_optimizer):
    torch.manual_seed(0)
    ensemble, starts = EnsembleModule(normed(), 3), []
    optimizer = make_optimizer(ensemble)
    wrapper = ModelWrapper(ensemble, nn.CrossEntropyLoss(), device="cpu")
    wrapper.train_on_dataset(data(), optimizer, batch_size=8, epoch=1)
    reset_all = wrapper.reset_all
    wrapper.reset_all = lambda: (reset_all(), starts.append(None))
    optimizer.register_step_pre_hook(
        lambda *_: starts.append(len(optimizer.state)) if starts and starts[-1] is None else None
    )
    wrapper.train_on_dataset(data(), optimizer, batch_size=8, epoch=1)
    assert starts == [None, 0] * 3


def test_metrics_of_training_are_those_of_the_model_and_not_of_the_members():
    measured = []
    for make in (lambda model: model, lambda model: EnsembleModule(model, 2)):
        torch.manual_seed(0)
        wrapper = ModelWrapper(make(normed()), nn.CrossEntropyLoss(), device="cpu")
        losses = wrapper.train_on_dataset(data(), batch_size=N, epoch=2)
        measured.append(wrapper.get_metrics("train"))
        assert measured[-1]["train_loss"] == pytest.approx(losses[-1])
    assert measured[0] == pytest.approx(measured[1])


def test_members_disagree_most_where_there_are_no_data():
    def small():
        return nn.Sequential(nn.Linear(D, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, C))

    ensemble, x = fitted(small, members=5, epochs=80), data().tensors[0]
    far = torch.randn(200, D, generator=torch.Generator().manual_seed(1)) * 6
    with torch.no_grad():
        near_bald, far_bald = (bald(to_probabilities(ensemble.sample(one, 5), True)).mean() for one in (x, far))
    assert far_bald > 2 * near_bald


@pytest.mark.gpu
def test_checkpoints_and_members_follow_the_model_to_the_gpu():
    x = data().tensors[0]
    wrapper = trained(Recurrent)
    expected = wrapper.predict_on_dataset(data())
    assert np.allclose(wrapper.predict_on_dataset(data(), use_cuda=True), expected, atol=1e-4)
    assert wrapper.predict_on_batch(x, cuda=True).is_cuda
    ensemble = fitted(Recurrent)
    members = ensemble.sample(x, 1)
    assert torch.allclose(ensemble.cuda().sample(x.cuda(), 1).cpu(), members, atol=1e-4)

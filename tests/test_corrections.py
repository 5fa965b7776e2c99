"""What Baal 2.1 does wrong and is right here: one test for each defect, named after what is now true.

The tests of the parts go into the details; these are the list.
"""

import os
import subprocess
import sys
import warnings

import datasets
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

from baal_widgets import (
    ActiveLearningDataset,
    ActiveLearningLoop,
    FileDataset,
    MCDropoutModule,
    ModelWrapper,
    TrainingArgs,
)
from baal_widgets.active.dataset import ActiveNumpyArray
from baal_widgets.active.dataset.nlp_datasets import HuggingFaceDatasets
from baal_widgets.active.heuristics import (
    BALD,
    EPIG,
    BatchBALD,
    Certainty,
    CombineHeuristics,
    Entropy,
    GibbsSampling,
    Margin,
    PowerBALD,
    PowerSampling,
    Precomputed,
    Random,
    RankBasedSampling,
    Variance,
)
from baal_widgets.active.heuristics.heuristics_gpu import BALDGPUWrapper
from baal_widgets.active.scores import bald
from baal_widgets.active.stopping_criteria import EarlyStoppingCriterion
from baal_widgets.bayesian.caching_utils import MCCachingModule
from baal_widgets.bayesian.consistent_dropout import MCConsistentDropoutModule
from baal_widgets.bayesian.weight_drop import MCDropoutConnectModule
from baal_widgets.bayesian.weight_drop import patch_module as drop_weights
from baal_widgets.calibration import DirichletCalibrator
from baal_widgets.ensemble import EnsembleModelWrapper
from baal_widgets.experiments import ActiveLearningExperiment
from baal_widgets.utils.metrics import ECE, Accuracy, ClassificationReport, Loss, PRAuC, Precision

N, D, C, T = 30, 4, 3, 8


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def probabilities(rng):
    return rng.dirichlet(np.ones(C), size=(N, T)).transpose(0, 2, 1)


def make_set(n=N):
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(n, D, generator=generator), torch.randint(0, C, (n,), generator=generator))


def make_model():
    return nn.Sequential(nn.Linear(D, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, C))


def make_wrapper(module=MCDropoutModule, **options):
    return ModelWrapper(module(make_model()), nn.CrossEntropyLoss(), device="cpu", **options)


def half_labelled(dataset=None):
    dataset = make_set() if dataset is None else dataset
    return ActiveLearningDataset(dataset, labelled=[item < N // 2 for item in range(N)])


class Takes(Dataset):
    """Takes labels."""

    def __init__(self, n=N):
        self.n, self.targets = n, {}

    def __len__(self):
        return self.n

    def __getitem__(self, item):
        return torch.full((D,), float(item)), self.targets.get(item, -1)

    def label(self, item, value):
        self.targets[item] = value


def varies(model, x):
    with torch.no_grad():
        return not torch.allclose(model(x), model(x), atol=1e-5)


# 1
def test_batchbald_begins_with_balds_best_and_never_gains_more_by_a_later_pick(probabilities):
    ranks, scores = BatchBALD(num_samples=4).get_ranks(probabilities)
    assert ranks[0] == bald(probabilities).argmax()
    assert scores[ranks[0]] == pytest.approx(bald(probabilities).max())
    assert (np.diff(scores[ranks[:4]]) <= 1e-9).all()


# 2
def test_dropconnect_drops_the_trained_weights_and_not_new_ones():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, groups=2, bias=False, padding_mode="reflect", padding=1), nn.Linear(4, C)
    )
    held = {name: value.clone() for name, value in model.state_dict().items()}
    patched = drop_weights(model, ["Conv2d", "Linear"], 0.3)
    assert {name: value.tolist() for name, value in patched.state_dict().items()} == {
        name: value.tolist() for name, value in held.items()
    }
    assert (patched[0].stride, patched[0].groups, patched[0].bias, patched[0].padding_mode) == (
        (2, 2),
        2,
        None,
        "reflect",
    )
    lstm = MCDropoutConnectModule(nn.LSTM(D, C), ["LSTM"], 0.5).eval()
    assert varies(lambda x: lstm(x)[0], torch.randn(2, 3, D))


# 3
def test_every_dropout_draws_at_prediction_time_and_a_consistent_mask_is_redrawn():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)
    for model in (nn.TransformerEncoder(layer, 2), nn.Dropout(0.5), nn.AlphaDropout(0.5), nn.Dropout1d(0.5)):
        assert varies(MCDropoutModule(model).eval(), torch.randn(2, 3, 8))
    draws = make_wrapper(MCConsistentDropoutModule, replicate_in_memory=False).predict_on_batch(torch.randn(4, D), T)
    assert BALD().get_uncertainties(draws).max() > 0


# 4
def test_probabilities_are_averaged_and_never_logits(rng):
    logits = 8 * rng.normal(size=(N, C, T))
    p = torch.from_numpy(logits).softmax(dim=1).numpy()
    for heuristic in (Entropy, Margin, Certainty):
        assert np.allclose(heuristic().get_uncertainties(logits), heuristic().get_uncertainties(p))
    assert np.allclose(Variance(from_logits=True).get_uncertainties(logits), Variance().get_uncertainties(p))
    wrapper = ModelWrapper(nn.Identity(), nn.CrossEntropyLoss())
    wrapper.predict_on_batch = None
    wrapper._draws = lambda *_: torch.from_numpy(logits)
    targets = torch.randint(0, C, (N,))
    loss = wrapper.test_on_batch(torch.zeros(N, C), targets, average_predictions=T)
    assert float(loss) == pytest.approx(-np.log(p.mean(-1)[np.arange(N), targets]).mean())


# 5
def test_reading_a_file_leaves_the_random_states_alone(tmp_path):
    from PIL import Image

    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    dataset = FileDataset([str(tmp_path / "a.png")], [0], transform=lambda image: torch.zeros(1))
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    dataset[0]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


# 6
@pytest.mark.parametrize("heuristic", [PowerBALD(4), PowerSampling(Margin(), 4), EPIG(), GibbsSampling(BALD(), 4)])
def test_every_heuristic_runs_in_a_loop(heuristic):
    dataset, wrapper = half_labelled(), make_wrapper(MCConsistentDropoutModule)
    for predict in (wrapper.predict_on_dataset, wrapper.predict_on_dataset_generator):
        loop = ActiveLearningLoop(dataset, predict, heuristic, query_size=4, iterations=T)
        before = len(dataset)
        assert loop.step()
        assert len(dataset) == before + 4


def test_combined_heuristics_run_in_a_loop(probabilities):
    dataset = half_labelled()
    combined = CombineHeuristics([BALD(), Entropy()], [1, 2])
    loop = ActiveLearningLoop(dataset, lambda pool: [probabilities[: len(pool)]] * 2, combined, query_size=4)
    assert loop.step()
    assert len(dataset) == N // 2 + 4


# 7
@pytest.mark.parametrize("kind", [PowerSampling, GibbsSampling, RankBasedSampling])
def test_sampling_prefers_what_is_uncertain_whichever_way_the_scores_count(kind, probabilities):
    doubt = 1 - Margin().get_uncertainties(probabilities)
    assert np.corrcoef(kind(Margin()).distribution(probabilities), doubt)[0, 1] > 0.3
    noise = np.array([1.0, -1e-17, 0.5])
    for temperature in (0.5, 1.0, 3.0):
        assert np.isfinite(kind(Precomputed(reverse=True), 99, temperature).get_ranks(noise)[1]).all()
    assert len(kind(BALD(), query_size=10 * N)(probabilities)) == N


# 8
def test_a_step_on_part_of_the_pool_labels_items_of_that_part():
    dataset = ActiveLearningDataset(make_set(), labelled=[False] * N)
    loop = ActiveLearningLoop(dataset, lambda pool: np.ones((len(pool), 2, 1)) / 2, Random(), query_size=3)
    loop.step(Subset(dataset.pool, [10, 11, 12]))
    assert np.flatnonzero(dataset.labelled).tolist() == [10, 11, 12]


# 9
def test_indices_follow_a_loaded_or_a_reset_state():
    dataset = half_labelled()
    state = dataset.state_dict()
    assert len(dataset) == N // 2
    dataset.reset_labelled()
    assert (len(dataset), len(dataset.pool), dataset.labelled_map.dtype.kind) == (0, N, "i")
    dataset.label([3, 4])
    assert dataset.get_indices_for_active_step() == [3, 4]
    dataset.load_state_dict(state)
    assert dataset.get_indices_for_active_step() == list(range(N // 2))


# 10
def test_a_saved_state_is_a_copy_that_torch_loads_safely(tmp_path):
    dataset = half_labelled()
    state = dataset.state_dict()
    torch.save(state, tmp_path / "state.pt")
    dataset.label(0)
    assert int(np.asarray(state["labelled"]).astype(bool).sum()) == N // 2
    dataset.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert len(dataset) == N // 2


# 11
def test_an_array_dataset_keeps_the_given_label_and_iterates_over_labelled_rows():
    x, y = np.arange(N)[:, None], np.zeros(N, int)
    dataset = ActiveNumpyArray((x, y))
    dataset.label([2], [7])
    assert dataset.get_raw(2)[1] == 7
    assert y[2] == 0  # the caller's array stays
    assert len(list(dataset)) == len(dataset) == 1
    with pytest.raises(ValueError, match="2"):
        dataset.label([0], [1, 2])
    assert len(dataset) == 1


# 12
def test_the_epochs_are_those_asked_for():
    wrapper, seen = make_wrapper(), []
    wrapper.model.register_forward_hook(lambda module, *_: seen.append(1) if module.training else None)
    history = wrapper.train_and_test_on_datasets(make_set(8), make_set(8), None, 8, 4, False)
    assert (len(history), len(seen)) == (4, 4)
    assert (
        len(ModelWrapper(make_model(), TrainingArgs(criterion=nn.CrossEntropyLoss())).train_on_dataset(make_set(8)))
        == 1
    )


# 13
def test_a_metric_is_what_its_name_says(capsys):
    p = torch.eye(2)[[0, 0, 0, 1]]
    precision = Precision(2)
    precision.update(p, torch.tensor([0, 1, 1, 1]))
    assert precision.value == pytest.approx((1 / 3 + 1) / 2)
    accuracy = Accuracy()
    accuracy.update(torch.eye(2)[[0] * 9], torch.tensor([0] * 9))
    accuracy.update(torch.eye(2)[[0]], torch.tensor([1]))
    assert accuracy.value == pytest.approx(0.9)
    wrapper = make_wrapper()
    wrapper.add_metric("floss_accuracy", Accuracy)
    wrapper.test_on_dataset(make_set())
    assert 0 <= wrapper.metrics["test_floss_accuracy"].value <= 1
    assert isinstance(wrapper.metrics["test_loss"], Loss)
    report = ClassificationReport(2)
    report.update(p, torch.tensor([0, 1, 1, 1]))
    assert report.value
    assert capsys.readouterr().out == ""


# 14
def test_calibration_error_is_exact_and_fast():
    perfect = ECE()
    perfect.update(torch.eye(C)[[0, 1, 2]], torch.tensor([0, 1, 2]))
    assert perfect.value == 0
    yes_no = ECE()
    yes_no.update(torch.tensor([[0.75]] * 4), torch.tensor([1, 1, 1, 0]))
    assert yes_no.value == pytest.approx(0)
    assert str(ECE()) is not None
    assert len(ECE(n_bins=7).plot().data[0].x) >= 0
    many = ECE()
    many.update(torch.rand(200_000, C).softmax(1), torch.randint(0, C, (200_000,)))
    area = PRAuC(C, 10, average=True)
    area.update(torch.eye(C)[[0, 1, 2]], torch.tensor([0, 1, 2]))
    assert area.value == pytest.approx(1)


# 15
def test_calibrating_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8), nn.Linear(8, C))
    held = {name: value.clone() for name, value in model.state_dict().items()}
    wrapper = ModelWrapper(model, TrainingArgs(criterion=nn.CrossEntropyLoss(), epoch=2, use_cuda=False))
    calibrator = DirichletCalibrator(wrapper, C, lr=1e-2, reg_factor=1e-2, mu=0)
    calibrator.calibrate(make_set(), make_set())
    assert all(torch.equal(value, held[name]) for name, value in model.state_dict().items())
    assert sum(name.startswith("test_ece") for name in calibrator.metrics) == 2


# 16
def test_an_ensemble_keeps_the_weights_that_the_model_holds():
    wrapper = EnsembleModelWrapper(make_model(), nn.CrossEntropyLoss())
    for _ in range(3):
        wrapper.reset_all()
        wrapper.add_checkpoint()
    wrapper.reset_all()
    held = {name: value.clone() for name, value in wrapper.model.state_dict().items()}
    assert wrapper.predict_on_dataset(make_set(), iterations=99).shape == (N, C, 3)
    assert all(torch.equal(value, held[name]) for name, value in wrapper.model.state_dict().items())
    other = EnsembleModelWrapper(make_model(), nn.CrossEntropyLoss())
    other.load_state_dict(wrapper.state_dict())
    assert np.array_equal(other.predict_on_dataset(make_set()), wrapper.predict_on_dataset(make_set()))


# 17
def test_half_precision_and_yes_no_models_are_scored_as_they_mean(probabilities):
    whole = BALD().get_uncertainties(probabilities)
    assert np.allclose(BALD().get_uncertainties(probabilities.astype(np.float16)), whole, atol=2e-3)
    yes = np.array([[[0.9, 0.1]], [[0.5, 0.5]]])
    both = np.concatenate([1 - yes, yes], axis=1)
    for heuristic in (BALD, Entropy):
        assert np.allclose(heuristic().get_uncertainties(yes), heuristic().get_uncertainties(both))
    batches = [np.array([[[3.0], [-3.0]]]), np.array([[[0.4], [0.6]]])]  # logits: the second could be taken for more
    assert np.allclose(
        Entropy().get_uncertainties(iter(batches)), Entropy(from_logits=True).get_uncertainties(np.concatenate(batches))
    )


# 18
def test_a_cache_notices_new_weights():
    model = make_model().eval()
    caching, x = MCCachingModule(model).eval(), torch.randn(2, D)
    with torch.no_grad():
        caching(x)
        before = caching(x)
        for parameter in model.parameters():
            parameter.add_(1.0)
        assert torch.allclose(caching(x), model(x))
        assert not torch.allclose(before, model(x))


# 19
def test_hugging_face_datasets_take_labels():
    data = datasets.Dataset.from_dict({"sentence": ["a", "b"], "label": [0, -1]})
    dataset = ActiveLearningDataset(HuggingFaceDatasets(data))
    dataset.label([1], [1])
    assert dataset.get_raw(1)["label"] == 1


# 20
def test_what_comes_before_the_dropout_runs_once_for_all_draws():
    wrapper, rows = make_wrapper(), []
    wrapper.model.parent_module[0].register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    wrapper.predict_on_batch(torch.randn(6, D), T)
    assert rows == [6]


# 21
def test_looking_at_the_pool_copies_nothing():
    class Heavy(Takes):
        def __deepcopy__(self, memo):
            raise AssertionError("copied")

    dataset = ActiveLearningDataset(Heavy())
    assert len(dataset.pool) == N
    assert dataset.pool[3][0][0] == 3


# 22
def test_an_item_is_found_without_a_walk_over_the_map():
    class Counted(np.ndarray):
        walks = 0

        def max(self, *args, **kwargs):
            Counted.walks += 1
            return np.asarray(self).max(*args, **kwargs)

    dataset = half_labelled()
    dataset._marks.steps = dataset._marks.steps.view(Counted)
    dataset[0]
    walked = Counted.walks
    for place in range(10):
        dataset[place]
    assert Counted.walks == walked


# 23
def test_an_error_of_the_model_is_told_as_it_is():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        make_wrapper().predict_on_batch(torch.randn(2, D + 1), T)


# 24
@pytest.mark.parametrize("kind", [int, np.int64, np.int32, lambda i: torch.tensor(i)])
def test_any_whole_number_labels_and_a_failure_labels_nothing(kind):
    data = Takes()
    dataset = ActiveLearningDataset(data, labelled=[False] * N)
    dataset.label(kind(2), 1)
    assert data.targets == {2: 1}
    with pytest.raises(IndexError):
        dataset.label([0, 10 * N], [1, 1])
    assert data.targets == {2: 1}
    with pytest.raises(ValueError, match="labelled"):
        ActiveLearningDataset(Takes(), labelled=[True])


# 25
def test_a_person_labels_by_the_pool_index_that_the_loop_gives():
    data = Takes()
    dataset = ActiveLearningDataset(data)
    loop = ActiveLearningLoop(dataset, lambda pool: np.ones((len(pool), 2, 1)) / 2, Random(seed=0), query_size=2)
    asked = loop.query()[:2]
    dataset.label(asked, [0, 1])
    assert len(data.targets) == 2
    with pytest.raises(ValueError, match=r"loop\.query\(\)"):
        loop.step()


# 26
def test_calls_of_both_generations_work():
    optimizer = torch.optim.SGD((model := make_model()).parameters(), 0.1)
    first = ModelWrapper(model, nn.CrossEntropyLoss())
    assert len(first.train_on_dataset(make_set(), optimizer, 4, 2, False)) == 2
    assert first.predict_on_dataset(make_set(), 4, 3, False).shape == (N, C, 3)
    second = ModelWrapper(model, TrainingArgs(optimizer, 4, 2, criterion=nn.CrossEntropyLoss()))
    assert len(second.train_on_dataset(make_set())) == 2
    assert second.predict_on_dataset(make_set(), 3).shape == (N, C, 3)


# 27
def test_importing_loads_little_and_says_nothing():
    code = (
        "import sys, logging, baal_widgets.active, baal_widgets.modelwrapper\n"
        "heavy = {'matplotlib', 'sklearn', 'torchmetrics', 'scipy', 'structlog', 'ipywidgets', 'plotly'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert not logging.root.handlers\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST"))}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")
    assert TrainingArgs().workers == 0


# 28
def test_scores_on_the_device_take_probabilities_and_every_reduction(probabilities):
    x = torch.from_numpy(probabilities).float()
    for reduction in ("max", "min", "mean", "sum", "none"):
        scores = BALDGPUWrapper(nn.Identity(), reduction=reduction).get_uncertainties(x)
        assert np.allclose(scores, bald(probabilities), atol=1e-5)


# 29
def test_one_seed_decides_and_no_global_state_is_touched(probabilities):
    np.random.seed(1)
    before = np.random.get_state()[1].tolist()

    def run(kind):
        heuristic = {
            "random": Random(seed=5),
            "power": PowerBALD(4, seed=5),
            "batch": BatchBALD(4, num_draw=50, seed=5),
            "shuffled": BALD(shuffle_prop=0.5, seed=5),
        }[kind]
        dataset = half_labelled()
        loop = ActiveLearningLoop(
            dataset, lambda pool: probabilities[: len(pool)], heuristic, 4, max_sample=10, random_state=5
        )
        loop.step()
        return np.flatnonzero(dataset.labelled).tolist()

    for kind in ("random", "power", "batch", "shuffled"):
        assert run(kind) == run(kind)
    assert np.random.get_state()[1].tolist() == before


# 30
def test_an_experiment_outlives_its_pool_and_forgets_momentum():
    torch.manual_seed(0)
    model = MCConsistentDropoutModule(make_model())
    args = TrainingArgs(torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), 8, 1, criterion=nn.CrossEntropyLoss())
    dataset = half_labelled()
    never = EarlyStoppingCriterion(dataset, "test_loss", patience=1000)
    experiment = ActiveLearningExperiment(
        ModelWrapper(model, args), dataset, make_set(8), EPIG(), 10, T, criterion=never
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records = experiment.start(verbose=False)
    assert [record["n_labelled"] for record in records] == [15, 25, 30]
    experiment.adapter.reset_weights()
    assert not args.optimizer.state_dict()["state"]

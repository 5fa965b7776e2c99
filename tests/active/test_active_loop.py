import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

from baal_widgets import ModelWrapper
from baal_widgets.active import ActiveLearningDataset, ActiveLearningLoop
from baal_widgets.active.heuristics import BALD, Certainty, Entropy, Margin, Random, Variance
from baal_widgets.bayesian.dropout import MCDropoutModule

N = 12


class Numbers(Dataset):
    """Item i is the number i; the higher, the less certain `predict` is."""

    def __init__(self, n=N):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, item):
        return item


class Waiting(Numbers):
    def __init__(self):
        super().__init__()
        self.targets = {}

    def label(self, item, value):
        self.targets[item] = value


def probabilities(item):
    p = 1 - item / (3 * N)
    return [[p, p], [1 - p, 1 - p]]


def predict(pool):
    return np.array([probabilities(pool[place]) for place in range(len(pool))])


def predict_in_batches(pool):
    return (np.array([probabilities(pool[place])]) for place in range(len(pool)))


def loop_of(dataset, heuristic=None, predict=predict, **options):
    return ActiveLearningLoop(dataset, predict, heuristic or Entropy(), **options)


def test_a_step_labels_what_the_heuristic_ranks_first():
    dataset = ActiveLearningDataset(Numbers())
    loop = loop_of(dataset, query_size=2)
    assert loop.step()
    assert list(dataset) == [10, 11]
    assert loop.step()
    assert list(dataset) == [8, 9, 10, 11]
    assert dataset.current_al_step == 2


@pytest.mark.parametrize("heuristic", [Entropy, Margin, Certainty, lambda: Variance(reduction="mean"), BALD])
def test_heuristics_take_batches_as_they_come(heuristic):
    """The same as from one array."""
    queries = [
        loop_of(ActiveLearningDataset(Numbers()), heuristic(), predict=function).query()
        for function in (predict, predict_in_batches)
    ]
    assert queries[0].tolist() == queries[1].tolist()
    assert sorted(queries[0].tolist()) == list(range(N))


def test_a_query_names_positions_in_the_pool_and_labels_nothing():
    dataset = ActiveLearningDataset(Numbers(), labelled=[True] * 4 + [False] * 8)
    query = loop_of(dataset).query()
    assert query.tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
    assert dataset.n_labelled == 4
    assert dataset.pool_to_dataset(query[:2]) == [11, 10]


def test_a_person_is_asked_by_query_and_answers_by_label():
    whole = Waiting()
    dataset = ActiveLearningDataset(whole)
    chosen = loop_of(dataset).query()[:2]
    dataset.label(chosen, [1, 0])
    assert whole.targets == {11: 1, 10: 0}


def test_a_subset_of_the_pool_is_named_by_positions_of_the_whole_pool():
    dataset = ActiveLearningDataset(Numbers(), labelled=[True] + [False] * 11)
    loop = loop_of(dataset, query_size=2)
    assert loop.query(Subset(dataset.pool, [5, 3, 4])).tolist() == [5, 4, 3]
    assert loop.step(pool=Subset(dataset.pool, [5, 3, 4]))
    assert list(dataset) == [0, 5, 6]
    nested = Subset(Subset(dataset.pool, [8, 1, 2]), [1, 2])
    assert loop.query(nested).tolist() == [2, 1]
    assert loop.query(dataset.pool).tolist() == loop.query().tolist()
    assert not loop.step(Subset(dataset.pool, []))


@pytest.mark.parametrize("other", [Numbers, lambda: ActiveLearningDataset(Numbers()).pool])
def test_items_that_are_not_of_the_pool_are_refused(other):
    dataset = ActiveLearningDataset(Numbers())
    with pytest.raises(ValueError, match="Expected pool to be dataset.pool"):
        loop_of(dataset).step(other())
    with pytest.raises(ValueError, match="Expected pool to be dataset.pool"):
        loop_of(dataset).query(Subset(other(), [1]))
    assert dataset.n_labelled == 0


@pytest.mark.parametrize("name", ["max_sample", "max_samples"])
def test_a_random_part_of_the_pool_is_predicted_on(name):
    seen = []

    def spy(pool):
        seen.append([pool[place] for place in range(len(pool))])
        return predict(pool)

    for _ in range(2):
        dataset = ActiveLearningDataset(Numbers(), labelled=[True] * 4 + [False] * 8)
        loop = loop_of(dataset, predict=spy, random_state=1, **{name: 3})
        query = loop.query()
        assert dataset.pool_to_dataset(query) == sorted(seen[-1], reverse=True)
        loop.step()
        assert dataset.labelled_map[max(seen[-1])] == 2
    assert [len(items) for items in seen] == [3] * 4
    assert seen[:2] == seen[2:]
    assert seen[0] != seen[1]
    assert set(seen[0]) <= set(range(4, N))


def test_a_sample_larger_than_the_pool_is_the_pool():
    assert len(loop_of(ActiveLearningDataset(Numbers()), max_sample=100).query()) == N


def test_random_needs_no_prediction():
    def never(pool):
        raise AssertionError("predicted")

    for heuristic in (Random(seed=1), None):
        dataset = ActiveLearningDataset(Numbers())
        loop = ActiveLearningLoop(dataset, never, *([heuristic] if heuristic else []), query_size=5)
        assert sorted(loop.query().tolist()) == list(range(N))
        assert loop.step()
        assert dataset.n_labelled == 5


@pytest.mark.parametrize("options", [{"query_size": 5}, {"ndata_to_label": 5}, {"ndata_to_label": 5, "query_size": 2}])
def test_both_names_of_the_query_size_are_known(options):
    dataset = ActiveLearningDataset(Numbers())
    sizes = []
    loop = loop_of(dataset, **options)
    while loop.step():
        sizes.append(dataset.n_labelled)
    assert sizes == [5, 10, 12]
    assert not loop.step()


@pytest.mark.parametrize("size", [0, -1])
def test_a_query_of_nothing_is_refused(size):
    with pytest.raises(ValueError, match="query_size"):
        loop_of(ActiveLearningDataset(Numbers()), query_size=size)


@pytest.mark.parametrize("options", [{"query_size": 1.5}, {"max_sample": 0}, {"max_samples": -2}], ids=repr)
def test_numbers_of_items_that_mean_nothing_are_refused(options):
    (name,) = options
    with pytest.raises(ValueError, match=name.rstrip("s")):
        ActiveLearningLoop(ActiveLearningDataset(Numbers()), None, **options)


def test_there_is_nothing_to_ask_about_an_empty_pool():
    for whole in (Numbers(), Waiting()):
        loop = loop_of(ActiveLearningDataset(whole, labelled=[True] * N))
        assert loop.query().tolist() == []
        assert loop.step() is False


def test_a_dataset_that_waits_for_labels_is_refused_before_predicting():
    def never(pool):
        raise AssertionError("predicted")

    dataset = ActiveLearningDataset(Waiting())
    with pytest.raises(ValueError, match=r"loop\.query\(\)"):
        loop_of(dataset, predict=never).step()
    assert dataset.n_labelled == 0
    dataset.can_label = False
    assert loop_of(dataset).step()


def test_arguments_by_name_reach_the_prediction():
    told = {}

    def spy(pool, **named):
        told.update(named)
        return predict(pool)

    loop_of(ActiveLearningDataset(Numbers()), predict=spy, iterations=3, half=True).step()
    assert told == {"iterations": 3, "half": True}


def test_scores_are_kept_in_a_file_that_needs_no_pickle(tmp_path):
    folder = tmp_path / "scores" / "of"
    dataset = ActiveLearningDataset(Numbers(), labelled=[True] * 2 + [False] * 10, last_active_steps=1)
    loop = loop_of(dataset, uncertainty_folder=folder, query_size=3)
    loop.step()
    loop.step(Subset(dataset.pool, [2, 0]))
    assert sorted(path.name for path in folder.iterdir()) == [
        "uncertainty_pool=10_labelled=2.npz",
        "uncertainty_pool=7_labelled=5.npz",
    ]
    with np.load(folder / "uncertainty_pool=10_labelled=2.npz", allow_pickle=False) as kept:
        assert kept["items"].tolist() == list(range(2, N))
        assert np.allclose(kept["uncertainty"], Entropy().get_uncertainties(predict(range(2, N))))
        assert kept["labelled"].tolist() == [1] * 2 + [0] * 10
    with np.load(folder / "uncertainty_pool=7_labelled=5.npz", allow_pickle=False) as kept:
        assert kept["items"].tolist() == [4, 2]


@pytest.mark.parametrize("method", ["predict_on_dataset", "predict_on_dataset_generator"])
def test_the_loop_runs_with_a_wrapper_to_the_end_of_the_pool(method):
    torch.manual_seed(0)
    x = torch.randn(N, 4)
    dataset = ActiveLearningDataset(TensorDataset(x, (x[:, 0] > 0).long()), random_state=0)
    dataset.label_randomly(2)
    model = MCDropoutModule(nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2)))
    wrapper = ModelWrapper(model, nn.CrossEntropyLoss())
    loop = ActiveLearningLoop(dataset, getattr(wrapper, method), BALD(), query_size=4, iterations=3, max_sample=6)
    sizes = []
    for _ in range(10):
        wrapper.train_on_dataset(dataset)
        sizes.append(len(dataset))
        if not loop.step():
            break
    assert sizes == [2, 6, 10, 12]

"""Scores made batch by batch where the model is: the same as those of all predictions, and in little memory."""

import tracemalloc
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

from baal_widgets import ActiveLearningDataset, ActiveLearningLoop, MCDropoutModule, ModelWrapper, TrainingArgs
from baal_widgets.active.heuristics import BALD, BatchBALD, Certainty, Entropy, Margin, Variance
from baal_widgets.utils.structures import regrouped

CLASSES, DRAWS = 5, 8


def wrapper(batch_size=4, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.Dropout(0.5), nn.Linear(32, CLASSES)).eval()
    return ModelWrapper(MCDropoutModule(model), TrainingArgs(batch_size=batch_size, **options), device="cpu")


def items(n=30):
    return TensorDataset(torch.randn(n, 6, generator=torch.Generator().manual_seed(1)), torch.zeros(n))


@pytest.mark.parametrize("heuristic", [BALD(), Entropy(), Margin(), Certainty(), Variance(from_logits=True)])
def test_scores_of_a_dataset_are_those_of_all_its_predictions(heuristic):
    ours, data = wrapper(), items()
    torch.manual_seed(2)
    scores = ours.scores_on_dataset(data, heuristic, iterations=DRAWS)
    torch.manual_seed(2)
    expected = heuristic.scores(ours.predict_on_dataset(data, iterations=DRAWS))
    assert scores.shape == (30,)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)


def test_a_heuristic_that_weighs_items_together_is_refused():
    with pytest.raises(ValueError, match="scores items one by one"):
        wrapper().scores_on_dataset(items(), BatchBALD(3), iterations=DRAWS)


def test_batches_come_back_as_they_were_however_they_went_through_the_model():
    ours, rows = wrapper(), []
    ours.model.parent_module[0].register_forward_hook(lambda _, __, output: rows.append(len(output)))
    parts = list(ours.predict_on_dataset_generator(items(), iterations=DRAWS))
    assert [len(part) for part in parts] == [4] * 7 + [2]
    assert rows == [4, 26]  # the first batch tells how much the others may take


def test_items_keep_their_order_when_batches_are_put_together():
    data = TensorDataset(torch.arange(30.0)[:, None].repeat(1, 6), torch.zeros(30))
    ours = wrapper()
    linear = ours.model.parent_module
    with torch.no_grad():
        linear[0].weight.copy_(torch.ones(32, 6))
        linear[2].weight.copy_(torch.ones(CLASSES, 32))
    means = ours.predict_on_dataset(data, iterations=400)[:, 0].mean(axis=-1)
    assert (np.diff(means) > 0).all()


def test_a_budget_of_memory_keeps_batches_apart():
    ours, rows = wrapper(memory=4), []
    ours.model.parent_module[0].register_forward_hook(lambda _, __, output: rows.append(len(output)))
    draws = ours.predict_on_dataset(items(6), iterations=DRAWS)
    assert draws.shape == (6, CLASSES, DRAWS)
    assert rows == [1] * 6


def test_batches_that_are_not_alike_are_not_put_together():
    batches = [torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 4), {"x": torch.zeros(2, 3)},
               {"x": torch.zeros(1, 3)}, {"x": torch.zeros(1, 3), "y": 3.0}]  # fmt: skip
    assert [group.sizes for group in regrouped(batches, lambda: 100)] == [(2, 2), (2,), (2, 1), (1,)]
    assert [group.sizes for group in regrouped(batches[:2], lambda: 3)] == [(2,), (2,)]
    assert [len(part) for part in next(regrouped(batches, lambda: 4)).split(torch.zeros(4, 1))] == [2, 2]


class Rows(Dataset):
    """A pool on disk, of which an item is read when it is asked for."""

    def __init__(self, path, n):
        self.rows = np.memmap(path, np.float32, "r", shape=(n, 6))

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, item):
        return torch.from_numpy(self.rows[item].copy())


def test_a_pool_on_disk_is_scored_with_few_of_its_predictions_in_memory(tmp_path, monkeypatch):
    n = 20_000
    np.random.default_rng(0).normal(size=(n, 6)).astype(np.float32).tofile(tmp_path / "pool")
    ours, pool = wrapper(batch_size=500), Rows(tmp_path / "pool", n)
    predictions = n * CLASSES * 20 * 4
    drawn, held, most = ours.draws_on_dataset, [], 0

    def watched(*args, **named):
        nonlocal most
        for part in drawn(*args, **named):
            held.append(weakref.ref(part))
            most = max(most, sum(one() is not None for one in held))
            yield part
            del part

    monkeypatch.setattr(ours, "draws_on_dataset", watched)
    ours.scores_on_dataset(Subset(pool, range(500)), BALD(), batch_size=500, iterations=20)
    tracemalloc.start()  # of NumPy; torch's own are watched
    scores = ours.scores_on_dataset(pool, BALD(), batch_size=500, iterations=20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert scores.shape == (n,)
    assert peak < predictions / 5
    assert len(held) == 1 + n / 500
    assert most <= 2


def test_a_loop_over_a_wrapper_holds_no_more_than_the_scores(monkeypatch):
    ours, seen = wrapper(), []
    dataset = ActiveLearningDataset(items())
    drawn = ours.draws_on_dataset
    monkeypatch.setattr(ours, "draws_on_dataset", lambda *args, **named: seen.append(named) or drawn(*args, **named))
    loop = ActiveLearningLoop(dataset, ours.predict_on_dataset, BALD(), query_size=3, iterations=DRAWS)
    assert loop.step()
    assert seen == [{"iterations": DRAWS}]
    assert dataset.n_labelled == 3
    assert len(loop.uncertainties) == 30


def test_a_loop_over_a_function_of_the_users_own_calls_it():
    ours, seen = wrapper(), []
    dataset = ActiveLearningDataset(items())

    def predict(pool):
        seen.append(len(pool))
        return ours.predict_on_dataset(pool, iterations=DRAWS)

    ActiveLearningLoop(dataset, predict, BALD(), query_size=3).step()
    assert seen == [30]

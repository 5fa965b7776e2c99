import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from baal_widgets.active.dataset import ActiveNumpyArray
from baal_widgets.active.heuristics import Entropy

N = 10


def make(labelled=None, **options):
    return ActiveNumpyArray((np.arange(2 * N).reshape(N, 2), np.arange(N) % 3), labelled, **options)


def test_both_sides_are_arrays_that_follow_the_labels():
    dataset = make([item in (2, 5) for item in range(N)])
    assert dataset.dataset[0].tolist() == [[4, 5], [10, 11]]
    assert dataset.dataset[1].tolist() == [2, 2]
    assert len(dataset.pool[0]) == len(dataset.pool[1]) == 8
    dataset.label([0, 1])
    assert dataset.dataset[1].tolist() == [0, 1, 2, 2]
    assert len(dataset) == dataset.n_labelled == 4


def test_a_label_that_is_given_is_kept_and_the_callers_array_stays():
    x, y = np.arange(N)[:, None], np.zeros(N, int)
    dataset = ActiveNumpyArray((x, y))
    dataset.label([3, 0], [1, 2])
    dataset.label(0, 5)
    assert [int(dataset.get_raw(item)[1]) for item in (3, 0, 1)] == [1, 2, 5]
    assert not y.any()


@pytest.mark.parametrize(
    ("index", "value", "error"),
    [
        ([0, 1], [1], ValueError),
        (0, [1, 2], ValueError),
        ([0, 0], [1, 1], ValueError),
        ([0, 99], [1, 1], IndexError),
        ([-1], [1], IndexError),
        ([0.5], [1], TypeError),
        ([0], ["cat"], ValueError),
        ([0], [0.5], ValueError),
    ],
)
def test_what_is_wrong_changes_nothing(index, value, error):
    dataset = make()
    before = dataset.state_dict()
    with pytest.raises(error):
        dataset.label(index, value)
    after = dataset.state_dict()
    assert torch.equal(before["labelled"], after["labelled"])
    assert before["targets"] == after["targets"]
    assert np.array_equal(dataset.pool[1], make().pool[1])


def test_rows_are_those_that_are_labelled():
    dataset = make([item in (2, 5) for item in range(N)])
    assert [x.tolist() for x, _ in dataset] == [[4, 5], [10, 11]]
    assert dataset[-1][0].tolist() == dataset[1][0].tolist() == [10, 11]
    with pytest.raises(IndexError):
        dataset[2]
    with pytest.raises(IndexError):
        dataset.get_raw(N)


def test_rows_of_several_targets_are_labelled():
    dataset = ActiveNumpyArray((np.zeros((4, 2)), np.zeros((4, 3))))
    dataset.label(1, [1.0, 2.0, 3.0])
    dataset.label([0, 1], [[4.0] * 3, [5.0] * 3])
    assert dataset.dataset[1].tolist() == [[4] * 3, [1, 2, 3], [5] * 3]


def test_random_labelling_follows_the_seed_and_ends_with_the_pool():
    one, two = make(random_state=3), make(random_state=3)
    one.label_randomly(4)
    two.label_randomly(4)
    assert np.array_equal(one.labelled, two.labelled)
    assert one.n_labelled == 4
    one.label_randomly(100)
    assert one.n_unlabelled == 0
    one.reset_labelled()
    assert (len(one), len(one.pool[0])) == (0, N)


def test_a_saved_state_holds_the_labels(tmp_path):
    dataset = make()
    dataset.label([4], [2])
    torch.save(dataset.state_dict(), tmp_path / "state.pt")
    other = make()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert np.array_equal(other.labelled, dataset.labelled)
    assert int(other.get_raw(4)[1]) == 2
    dataset.label_randomly(2)
    other.label_randomly(2)
    assert np.array_equal(other.labelled, dataset.labelled)


def test_rows_and_targets_must_match():
    with pytest.raises(ValueError, match=r"as many rows in x as in y, got shapes \(3,\) and \(2,\)"):
        ActiveNumpyArray((np.zeros(3), np.zeros(2)))
    with pytest.raises(ValueError, match="a value for each of 3"):
        ActiveNumpyArray((np.zeros(3), np.zeros(3)), labelled=[True])


def test_a_scikit_learn_model_learns_from_it(rng):
    x = rng.normal(size=(200, 2))
    dataset = ActiveNumpyArray((x, (x.sum(1) > 0).astype(int)), random_state=0)
    dataset.label_randomly(10)
    for _ in range(5):
        model = LogisticRegression().fit(*dataset.dataset)
        dataset.label(Entropy(from_logits=False)(model.predict_proba(dataset.pool[0]))[:10])
    assert len(dataset) == 60
    assert model.score(x, x.sum(1) > 0) > 0.95


def test_a_label_can_be_changed_and_taken_back():
    dataset = make([item in (2, 5) for item in range(N)])
    dataset.relabel(2, 0)
    assert dataset.dataset[1].tolist() == [0, 2]
    dataset.unlabel(2)
    assert int(dataset.get_raw(2)[1]) == 2  # what it came with
    assert len(dataset) == 1


def test_sparse_inputs_will_do():
    dataset = ActiveNumpyArray((sparse.eye(5), np.arange(5)), labelled=[True, False, True, False, False])
    assert dataset.dataset[0].shape == (2, 5)
    assert dataset.pool[0].toarray().argmax(1).tolist() == [1, 3, 4]

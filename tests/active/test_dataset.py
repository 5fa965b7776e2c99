import copy
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from baal_widgets.active.dataset import ActiveLearningDataset, without_target

N = 10
QUICK = settings(max_examples=40, deadline=None)
MASKS = st.lists(st.integers(0, 3), min_size=1, max_size=20)


class Known(Dataset):
    """Item i is (i, 100 + i); its labels are known."""

    def __init__(self, n=N):
        self.n, self.shift, self.reads = n, 0, 0

    def __len__(self):
        return self.n

    def __getitem__(self, item):
        self.reads += 1
        return item + self.shift, 100 + item


class Waiting(Dataset):
    """Waits for labels, keeps them in `targets`, and refuses the label "bad"."""

    def __init__(self, targets=None):
        self.targets = [-1] * N if targets is None else targets

    def __len__(self):
        return N

    def __getitem__(self, item):
        return item, self.targets[item] if not isinstance(self.targets, dict) else self.targets.get(item)

    def label(self, item, value):
        if isinstance(value, str):
            self.targets[item] = 99  # half done
            raise RuntimeError("refused")
        self.targets[item] = value

    def unlabel(self, item):
        self.targets[item] = -1


class Shy(Waiting):
    """Shows no labels."""

    def __init__(self):
        super().__init__()
        self.told, self.targets = {}, None

    def __getitem__(self, item):
        return item

    def label(self, item, value):
        self.told[item] = value


def first(dataset):
    return [item[0] for item in dataset]


# The split


def test_labelled_items_and_the_pool_share_out_the_whole_in_order():
    dataset = ActiveLearningDataset(Known(), labelled=[0, 1, 0, 0, 2, 0, 0, 0, 0, 1])
    assert first(dataset) == [1, 4, 9]
    assert first(dataset.pool) == [0, 2, 3, 5, 6, 7, 8]
    assert (len(dataset), len(dataset.pool), dataset.n_labelled, dataset.n_unlabelled) == (3, 7, 3, 7)
    assert dataset.get_raw(5) == (5, 105)
    assert dataset[-1] == (9, 109)
    assert dataset.pool[-1] == (8, 108)


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
@pytest.mark.parametrize("labelled", [[False, True] * 5, [0, 2] * 5])
def test_labelled_may_be_any_listing_of_truth_values_or_steps(kind, labelled):
    dataset = ActiveLearningDataset(Known(), labelled=kind(labelled))
    assert first(dataset) == [1, 3, 5, 7, 9]
    assert dataset.current_al_step == max(labelled)


@pytest.mark.parametrize("labelled", [[True] * 9, [[True] * N], [0.5] * N, ["a"] * N, [-1] * N, True])
def test_labelled_of_another_kind_or_length_is_refused(labelled):
    with pytest.raises(ValueError, match="Expected labelled"):
        ActiveLearningDataset(Known(), labelled=labelled)


def test_the_mask_that_was_given_and_the_maps_that_come_back_are_copies():
    given_mask = np.zeros(N, int)
    dataset = ActiveLearningDataset(Known(), labelled=given_mask)
    given_mask[:] = 1
    dataset.labelled_map[:] = 1
    dataset.labelled[:] = True
    assert dataset.n_labelled == 0


def test_the_pool_is_a_view_that_copies_nothing_and_follows_changes():
    whole = TensorDataset(torch.arange(N))
    dataset = ActiveLearningDataset(whole)
    pool = dataset.pool
    assert dataset.pool_dataset is whole
    dataset.label([0, 1])
    assert len(pool) == 8
    assert [int(x) for (x,) in pool] == [2, 3, 4, 5, 6, 7, 8, 9]
    whole.tensors[0][2] = 77
    assert int(pool[0][0]) == 77
    dataset.unlabel([0, 1])
    assert len(pool) == N


def test_an_empty_pool_and_an_empty_labelled_set_have_no_items():
    dataset = ActiveLearningDataset(Known())
    with pytest.raises(IndexError):
        dataset[0]
    dataset.label(list(range(N)))
    assert list(dataset.pool) == []
    with pytest.raises(IndexError):
        dataset.pool[0]


def test_an_empty_dataset_is_empty():
    assert len(ActiveLearningDataset(Known(0), labelled=[])) == 0
    dataset = ActiveLearningDataset(Known(0))
    dataset.label_randomly(3)
    assert len(dataset) == len(dataset.pool) == dataset.current_al_step == 0


@pytest.mark.parametrize("last_active_steps", [-1, 2])
def test_reading_does_not_walk_over_the_whole_map(last_active_steps):
    dataset = ActiveLearningDataset(Known(), labelled=[0, 1, 2, 3, 0] * 2, last_active_steps=last_active_steps)
    _ = dataset[0], dataset.pool[0]
    active, pool = dataset._active, dataset._pool
    _ = dataset[1], dataset.pool[1]
    assert dataset._active is active
    assert dataset._pool is pool


@QUICK
@given(MASKS)
def test_index_maps_are_inverse_bijections(mask):
    dataset = ActiveLearningDataset(Known(len(mask)), labelled=mask)
    pool = list(range(dataset.n_unlabelled))
    items = dataset.pool_to_dataset(pool)
    assert dataset.dataset_to_pool(items) == pool
    assert [dataset.dataset_to_pool(dataset.pool_to_dataset(i)) for i in pool] == pool
    labelled = dataset.labelled_to_dataset(list(range(dataset.n_labelled)))
    assert sorted([*items, *labelled]) == list(range(len(mask)))
    assert [dataset.is_labelled(i) for i in range(len(mask))] == [step > 0 for step in mask]


@QUICK
@given(MASKS, st.integers(0, 2**32 - 1), st.sampled_from([-1, 1, 2]), st.sampled_from([int, np.int64]))
def test_what_is_read_follows_every_change(mask, seed, steps, kind):
    dataset, rng = ActiveLearningDataset(Known(len(mask)), labelled=mask, last_active_steps=steps), random.Random(seed)
    pool = dataset.pool
    for _ in range(3):
        known = dataset.labelled_map
        least = 0 if steps == -1 else max(int(known.max()) - steps, 0)
        for read, items in ((dataset, np.flatnonzero(known > least)), (pool, np.flatnonzero(known == 0))):
            n = len(items)
            assert [read[kind(place)][0] for place in range(-n, n)] == [*items, *items]
            for place in (-n - 1, n):
                with pytest.raises(IndexError, match=f"Position {place} of {n}"):
                    read[kind(place)]
        item = rng.randrange(len(mask))
        if known[item]:
            dataset.unlabel(item)
        else:
            dataset.label_items(item)


def test_a_labelled_item_has_no_place_in_the_pool():
    dataset = ActiveLearningDataset(Known(), labelled=[True] + [False] * 9)
    with pytest.raises(ValueError, match="Item 0 is labelled"):
        dataset.dataset_to_pool([1, 0])


def test_baals_private_index_maps_are_there():
    dataset = ActiveLearningDataset(Known(), labelled=[True] + [False] * 9)
    assert dataset._pool_to_oracle_index([0, 1]) == [1, 2]
    assert dataset._labelled_to_oracle_index(0) == 0
    assert dataset._oracle_to_pool_index([2]) == [1]


# Labelling


def test_positions_are_of_the_pool_and_all_are_resolved_at_once():
    dataset = ActiveLearningDataset(Known(), labelled=[True, True] + [False] * 8)
    dataset.label([0, 1, 3])
    assert first(dataset) == [0, 1, 2, 3, 5]
    assert dataset.labelled_map.tolist() == [1, 1, 2, 2, 0, 2, 0, 0, 0, 0]


INDICES = [3, *(kind(3) for kind in (np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64))]
INDICES += [np.array(3), torch.tensor(3), torch.tensor(3, dtype=torch.uint8)]


@pytest.mark.parametrize("index", INDICES, ids=lambda i: f"{type(i).__name__}-{getattr(i, 'dtype', '')}")
@pytest.mark.parametrize("value", [7, np.int64(7), torch.tensor(7), np.array(7)], ids=lambda v: type(v).__name__)
def test_a_single_index_is_any_kind_of_whole_number(index, value):
    whole = Waiting()
    dataset = ActiveLearningDataset(whole, labelled=[True] + [False] * 9)
    dataset.label(index, value)
    assert dataset.get_indices_for_active_step() == [0, 4]
    assert whole.targets[4] == 7
    dataset.label_items([5], value)
    assert whole.targets[5] == 7


@pytest.mark.parametrize(
    "indices",
    [[3, 0], (3, 0), np.array([3, 0]), np.array([3, 0], np.uint8), torch.tensor([3, 0]),
     [np.uint64(3), np.int8(0)], [torch.tensor(3), np.array(0)]],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("values", [[7, 8], (7, 8), np.array([7, 8]), torch.tensor([7, 8])], ids=repr)
def test_several_indices_are_any_listing_of_whole_numbers(indices, values):
    whole = Waiting()
    dataset = ActiveLearningDataset(whole)
    dataset.label(indices, values)
    assert (int(whole.targets[3]), int(whole.targets[0])) == (7, 8)
    assert dataset.labelled_map.tolist() == [1, 0, 0, 1] + [0] * 6


BAD = {
    "negative": (IndexError, -1, 1),
    "out of range": (IndexError, 8, 1),
    "one out of range": (IndexError, [0, 8], [1, 2]),
    "one negative": (IndexError, [0, -1], [1, 2]),
    "twice": (ValueError, [0, 1, 0], [1, 2, 3]),
    "truth value": (TypeError, True, 1),
    "numpy truth value": (TypeError, np.True_, 1),
    "truth values": (TypeError, [True, False], [1, 2]),
    "a truth value among numbers": (TypeError, [1, True], [1, 2]),
    "array of truth values": (TypeError, np.ones(2, bool), [1, 2]),
    "tensor of truth values": (TypeError, torch.ones(2, dtype=torch.bool), [1, 2]),
    "a truth tensor in a list": (TypeError, [torch.tensor(True)], [1]),
    "float": (TypeError, 1.0, 1),
    "numpy float": (TypeError, np.float64(1), 1),
    "floats": (TypeError, [0.0, 1.0], [1, 2]),
    "float array": (TypeError, np.zeros(2), [1, 2]),
    "float tensor": (TypeError, torch.zeros(2), [1, 2]),
    "text": (TypeError, "1", 1),
    "texts": (TypeError, ["1"], [1]),
    "none": (TypeError, None, 1),
    "nones": (TypeError, [None], [1]),
    "nested": (TypeError, [[0], [1, 2]], [1, 2]),
    "matrix": (TypeError, np.zeros((2, 2), int), [1, 2]),
    "slice": (TypeError, slice(0, 2), [1, 2]),
    "too few values": (ValueError, [0, 1], [1]),
    "too many values": (ValueError, [0, 1], [1, 2, 3]),
    "one value for two": (ValueError, [0, 1], 1),
    "no value": (ValueError, 0, None),
    "no values": (ValueError, [0, 1], None),
    "none for a value": (ValueError, [0], [None]),
    "nones for values": (ValueError, [0, 1], [None, None]),
    "one value missing": (ValueError, [0, 1], [1, None]),
    "a value for nothing": (ValueError, [], [1]),
    "refused by the dataset": (RuntimeError, [0, 1, 2], [5, "bad", 6]),
}
TARGETS = {
    "list": lambda: [-1] * N,
    "array": lambda: np.full(N, -1),
    "tensor": lambda: torch.full((N,), -1),
    "dict": lambda: {0: 4},
}


@pytest.mark.parametrize("targets", list(TARGETS))
@pytest.mark.parametrize("kind", list(BAD))
def test_what_is_wrong_is_refused_and_changes_nothing(kind, targets):
    error, index, value = BAD[kind]
    whole = Waiting(TARGETS[targets]())
    dataset = ActiveLearningDataset(whole, labelled=[1, 1] + [0] * 8)
    before, mask = copy.deepcopy(whole.targets), dataset.labelled_map
    with pytest.raises(error):
        dataset.label(index, value)
    assert list(whole.targets) == list(before)
    assert np.array_equal(np.asarray(list(whole.targets)), np.asarray(list(before)))
    assert (dataset.labelled_map == mask).all()
    assert dataset.current_al_step == 1


@pytest.mark.parametrize("make", [lambda: np.full((N, 2), -1), lambda: torch.full((N, 2), -1)])
def test_labels_of_several_numbers_are_rolled_back_too(make):
    whole = Waiting(make())
    with pytest.raises(RuntimeError):
        ActiveLearningDataset(whole).label([0, 1], [make()[0] + 5, "bad"])
    assert (whole.targets == -1).all()


def test_a_person_who_interrupts_leaves_nothing_half_labelled():
    class Interrupted(Waiting):
        def label(self, item, value):
            super().label(item, value)
            if item == 2:
                raise KeyboardInterrupt

    whole = Interrupted()
    dataset = ActiveLearningDataset(whole)
    with pytest.raises(KeyboardInterrupt):
        dataset.label([0, 1, 2, 3], [5, 6, 7, 8])
    assert whole.targets == [-1] * N
    assert dataset.n_labelled == 0


def test_labels_that_cannot_be_written_back_do_not_hide_the_error():
    class Frozen(Waiting):
        def label(self, item, value):
            raise RuntimeError("refused")

    with pytest.raises(RuntimeError, match="refused"):
        ActiveLearningDataset(Frozen((-1,) * N)).label(0, 1)


@pytest.mark.parametrize("targets", list(TARGETS))
def test_items_are_unlabelled_all_or_none(targets):
    class Sticky(Waiting):
        def unlabel(self, item):
            if item == 2:
                raise RuntimeError("refused")
            super().unlabel(item)

    whole = Sticky(TARGETS[targets]())
    dataset = ActiveLearningDataset(whole)
    dataset.label([0, 1, 2], [5, 6, 7])
    with pytest.raises(RuntimeError, match="refused"):
        dataset.unlabel([0, 1, 2])
    assert [int(whole.targets[item]) for item in range(3)] == [5, 6, 7]
    assert dataset.get_indices_for_active_step() == [0, 1, 2]


@pytest.mark.parametrize("step", [0, -1, 1.5, True])
def test_a_step_is_a_whole_number_from_one_on(step):
    dataset = ActiveLearningDataset(Known())
    with pytest.raises(ValueError, match="step"):
        dataset.label_items([0], step=step)
    assert dataset.n_labelled == 0


def test_a_list_is_one_label_where_one_item_is_named():
    whole = Waiting()
    dataset = ActiveLearningDataset(whole)
    dataset.label(0, [1, 2])
    dataset.label_items(1, [3, 4])
    dataset.relabel(0, [5])
    dataset.label(0, {"box": 1})
    assert whole.targets[:3] == [[5], [3, 4], {"box": 1}]


def test_texts_are_labels_like_any_other():
    whole = Shy()
    dataset = ActiveLearningDataset(whole)
    dataset.label(0, "cat")
    dataset.label([0], ["dog"])
    assert whole.told == {0: "cat", 1: "dog"}


def test_to_label_nothing_changes_nothing():
    for whole in (Known(), Waiting()):
        dataset = ActiveLearningDataset(whole)
        dataset.label([])
        dataset.label([], [])
        dataset.label(np.array([], int))
        assert dataset.current_al_step == 0


def test_items_are_labelled_relabelled_and_unlabelled_by_their_index_in_the_whole():
    whole = Waiting()
    dataset = ActiveLearningDataset(whole, labelled=[1, 1] + [0] * 8)
    dataset.label_items([9, 4], [5, 6])
    dataset.relabel(9, 7)
    assert [whole.targets[4], whole.targets[9]] == [6, 7]
    assert dataset.labelled_map.tolist() == [1, 1, 0, 0, 2, 0, 0, 0, 0, 2]
    dataset.unlabel(4)
    assert whole.targets[4] == -1
    assert not dataset.is_labelled(4)
    dataset.label_items(4, 3, step=1)
    assert dataset.labelled_map[4] == 1


def test_a_label_is_given_once_and_changed_by_relabel():
    dataset = ActiveLearningDataset(Waiting(), labelled=[1] + [0] * 9)
    with pytest.raises(ValueError, match="labelled already"):
        dataset.label_items([1, 0], [1, 1])
    with pytest.raises(ValueError, match="not labelled"):
        dataset.relabel([0, 1], [1, 1])
    with pytest.raises(ValueError, match="not labelled"):
        dataset.unlabel([0, 1])
    with pytest.raises(ValueError, match="more than once"):
        dataset.relabel([0, 0], [1, 2])
    with pytest.raises(ValueError, match="step"):
        dataset.label_items(1, 1, step=0)
    assert dataset.labelled_map.tolist() == [1] + [0] * 9
    assert dataset._dataset.targets == [-1] * N


def test_known_labels_survive_unlabel_where_the_dataset_is_not_asked():
    whole = Waiting(list(range(N)))
    dataset = ActiveLearningDataset(whole)
    dataset.can_label = False
    dataset.label([0, 1])
    dataset.unlabel([0, 1])
    assert whole.targets == list(range(N))


@QUICK
@given(MASKS, st.data())
def test_unlabel_after_label_is_identity(mask, data):
    dataset = ActiveLearningDataset(Known(len(mask)), labelled=mask)
    items = data.draw(st.lists(st.sampled_from(range(len(mask))), unique=True))
    items = [item for item in items if not dataset.is_labelled(item)]
    dataset.label_items(items)
    assert all(dataset.is_labelled(item) for item in items)
    dataset.unlabel(items)
    assert dataset.labelled_map.tolist() == mask


def test_a_value_for_a_dataset_that_takes_none_is_ignored_with_a_warning():
    dataset = ActiveLearningDataset(Known())
    with pytest.warns(UserWarning, match="no method label"):
        dataset.label([0, 1], [5, 6])
    assert list(dataset) == [(0, 100), (1, 101)]
    with pytest.raises(ValueError, match="each of 2"):
        dataset.label([0, 1], [5])


def test_research_on_a_dataset_that_takes_labels_turns_can_label_off():
    dataset = ActiveLearningDataset(Waiting())
    assert dataset.can_label
    dataset.can_label = False
    dataset.label(0)
    assert dataset.n_labelled == 1


def test_random_labels_need_labels_to_be_there():
    dataset = ActiveLearningDataset(Waiting())
    with pytest.raises(ValueError, match="waits for labels"):
        dataset.label_randomly(2)
    assert dataset.n_labelled == 0


# Steps


def test_only_the_last_steps_are_iterated_over():
    dataset = ActiveLearningDataset(Known(), last_active_steps=2)
    for item in (3, 1, 8):
        dataset.label_items(item)
    assert first(dataset) == [1, 8]
    assert (len(dataset), dataset.n_labelled) == (2, 3)
    dataset.label_items(0)
    assert first(dataset) == [0, 8]
    dataset.last_active_steps = 1
    assert first(dataset) == [0]
    dataset.last_active_steps = -1
    assert first(dataset) == [0, 1, 3, 8]


@pytest.mark.parametrize("steps", [0, -2])
def test_a_number_of_steps_that_means_nothing_is_refused(steps):
    with pytest.raises(ValueError, match="last_active_steps"):
        ActiveLearningDataset(Known(), last_active_steps=steps)


def test_caches_follow_reset_and_load():
    dataset = ActiveLearningDataset(Known(), last_active_steps=1)
    dataset.label([0, 1])
    other = ActiveLearningDataset(Known())
    other.label([5, 6])
    assert first(dataset) == [0, 1]
    dataset.load_state_dict(other.state_dict())
    assert first(dataset) == [5, 6]
    assert first(dataset.pool) == [0, 1, 2, 3, 4, 7, 8, 9]
    dataset.reset_labelled()
    assert (len(dataset), len(dataset.pool), dataset.current_al_step) == (0, N, 0)
    dataset.label(2)
    dataset.label(2)
    assert dataset.labelled_map.tolist() == [0, 0, 1, 2, 0, 0, 0, 0, 0, 0]
    dataset.reset_labeled()
    assert len(dataset) == 0


def test_a_thread_that_reads_while_another_labels_leaves_no_old_indices_behind():
    dataset = ActiveLearningDataset(Known(4))
    dataset.reset_labelled()  # nothing is kept of what the constructor read
    steps = dataset._marks.steps

    class LabelsMeanwhile(np.ndarray):
        def __eq__(self, other):
            dataset._marks.steps = steps
            dataset.label_items([0])  # between the reading of the map and the keeping of what was found
            return before == other

    before = steps.copy()
    dataset._marks.steps = before.view(LabelsMeanwhile)
    assert len(dataset._pool) == 4
    assert dataset._pool.tolist() == [1, 2, 3]


# Randomness


@pytest.mark.parametrize("n", [-1, 2.0, "3", True, None])
def test_a_number_of_random_labels_that_means_nothing_is_refused(n):
    dataset = ActiveLearningDataset(Known())
    with pytest.raises(ValueError, match="number of items"):
        dataset.label_randomly(n)
    dataset.label_randomly(0)
    assert (dataset.n_labelled, dataset.current_al_step) == (0, 0)


def test_random_labels_are_reproducible_and_leave_the_global_generators_alone():
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    picks = []
    for _ in range(2):
        dataset = ActiveLearningDataset(Known(), random_state=3)
        dataset.label_randomly(4)
        dataset.label_randomly()
        picks.append(dataset.labelled_map.tolist())
    assert picks[0] == picks[1]
    assert sorted(picks[0]) == [0] * 5 + [1] * 4 + [2]
    dataset.label_randomly(100)
    assert dataset.n_unlabelled == 0
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1], states[2]) == (np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002


@pytest.mark.parametrize("source", [None, 1, np.random.RandomState(1), np.random.default_rng(1)], ids=repr)
def test_the_random_state_is_of_any_kind(source):
    dataset = ActiveLearningDataset(Known(), random_state=source)
    dataset.label_randomly(3)
    assert dataset.n_labelled == 3


# Saving


@QUICK
@given(MASKS, st.integers(0, 9), st.booleans())
def test_a_state_round_trips_exactly_through_a_file(tmp_path_factory, mask, seed, old):
    source = np.random.RandomState(seed) if old else seed
    dataset = ActiveLearningDataset(Known(len(mask)), labelled=mask, random_state=source)
    path = tmp_path_factory.mktemp("state") / "state.pt"
    torch.save(dataset.state_dict(), path)
    restored = ActiveLearningDataset(Known(len(mask)))
    restored.load_state_dict(torch.load(path, weights_only=True))
    assert restored.labelled_map.tolist() == mask
    for one in (dataset, restored):
        one.label_randomly(2)
    assert (restored.labelled_map == dataset.labelled_map).all()


@pytest.mark.parametrize("targets", list(TARGETS))
@pytest.mark.parametrize("value", [7, np.int64(7), torch.tensor(7)], ids=lambda v: type(v).__name__)
def test_labels_are_saved_as_copies_and_come_back(targets, value, tmp_path):
    whole = Waiting(TARGETS[targets]())
    dataset = ActiveLearningDataset(whole, random_state=np.random.RandomState(1))
    dataset.label([2, 5], [value, value])
    saved = dataset.state_dict()
    dataset.relabel(2, 1)
    dataset.label(0, 1)
    torch.save(saved, tmp_path / "state.pt")
    fresh = Waiting(TARGETS[targets]())
    restored = ActiveLearningDataset(fresh)
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert restored.get_indices_for_active_step() == [2, 5]
    assert [int(fresh.targets[item]) for item in (2, 5)] == [7, 7]


def test_a_whole_that_is_partly_without_labels_round_trips():
    for targets in ({}, [-1] * N):
        dataset = ActiveLearningDataset(Waiting(targets), labelled=[True] * N)
        dataset.load_state_dict(dataset.state_dict())
        assert dataset.n_labelled == N


@pytest.mark.parametrize("legacy", [True, False])
def test_the_saved_state_is_not_used_up_by_loading_it(legacy):
    dataset = ActiveLearningDataset(Known(), random_state=0)
    saved = dataset.state_dict()
    if legacy:  # Baal's own form
        saved = {"labelled": np.zeros(N, int), "random_state": np.random.RandomState(1)}
    maps = []
    for _ in range(2):
        dataset.load_state_dict(saved)
        dataset.label_randomly(3)
        maps.append(dataset.labelled_map.tolist())
    assert maps[0] == maps[1]


@pytest.mark.parametrize("change", [{"labelled": np.zeros(N + 1, int)}, {"targets": {0: "bad"}}], ids=repr)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change):
    whole = Waiting()
    dataset = ActiveLearningDataset(whole, random_state=1)
    dataset.label(3, 3)
    before = copy.deepcopy(dataset.state_dict())
    other = ActiveLearningDataset(Waiting(), labelled=[True] * N, random_state=2)
    with pytest.raises((ValueError, RuntimeError)):
        dataset.load_state_dict({**other.state_dict(), **change})
    after = dataset.state_dict()
    assert torch.equal(after.pop("labelled"), before.pop("labelled"))
    assert after == before


def test_labels_given_after_a_state_was_saved_are_forgotten_with_it():
    whole = Waiting()
    dataset = ActiveLearningDataset(whole)
    dataset.label(0, 1)
    saved = dataset.state_dict()
    dataset.label([0, 1], [2, 3])
    dataset.load_state_dict(saved)
    assert whole.targets == [1] + [-1] * 9
    assert dataset.labelled_map.tolist() == [1] + [0] * 9
    dataset.label(0, 4)
    dataset.load_state_dict({"labelled": np.zeros(N, int)})  # Baal's kind knows no labels
    assert whole.targets == [1, 4] + [-1] * 8


@pytest.mark.parametrize("item", [4, N])
def test_a_state_with_labels_of_what_is_not_labelled_is_refused(item):
    dataset = ActiveLearningDataset(Waiting({}))
    dataset.label(0, 1)
    with pytest.raises(ValueError, match="labels of labelled items"):
        dataset.load_state_dict({**dataset.state_dict(), "targets": {item: 1}})
    assert dataset.dataset.targets == {0: 1}


@pytest.mark.parametrize("state", [{"bit_generator": "rand"}, {"bit_generator": "seed"}, {}, 3], ids=repr)
def test_a_random_state_that_is_none_is_refused_and_calls_nothing(state):
    dataset, before = ActiveLearningDataset(Known()), np.random.get_state()[2]  # noqa: NPY002
    with pytest.raises(ValueError, match="random state"):
        dataset.load_state_dict({**dataset.state_dict(), "random_state": state})
    assert np.random.get_state()[2] == before  # noqa: NPY002


# The pool's own ways


def test_pool_specifics_hold_for_the_pool_and_leave_the_dataset_as_it_was():
    whole = Known()
    dataset = ActiveLearningDataset(whole, pool_specifics={"shift": 1000})
    dataset.label(0)
    assert dataset.pool[0] == (1001, 101)
    assert dataset[0] == (0, 100)
    assert whole.shift == 0
    assert vars(whole).keys() == vars(Known()).keys()


def test_pool_specifics_that_the_dataset_does_not_know_are_refused():
    with pytest.raises(ValueError, match="no attribute 'transform' to set for the pool; looked in Known"):
        ActiveLearningDataset(Known(), pool_specifics={"transform": None})


def test_make_unlabelled_takes_the_target_off_in_the_pool_only():
    dataset = ActiveLearningDataset(Known(), make_unlabelled=lambda item: item[0])
    dataset.label(0)
    assert dataset.pool[0] == 1
    assert dataset[0] == (0, 100)


class Items(Known):
    def __init__(self, read):
        super().__init__()
        self.read = read

    def __getitem__(self, item):
        return self.read(self)


def noisy(kind):
    generator = np.random.default_rng(0)
    return lambda _: kind(generator.random(3))


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list, lambda x: {"x": x}, lambda x: (x, 1), sum])
def test_a_pool_that_reads_differently_each_time_is_warned_of(kind):
    with pytest.warns(UserWarning, match="data augmentation is not disabled"):
        ActiveLearningDataset(Items(noisy(kind)))


@pytest.mark.parametrize(
    "item", [float("nan"), np.array([np.nan, 1]), torch.tensor([float("nan"), 1]), {"a": None}, "text", np.array(["a"])]
)
def test_a_pool_that_reads_the_same_is_not_warned_of(item):
    ActiveLearningDataset(Items(lambda _: (copy.deepcopy(item), 0)))


def test_augmentation_that_pool_specifics_turn_off_is_not_warned_of():
    dataset = ActiveLearningDataset(Items(noisy(list)), pool_specifics={"read": lambda _: 0})
    assert dataset.pool[0] == 0


def test_a_holder_of_labels_can_be_put_around_a_dataset_that_takes_none():
    dataset = ActiveLearningDataset(Known(), labelled=[1] + [0] * 9)
    dataset.hold_labels_in(lambda _: Waiting())
    dataset.label(0, 5)
    assert list(dataset) == [(0, -1), (1, 5)]


class Transformed(Dataset):
    def __init__(self, n=4):
        self.n, self.transform, self.data = n, (lambda x: x + 100), list(range(n))

    def __len__(self):
        return self.n

    def __getitem__(self, item):
        return self.transform(self.data[item]), 0


class Holding(Dataset):
    """A wrapper of one's own."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, item):
        return self.dataset[item]


NESTED = {
    "subset": lambda inner: Subset(inner, [1, 3]),
    "subset of a subset": lambda inner: Subset(Subset(inner, [1, 2, 3]), [0, 2]),
    "wrapper": lambda inner: Holding(Subset(inner, [1, 3])),
    "joined": lambda inner: Subset(ConcatDataset([TensorDataset(torch.zeros(1)), inner]), [2, 4]),
}


@pytest.mark.parametrize("name", NESTED)
def test_pool_specifics_reach_into_nested_datasets(name):
    inner = Transformed()
    nested = NESTED[name](inner)
    dataset = ActiveLearningDataset(nested, labelled=[True, False], pool_specifics={"transform": lambda x: -x})
    assert dataset.pool[0][0] == -3
    assert dataset[0][0] == 101  # training keeps its augmentation
    assert nested[1][0] == 103
    assert dataset.pool_dataset is not nested
    held = dataset.pool_dataset
    while not isinstance(held, Transformed):
        held = held.datasets[1] if isinstance(held, ConcatDataset) else held.dataset
    assert held.data is inner.data  # nothing is copied


def test_pool_specifics_that_are_nowhere_tell_where_was_looked():
    with pytest.raises(ValueError, match="'augment'.*looked in Holding, Subset, Transformed"):
        ActiveLearningDataset(Holding(Subset(Transformed(), [0])), pool_specifics={"augment": None})


@pytest.mark.parametrize(
    ("item", "left"),
    [((1, 2), 1), ([1, 2], 1), ((1, 2, 3), (1, 2)), ({"x": 1, "label": 2}, {"x": 1}), (7, 7)],
)
def test_the_target_can_be_taken_off_the_pool(item, left):
    class Pair(Transformed):
        def __getitem__(self, _):
            return item

    dataset = ActiveLearningDataset(Pair(), labelled=[True] + [False] * 3, make_unlabelled=without_target)
    assert dataset.pool[0] == left
    assert dataset[0] == item


def test_pool_specifics_see_through_a_wrapper_that_forwards_attributes():
    class Forwarding(Holding):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return getattr(self.dataset, name)

    inner = Transformed()
    dataset = ActiveLearningDataset(Forwarding(inner), pool_specifics={"transform": lambda x: -x})
    assert dataset.pool[1][0] == -1
    assert inner[1][0] == 101

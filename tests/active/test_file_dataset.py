import random

import numpy as np
import pytest
import torch
from PIL import Image

from baal_widgets.active import ActiveLearningDataset, FileDataset
from baal_widgets.active.file_dataset import default_image_load_fn


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{shade}.png" for shade in (0, 60, 120, 180)]
    for path in paths:
        Image.new("L", (5, 3), int(path.stem)).save(path)
    return [str(path) for path in paths]


def test_an_item_is_an_image_in_colour_and_its_label(files):
    dataset = FileDataset(files, [2, 1, 0, 1])
    image, label = dataset[1]
    assert (len(dataset), image.mode, image.size, image.getpixel((0, 0)), label) == (4, "RGB", (5, 3), (60, 60, 60), 1)
    assert default_image_load_fn(files[0]).mode == "RGB"


def test_what_is_not_labelled_is_minus_one(files):
    dataset = FileDataset(files)
    assert dataset.lbls == [-1] * 4
    dataset.label(2, 1)
    assert [dataset[item][1] for item in range(4)] == [-1, -1, 1, -1]
    dataset.unlabel(2)
    assert dataset.lbls == [-1] * 4


def test_transforms_and_the_reader_are_the_users(files):
    dataset = FileDataset(files, [0, 1, 2, 3], len, lambda label: label * 10, image_load_fn=lambda path: path)
    assert dataset[3] == (len(files[3]), 30)


def states():
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
        np.random.get_state()[2],
        random.getstate(),
    )


def test_reading_leaves_the_global_generators_alone(files):
    torch.rand(1), np.random.rand(), random.random()  # not at the beginning
    before = states()
    dataset = FileDataset(files, seed=1)
    _ = dataset[0], dataset[3]
    assert states() == before


def test_a_random_transform_draws_on(files):
    dataset = FileDataset(files, transform=lambda _: float(torch.rand(())), seed=1)
    assert len({dataset[0][0] for _ in range(5)}) == 5


@pytest.mark.parametrize(
    "label",
    [2, *(kind(2) for kind in (np.int8, np.uint8, np.int64)), np.array(2), torch.tensor(2)],
    ids=lambda x: f"{type(x).__name__}-{getattr(x, 'dtype', '')}",
)
def test_a_label_is_a_whole_number_of_any_kind(files, label):
    dataset = FileDataset(files)
    dataset.label(0, label)
    assert dataset.lbls[0] == 2
    assert type(dataset.lbls[0]) is int


BAD = [-1, -2, 1.0, np.float32(1), True, np.True_, torch.tensor(True), "1", None, [1], torch.tensor([1]), np.array(1.5)]


@pytest.mark.parametrize("label", BAD, ids=repr)
def test_any_other_label_is_refused(files, label):
    dataset = FileDataset(files, [0, 1, -1, 3])
    with pytest.raises(ValueError, match="class index from 0 on"):
        dataset.label(0, label)
    assert dataset.lbls == [0, 1, -1, 3]


@pytest.mark.parametrize("labels", [["cat"] * 4, [0, 1, None, 2], [0, 1, -3, 1], np.array([0.5] * 4)], ids=repr)
def test_labels_that_are_none_are_refused_from_the_start(files, labels):
    with pytest.raises(ValueError, match="class index from 0 on"):
        FileDataset(files, labels)


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_labels_may_be_any_listing_with_gaps(files, kind):
    assert FileDataset(files, kind([0, -1, 2, 1])).lbls == [0, -1, 2, 1]


def test_every_file_needs_a_label_where_there_are_any(files):
    with pytest.raises(ValueError, match="a label for each of 4 files, got 3"):
        FileDataset(files, [0, 1, 2])


@pytest.mark.parametrize("item", [-1, 4])
def test_an_item_that_is_not_there_is_refused(files, item):
    dataset = FileDataset(files, [0, 1, 2, 3])
    with pytest.raises(IndexError, match="from 0 to 3"):
        dataset.label(item, 1)
    with pytest.raises(IndexError, match="from 0 to 3"):
        dataset.unlabel(item)
    assert dataset.lbls == [0, 1, 2, 3]


def test_the_list_of_labels_that_was_given_stays_as_it_was(files):
    labels = [0, 1, 2, 3]
    FileDataset(files, labels).label(0, 3)
    assert labels == [0, 1, 2, 3]


def test_a_batch_with_a_bad_label_leaves_all_as_it_was(files):
    whole = FileDataset(files)
    dataset = ActiveLearningDataset(whole)
    with pytest.raises(ValueError, match="class index"):
        dataset.label([0, 1, 2], [1, 2, "cat"])
    assert whole.lbls == [-1] * 4
    assert dataset.n_labelled == 0
    dataset.label([0, 1, 2], [1, 2, 0])
    dataset.unlabel(1)
    assert whole.lbls == [1, -1, 0, -1]

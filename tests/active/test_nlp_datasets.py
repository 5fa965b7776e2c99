import datasets
import pytest
import torch
from torch.utils.data import DataLoader

from baal_widgets.active.dataset.nlp_datasets import UNKNOWN, HuggingFaceDatasets, active_huggingface_dataset

TEXTS = ["good film", "bad film", "fine", "awful long film indeed", "meh"]


def make_data(labels=(1, 0, -1, -1, -1), names=None):
    columns = {"sentence": TEXTS, "label": list(labels)}
    if names is None:
        return datasets.Dataset.from_dict(columns)
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=list(names))}
    )
    return datasets.Dataset.from_dict(columns, features=features)


class Tokenizer:
    """Called as those of `transformers` are: a word is its length."""

    def __init__(self):
        self.calls = 0

    def __call__(self, text, *, add_special_tokens, max_length, return_token_type_ids, padding, return_attention_mask,
                 return_tensors, truncation):  # fmt: skip
        assert (padding, return_tensors, truncation) == ("max_length", "pt", True)
        self.calls += 1
        ids = [len(word) for word in text.split()][:max_length]
        rest = [0] * (max_length - len(ids))
        return {
            "input_ids": torch.tensor([ids + rest]),
            "attention_mask": torch.tensor([[1] * len(ids) + rest]),
        }


def test_items_are_what_a_transformer_takes():
    tokenizer = Tokenizer()
    dataset = HuggingFaceDatasets(make_data(), tokenizer, max_seq_len=3)
    assert tokenizer.calls == 0  # each text when it is asked for
    item = dataset[3]
    assert item["input_ids"].tolist() == [5, 4, 4]
    assert item["attention_mask"].tolist() == [1, 1, 1]
    assert (item["inputs"], int(item["label"])) == (TEXTS[3], UNKNOWN)
    batch = next(iter(DataLoader(dataset, batch_size=2)))
    assert batch["input_ids"].tolist() == [[4, 4, 0], [3, 4, 0]]
    assert batch["label"].tolist() == [1, 0]
    assert set(HuggingFaceDatasets(make_data())[0]) == {"inputs", "label"}


def test_labels_are_taken_and_the_dataset_given_stays():
    data = make_data()
    dataset = active_huggingface_dataset(data, labelled=[True, True, False, False, False])
    dataset.label([0, 2], [1, torch.tensor(0)])
    assert [int(item["label"]) for item in dataset] == [1, 0, 1, 0]
    assert list(data["label"]) == [1, 0, -1, -1, -1]
    dataset.unlabel([2])
    assert int(dataset.get_raw(2)["label"]) == UNKNOWN


def test_named_classes_are_labelled_by_name_or_index():
    dataset = HuggingFaceDatasets(make_data(names=["neg", "pos"]))
    assert (dataset.num_classes, dataset.targets_list) == (2, ["neg", "pos"])
    dataset.label(2, "pos")
    dataset.label(3, 0)
    assert dataset.targets == [1, 0, 1, 0, UNKNOWN]
    for wrong in ("maybe", 2):
        with pytest.raises(ValueError, match="The classes are neg, pos"):
            dataset.label(4, wrong)
    assert dataset.targets[4] == UNKNOWN


def test_a_class_not_seen_before_is_a_new_one():
    dataset = HuggingFaceDatasets(make_data(labels=["a", "b", None, None, None]))
    assert dataset.num_classes == 2
    dataset.label(2, "c")
    assert (dataset.num_classes, int(dataset[2]["label"])) == (3, 2)


def test_columns_may_have_other_names():
    data = make_data().rename_columns({"sentence": "text", "label": "stars"})
    assert HuggingFaceDatasets(data, target_key="stars", input_key="text")[0]["inputs"] == TEXTS[0]
    with pytest.raises(ValueError, match="no column 'label' but text, stars"):
        HuggingFaceDatasets(data)

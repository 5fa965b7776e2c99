import datasets
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from baal_widgets import ActiveLearningLoop, MCDropoutModule, ModelWrapper
from baal_widgets.active.dataset.nlp_datasets import UNLABELLED, HuggingFaceDatasets, active_huggingface_dataset
from baal_widgets.active.heuristics import BALD

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
        ids = [len(word) for word in text[0].split()][:max_length]
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
    assert (item["inputs"], int(item["label"])) == (TEXTS[3], UNLABELLED)
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
    assert int(dataset.get_raw(2)["label"]) == UNLABELLED


def test_named_classes_are_labelled_by_name_or_index():
    dataset = HuggingFaceDatasets(make_data(names=["neg", "pos"]))
    assert (dataset.num_classes, dataset.classes) == (2, ("neg", "pos"))
    dataset.label(2, "pos")
    dataset.label(3, 0)
    assert dataset.targets == [1, 0, 1, 0, UNLABELLED]
    with pytest.raises(ValueError, match="The classes are neg, pos"):
        dataset.label(4, "maybe")
    with pytest.raises(ValueError, match="The classes are neg, pos"):
        dataset.label(4, 2)
    assert dataset.targets[4] == UNLABELLED


def test_classes_are_indices_texts_or_names():
    assert HuggingFaceDatasets(make_data(labels=["b", "a", None, None, None])).targets == [1, 0] + [UNLABELLED] * 3
    indices = HuggingFaceDatasets(make_data(labels=[3, 0, -1, -1, -1]))
    indices.label(2, 4)
    assert (indices.targets[:3], indices.num_classes) == ([3, 0, 4], 5)
    named = HuggingFaceDatasets(make_data(), target_key=None, classes=["no", "yes"])
    named.label(0, "yes")
    assert named.targets == [1] + [UNLABELLED] * 4
    for dataset, wrong in ((indices, "yes"), (indices, -2), (named, 2)):
        with pytest.raises(ValueError, match="class"):
            dataset.label(1, wrong)
    with pytest.raises(ValueError, match="unlabel"):
        named.label(1, -1)
    with pytest.raises(TypeError, match="Of several splits take one"):
        HuggingFaceDatasets({"train": make_data()})


def test_columns_may_have_other_names():
    data = make_data().rename_columns({"sentence": "text", "label": "stars"})
    assert HuggingFaceDatasets(data, target_key="stars", input_key="text")[0]["inputs"] == TEXTS[0]
    with pytest.raises(ValueError, match="No column 'sentence': the dataset has text, stars"):
        HuggingFaceDatasets(data)


class Classifier(nn.Module):
    """Takes a batch as a dict, as Transformers do."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(10, 8), nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 2))

    def forward(self, batch):
        assert "label" not in batch  # a model that is asked is not told
        kept = batch["attention_mask"][..., None]
        return self.head((self.embedding(batch["input_ids"]) * kept).sum(1) / kept.sum(1))


def test_a_wrapper_trains_tests_and_predicts_on_dicts():
    dataset = active_huggingface_dataset(
        make_data(labels=[1, 0, 1, 0, -1]), Tokenizer(), max_seq_len=4, labelled=[True] * 4 + [False]
    )
    wrapper = ModelWrapper(MCDropoutModule(Classifier()), nn.CrossEntropyLoss(), device="cpu")
    assert len(wrapper.train_on_dataset(dataset, batch_size=2, epoch=2)) == 2
    assert wrapper.test_on_dataset(dataset, average_predictions=3) > 0
    assert wrapper.predict_on_dataset(dataset.pool, iterations=5).shape == (1, 2, 5)
    assert wrapper.features_on_dataset(dataset.pool).shape == (1, 8)
    loop = ActiveLearningLoop(dataset, wrapper.predict_on_dataset, BALD(), iterations=3)
    assert loop.query().tolist() == [0]


def test_a_batch_without_a_target_says_what_was_expected():
    wrapper = ModelWrapper(Classifier(), nn.CrossEntropyLoss(), device="cpu")
    for wrong in ([{"input_ids": torch.zeros(2)}], [(1.0, 2.0, 3.0)]):
        with pytest.raises(ValueError, match="Expected batches"):
            wrapper.train_on_dataset(wrong)

"""Texts from Hugging Face's `datasets`, tokenised as they are read.

Neither `datasets` nor `transformers` is imported: what they made is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from baal_widgets.active.dataset.pytorch_dataset import ActiveLearningDataset
from baal_widgets.checks import check_class, check_classes, check_item

UNLABELLED = -1


class HuggingFaceDatasets(Dataset[dict[str, Any]]):
    """Items `{"inputs": text, "label": class index}` from a `datasets.Dataset`, which take labels.

    With a `tokenizer` (called as those of `transformers` are) an item has `input_ids` and `attention_mask` too,
    `[max_seq_len]`, padded and truncated. Texts are tokenised when they are read, each time, so that a large set
    costs neither time nor memory up front. `target_key` and `input_key` name the columns; `target_key=None` says that
    nothing is labelled yet.

    Labels are class indices; -1 where the column has -1 or nothing. Their names come from `classes`, from the
    column's `ClassLabel`, or, for a column of texts, from its values in order. Whole numbers without names are
    indices as they are.
    """

    def __init__(
        self,
        dataset: Any,
        tokenizer: Callable[..., Any] | None = None,
        target_key: str | None = "label",
        input_key: str = "sentence",
        max_seq_len: int = 128,
        *,
        classes: Sequence[str] | None = None,
    ) -> None:
        columns = getattr(dataset, "column_names", None)
        if not isinstance(columns, list) or not hasattr(dataset, "__len__"):
            raise TypeError(
                f"Expected a datasets.Dataset, got {type(dataset).__name__}. Of several splits take one: "
                "dataset['train']. The package is installed by: pip install 'baal-widgets[huggingface]'."
            )
        if missing := [key for key in (input_key, target_key) if key is not None and key not in columns]:
            raise ValueError(
                f"No column {missing[0]!r}: the dataset has {', '.join(columns)}. Name the texts in input_key and the "
                "labels in target_key; target_key=None if there are no labels yet."
            )
        self.tokenizer, self.max_seq_len, self.input_key = tokenizer, max_seq_len, input_key
        self.dataset = dataset
        self._texts = dataset.with_format(None).select_columns([input_key])
        known: list[Any] = [] if target_key is None else list(dataset.with_format(None)[target_key][:])
        names = getattr(dataset.features[target_key], "names", None) if target_key is not None else None
        if classes is None:
            classes = names or sorted({value for value in known if isinstance(value, str)})
        elif names is not None and list(classes) != list(names):
            raise ValueError(f"Expected no classes, or those of the column, {names}, got {list(classes)}.")
        self.classes: tuple[str, ...] | None = check_classes(classes) if classes else None
        """The names of the classes in the order of their indices, where they have names."""
        self.targets = [self._index(value) for value in known] or [UNLABELLED] * len(dataset)
        """The class index of each item, -1 where it is not known."""

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, item: int) -> dict[str, Any]:
        item = check_item(item, len(self))
        text = self._texts[item][self.input_key]
        label = torch.tensor(self.targets[item], dtype=torch.long)
        return {**self._tokenised(text), "inputs": text, "label": label}

    @property
    def num_classes(self) -> int:
        """How many classes there are: those with a name, or up to the highest index so far."""
        return max(self.targets, default=-1) + 1 if self.classes is None else len(self.classes)

    def label(self, idx: int, value: Any) -> None:
        """Give an item its class, by name or index, any kind of integer. `ValueError` for one that does not exist."""
        index = self._index(value)
        if index == UNLABELLED:
            raise ValueError(f"Expected a class as the label of item {idx}, got {value!r}; unlabel({idx}) forgets it.")
        self.targets[check_item(idx, len(self))] = index

    def unlabel(self, idx: int) -> None:
        """Forget the label of an item."""
        self.targets[check_item(idx, len(self))] = UNLABELLED

    def _index(self, value: Any) -> int:
        if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
            value = value.item()
        if value is None or (isinstance(value, (int, np.integer)) and value == UNLABELLED):
            return UNLABELLED
        if self.classes is not None:
            return self.classes.index(check_class(self.classes, value))
        if not isinstance(value, (int, np.integer)) or value < 0:
            raise ValueError(
                f"Expected a class index from 0 on, or -1 for none, got {value!r}. To use names, pass classes=[...]."
            )
        return int(value)

    def _tokenised(self, text: str) -> dict[str, torch.Tensor]:
        if self.tokenizer is None:
            return {}
        encoded = self.tokenizer(
            [text],
            add_special_tokens=True,
            max_length=self.max_seq_len,
            return_token_type_ids=False,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
            truncation=True,
        )
        return {key: torch.as_tensor(encoded[key]).reshape(-1) for key in ("input_ids", "attention_mask")}


def active_huggingface_dataset(
    dataset: Any,
    tokenizer: Callable[..., Any] | None = None,
    target_key: str | None = "label",
    input_key: str = "sentence",
    max_seq_len: int = 128,
    *,
    classes: Sequence[str] | None = None,
    **kwargs: Any,
) -> ActiveLearningDataset:
    """An `ActiveLearningDataset`, with its own arguments in `kwargs`, of `HuggingFaceDatasets`.

    It waits for labels. In research on the labels that the column has, set `can_label = False`.
    """
    held = HuggingFaceDatasets(dataset, tokenizer, target_key, input_key, max_seq_len, classes=classes)
    return ActiveLearningDataset(held, **kwargs)

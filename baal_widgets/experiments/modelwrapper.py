"""Experiments with a `ModelWrapper`."""

from __future__ import annotations

import copy
from typing import Any

from torch.utils.data import Dataset

from baal_widgets.modelwrapper import ModelWrapper


class ModelWrapperAdapter:
    """Trains a wrapper by its own arguments, each time from the weights and the optimizer state it has now."""

    def __init__(self, wrapper: ModelWrapper) -> None:
        self.wrapper = wrapper
        self._weights = copy.deepcopy(wrapper.state_dict())
        optimizer = wrapper.args.optimizer
        self._optimizer = None if optimizer is None else copy.deepcopy(optimizer.state_dict())

    def reset_weights(self) -> None:
        self.wrapper.load_state_dict(self._weights)
        if self.wrapper.args.optimizer is not None and self._optimizer is not None:
            self.wrapper.args.optimizer.load_state_dict(copy.deepcopy(self._optimizer))

    def train(self, al_dataset: Dataset[Any]) -> dict[str, Any]:
        self.wrapper.train_on_dataset(al_dataset)
        return self.wrapper.get_metrics("train")

    def evaluate(self, dataset: Dataset[Any], average_predictions: int) -> dict[str, Any]:
        self.wrapper.test_on_dataset(dataset, average_predictions=average_predictions)
        return self.wrapper.get_metrics("test")

    def predict(self, dataset: Dataset[Any], iterations: int) -> Any:
        return self.wrapper.predict_on_dataset_generator(dataset, iterations=iterations)

    def features(self, dataset: Dataset[Any]) -> Any:
        return self.wrapper.features_on_dataset(dataset)

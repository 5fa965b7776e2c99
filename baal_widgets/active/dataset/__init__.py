"""Datasets that know what is labelled."""

from baal_widgets.active.dataset.base import SplittedDataset
from baal_widgets.active.dataset.numpy import ActiveNumpyArray
from baal_widgets.active.dataset.pytorch_dataset import ActiveLearningDataset, ActiveLearningPool, without_target

__all__ = [
    "ActiveLearningDataset",
    "ActiveLearningPool",
    "ActiveNumpyArray",
    "SplittedDataset",
    "without_target",
]

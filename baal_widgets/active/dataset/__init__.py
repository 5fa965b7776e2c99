"""Datasets that know what is labelled."""

from baal_widgets.active.dataset.base import SplittedDataset
from baal_widgets.active.dataset.pytorch_dataset import ActiveLearningDataset, ActiveLearningPool

__all__ = ["ActiveLearningDataset", "ActiveLearningPool", "SplittedDataset"]

"""Whole active learning runs on a set whose labels are known. Baal's names at Baal's paths."""

from baal_widgets.experiments.adapters import FrameworkAdapter
from baal_widgets.experiments.base import ActiveLearningExperiment
from baal_widgets.experiments.modelwrapper import ModelWrapperAdapter

__all__ = ["ActiveLearningExperiment", "FrameworkAdapter", "ModelWrapperAdapter"]

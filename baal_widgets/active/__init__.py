"""Choosing what to label: datasets, heuristics, the loop. Baal's names at Baal's paths."""

from baal_widgets.active.active_loop import ActiveLearningLoop
from baal_widgets.active.dataset import ActiveLearningDataset
from baal_widgets.active.file_dataset import FileDataset
from baal_widgets.active.heuristics import get_heuristic

__all__ = ["ActiveLearningDataset", "ActiveLearningLoop", "FileDataset", "get_heuristic"]

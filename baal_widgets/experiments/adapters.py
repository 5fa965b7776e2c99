"""What an experiment asks of a training library."""

from __future__ import annotations

from typing import Any, Protocol

from torch.utils.data import Dataset


class FrameworkAdapter(Protocol):
    """Trains, evaluates and predicts with a library of your choice: give one to `ActiveLearningExperiment`."""

    def reset_weights(self) -> None:
        """Go back to where training begins, the optimizer included."""

    def train(self, al_dataset: Dataset[Any]) -> dict[str, Any]:
        """Train on the labelled items; metrics by name."""

    def evaluate(self, dataset: Dataset[Any], average_predictions: int) -> dict[str, Any]:
        """Metrics by name on held-out items, of the model averaged over that many draws."""

    def predict(self, dataset: Dataset[Any], iterations: int) -> Any:
        """Predictions `[item, class, ..., draw]`, or an iterator of batches of them."""

    def features(self, dataset: Dataset[Any]) -> Any:
        """What goes into the last layer, `[item, feature]`; asked for by heuristics such as `CoreSet` alone."""

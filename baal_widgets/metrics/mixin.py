"""The metrics of a wrapper, by name and phase, and what they were at each size of the labelled set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.nn import Module

from baal_widgets.utils.metrics import Loss

PHASES = ("train", "test")


class MetricMixin:
    """Holds a fresh metric object for each name and phase: `metrics["test_ece"].value`.

    A metric says in `takes` whether it is fed the predictions or the loss; torchmetrics objects are fed the
    predictions.
    """

    def __init__(self) -> None:
        self.metrics: dict[str, Any] = {}
        self.active_learning_metrics: dict[int, dict[str, Any]] = defaultdict(dict)
        self._dataset_size = -1
        self.add_metric("loss", Loss)

    def add_metric(self, name: str, initializer: Callable[[], Any]) -> None:
        """Measure something in training and testing: `add_metric("ece", lambda: ECE(n_bins=20))`."""
        made = {f"{phase}_{name}": initializer() for phase in PHASES}
        if len({id(metric) for metric in made.values()}) < len(made):
            raise ValueError(f"Expected a new metric object from each call of the initializer of {name!r}.")
        self.metrics.update(made)

    def get_metrics(self, filter: str = "") -> dict[str, Any]:  # noqa: A002  Baal's name
        """The values by name, with `dataset_size`; with `filter` only those of a phase ("train", "test") or of one
        name."""
        values = {
            name: value_of(metric)
            for name, metric in self.metrics.items()
            if filter in ("", name, name.partition("_")[0])
        }
        return {**values, "dataset_size": self._dataset_size}

    def set_dataset_size(self, dataset_size: int) -> None:
        """Note the size of the labelled set, under which `active_learning_metrics` keeps what follows."""
        self._dataset_size = dataset_size

    def active_step(self, dataset_size: int | None, metrics: Mapping[str, Any]) -> None:
        """Keep metrics for a size of the labelled set; `None` for the last one."""
        size = self._dataset_size if dataset_size is None else dataset_size
        self.active_learning_metrics[size].update(metrics)

    def _reset_metrics(self, phase: str) -> None:
        for name, metric in self.metrics.items():
            if name.startswith(f"{phase}_"):
                metric.reset()

    def _update_metrics(self, output: Any, target: Any, loss: Tensor, phase: str) -> None:
        for name, metric in self.metrics.items():
            if not name.startswith(f"{phase}_"):
                continue
            if isinstance(metric, Module):  # of torchmetrics: it computes where its state is
                metric.to(loss.device)
            if getattr(metric, "takes", "predictions") == "loss":
                metric.update(loss, target)
            else:
                metric.update(output, target)


def value_of(metric: Any) -> Any:
    """What a metric of ours, or of torchmetrics, amounts to."""
    if hasattr(metric, "value"):
        return metric.value
    value = metric.compute()
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value

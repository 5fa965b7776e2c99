"""Baal's utilities at Baal's path."""

from baal_widgets.utils.metrics import (
    ECE,
    F1,
    Accuracy,
    ClassificationReport,
    ECE_PerCLs,
    Loss,
    Metrics,
    PRAuC,
    Precision,
    Recall,
    get_metric,
)

__all__ = [
    "ECE",
    "F1",
    "Accuracy",
    "ClassificationReport",
    "ECE_PerCLs",
    "Loss",
    "Metrics",
    "PRAuC",
    "Precision",
    "Recall",
    "get_metric",
]

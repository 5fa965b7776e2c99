"""Baal's utilities at Baal's path."""

from baal_widgets.utils.metrics import ECE, Accuracy, ECE_PerCLs, Loss, Metrics

__all__ = ["ECE", "Accuracy", "ECE_PerCLs", "Loss", "Metrics"]

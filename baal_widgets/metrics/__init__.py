"""How good predictions are once the truth is known: accuracy, likelihood, calibration; each a function of arrays.
Beside them, in `agreement`, how far several people say the same.

Probabilities are `[item, class]` or `[item, class, ...]` (segmentation: each pixel counts), already averaged over
the draws; targets are class indices `[item, ...]` or `[item, 1, ...]`. NumPy and tensors alike. A yes/no model may
give one class, the probability of "yes". Values out of place and empty inputs are refused with a `ValueError`; a
NaN prediction is wrong, and makes the measures that average it NaN.
"""

from baal_widgets.metrics.agreement import (
    agreement_interval,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    observed_agreement,
    pairwise_agreement,
    per_class_agreement,
)
from baal_widgets.metrics.calibration_error import (
    Binning,
    CalibrationBins,
    bins_of_rows,
    calibration_bins,
    classwise_ece,
    ece,
    empty_bins,
)
from baal_widgets.metrics.confusion import (
    Average,
    ClassReport,
    classification_report,
    confusion_matrix,
    f1,
    precision,
    recall,
)
from baal_widgets.metrics.intervals import wilson_interval
from baal_widgets.metrics.overall import accuracy, brier, nll
from baal_widgets.metrics.ranking import average_precision
from baal_widgets.metrics.resampling import EceIfCalibrated, ece_if_calibrated, ece_interval
from baal_widgets.metrics.rows import Floats, as_rows, hits

__all__ = [
    "Average",
    "Binning",
    "CalibrationBins",
    "ClassReport",
    "EceIfCalibrated",
    "Floats",
    "accuracy",
    "agreement_interval",
    "as_rows",
    "average_precision",
    "bins_of_rows",
    "brier",
    "calibration_bins",
    "classification_report",
    "classwise_ece",
    "cohen_kappa",
    "confusion_matrix",
    "ece",
    "ece_if_calibrated",
    "ece_interval",
    "empty_bins",
    "f1",
    "fleiss_kappa",
    "hits",
    "krippendorff_alpha",
    "nll",
    "observed_agreement",
    "pairwise_agreement",
    "per_class_agreement",
    "precision",
    "recall",
    "wilson_interval",
]

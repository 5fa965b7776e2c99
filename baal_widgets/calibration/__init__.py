"""Make confidence mean what it says, from held-out predictions alone; the model itself is never touched."""

from baal_widgets.calibration.calibration import CalibratedModel, DirichletCalibrator
from baal_widgets.calibration.scaling import DirichletCalibration, TemperatureScaling, odir

__all__ = ["CalibratedModel", "DirichletCalibration", "DirichletCalibrator", "TemperatureScaling", "odir"]

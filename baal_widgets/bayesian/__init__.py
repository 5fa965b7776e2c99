"""Where the uncertainty comes from: ways to draw from a model's posterior."""

from baal_widgets.bayesian.common import BayesianModule
from baal_widgets.bayesian.dropout import MCDropoutModule

__all__ = ["BayesianModule", "MCDropoutModule"]

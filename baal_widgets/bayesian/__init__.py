"""Where the uncertainty comes from: ways to draw from a model's posterior. All answer to `sample`, `fit` and `penalty`.

Deep ensembles, `EnsembleModule`, are in `baal_widgets.ensemble`, with Baal's `EnsembleModelWrapper`.
"""

from baal_widgets.bayesian.batchnorm import MCBatchNormModule
from baal_widgets.bayesian.caching_utils import MCCachingModule
from baal_widgets.bayesian.common import BayesianModule
from baal_widgets.bayesian.consistent_dropout import ConsistentDropout, MCConsistentDropoutModule
from baal_widgets.bayesian.dropout import Dropout, MCDropoutModule
from baal_widgets.bayesian.gaussian_process import GaussianProcessModule
from baal_widgets.bayesian.laplace import LaplaceModule
from baal_widgets.bayesian.swag import SWAGModule
from baal_widgets.bayesian.variational import VariationalModule
from baal_widgets.bayesian.weight_drop import MCDropoutConnectModule

__all__ = [
    "BayesianModule",
    "ConsistentDropout",
    "Dropout",
    "GaussianProcessModule",
    "LaplaceModule",
    "MCBatchNormModule",
    "MCCachingModule",
    "MCConsistentDropoutModule",
    "MCDropoutConnectModule",
    "MCDropoutModule",
    "SWAGModule",
    "VariationalModule",
]

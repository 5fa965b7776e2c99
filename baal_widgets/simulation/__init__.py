"""Simulated studies: many seeds and methods of active learning at once, on labelled data, without a browser."""

from baal_widgets.simulation.engine import simulate
from baal_widgets.simulation.evaluation import MEASURES, WAYS
from baal_widgets.simulation.protocol import Case, Method, Pool, Protocol, as_it_is
from baal_widgets.simulation.results import Results, Run
from baal_widgets.simulation.selection import LogitEntropy, names

__all__ = [
    "MEASURES",
    "WAYS",
    "Case",
    "LogitEntropy",
    "Method",
    "Pool",
    "Protocol",
    "Results",
    "Run",
    "as_it_is",
    "names",
    "simulate",
]

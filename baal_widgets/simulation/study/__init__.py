"""The study: which claims about Bayesian active learning hold, as registered in registration.toml before its runs."""

from baal_widgets.simulation.study.answering import answers, curves
from baal_widgets.simulation.study.registration import Claim, Size, Table, fingerprint, size, sizes, table, tables
from baal_widgets.simulation.study.reporting import provenance, report, text, write
from baal_widgets.simulation.study.runner import Workplace, of_table, plan, run

__all__ = [
    "Claim",
    "Size",
    "Table",
    "Workplace",
    "answers",
    "curves",
    "fingerprint",
    "of_table",
    "plan",
    "provenance",
    "report",
    "run",
    "size",
    "sizes",
    "table",
    "tables",
    "text",
    "write",
]

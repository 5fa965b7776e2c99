"""The study: which claims about Bayesian active learning hold, as registered in registration.toml before its runs."""

from baal_widgets.simulation.study.answering import answers, curves
from baal_widgets.simulation.study.reading import Report, markdown, read, summary, verdicts
from baal_widgets.simulation.study.registration import Claim, Size, Table, fingerprint, size, sizes, table, tables
from baal_widgets.simulation.study.reporting import provenance, report, text, write
from baal_widgets.simulation.study.runner import Workplace, of_table, plan, run

__all__ = [
    "Claim",
    "Report",
    "Size",
    "Table",
    "Workplace",
    "answers",
    "curves",
    "fingerprint",
    "markdown",
    "of_table",
    "plan",
    "provenance",
    "read",
    "report",
    "run",
    "size",
    "sizes",
    "summary",
    "table",
    "tables",
    "text",
    "verdicts",
    "write",
]

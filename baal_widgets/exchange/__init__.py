"""Labels out of the house and into it: tables, folders of images, and the files of other tools."""

from baal_widgets.exchange.baal_state import load_baal_state
from baal_widgets.exchange.formats import FORMATS, format_of, read_labels, write_labels
from baal_widgets.exchange.plan import Duplicate, ImportPlan, Proposed, plan_import
from baal_widgets.exchange.rows import Labelled, Pictures, Whole

__all__ = [
    "FORMATS",
    "Duplicate",
    "ImportPlan",
    "Labelled",
    "Pictures",
    "Proposed",
    "Whole",
    "format_of",
    "load_baal_state",
    "plan_import",
    "read_labels",
    "write_labels",
]

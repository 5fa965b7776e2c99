"""Facts and where they are kept."""

from baal_widgets.journal.checkpoint import keep, resume
from baal_widgets.journal.folds import NAMING, Answer, Change, Query, State, fold, numbers_of, outputs_of
from baal_widgets.journal.journal import Draft, Event, Journal, JournalDamagedError, JournalMovedError
from baal_widgets.journal.repair import Report, repair

__all__ = [
    "NAMING",
    "Answer",
    "Change",
    "Draft",
    "Event",
    "Journal",
    "JournalDamagedError",
    "JournalMovedError",
    "Query",
    "Report",
    "State",
    "fold",
    "keep",
    "numbers_of",
    "outputs_of",
    "repair",
    "resume",
]

"""Facts and where they are kept."""

from baal_widgets.journal.asked import NOBODY, Query
from baal_widgets.journal.checkpoint import keep, resume
from baal_widgets.journal.folds import NAMING, Answer, Change, State, fold, numbers_of, outputs_of
from baal_widgets.journal.hashes import Hashes
from baal_widgets.journal.journal import Draft, Event, Journal, JournalDamagedError, JournalMovedError
from baal_widgets.journal.repair import Report, repair

__all__ = [
    "NAMING",
    "NOBODY",
    "Answer",
    "Change",
    "Draft",
    "Event",
    "Hashes",
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

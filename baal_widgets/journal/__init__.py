"""Facts and where they are kept."""

from baal_widgets.journal.folds import Answer, Change, Query, State, fold
from baal_widgets.journal.journal import Draft, Event, Journal, JournalDamagedError

__all__ = ["Answer", "Change", "Draft", "Event", "Journal", "JournalDamagedError", "Query", "State", "fold"]

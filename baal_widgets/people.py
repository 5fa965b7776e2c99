"""Several people in one journal: who is there, what each says, and whose work is free to be done by others."""

from __future__ import annotations

from collections import Counter
from typing import Any

from baal_widgets.book import Book
from baal_widgets.claims import Asker, open_items
from baal_widgets.consensus import Disagreement, disagreements
from baal_widgets.journal import NAMING, Draft, fold
from baal_widgets.pace import per_minute

SAID = ("label", "skip", "undo", "redo")  # the facts by which a person says what an item is


class People(Book):
    """The part of a session that knows of others."""

    def ratings(self) -> dict[int, dict[str, Any]]:
        """What each person says, `{item: {annotator: label}}`: the last answer of their own that they have not taken
        back, also where somebody else has answered since. Those set aside are left out.

        It goes into the measures of `metrics.agreement` and into `consensus`. Reads all facts: 15 us each.
        """
        with self._lock:
            self._check_open()
            self._catch_up()
            facts = self._journal.events(kinds=(*NAMING, *SAID))
            words = self._words()
        told: dict[int, dict[str, Any]] = {}
        for person in sorted({fact.annotator for fact in facts if fact.kind in SAID}):
            own = fold((fact for fact in facts if fact.kind not in SAID or fact.annotator == person), self._index_of)
            for item, value in own.labels.items():
                told.setdefault(item, {})[person] = words.told(value)
        return dict(sorted(told.items()))

    def disagreements(self) -> list[Disagreement]:
        """The items of which people do not say the same, most contested first: `.item`, `.said` (by whom), `.camps`."""
        return disagreements(self.ratings())

    @property
    def people(self) -> dict[str, dict[str, Any]]:
        """Who has worked in this journal, by name: `n_labelled` (the items of which their own last word is a label),
        `per_minute`, `n_claimed` (what nobody else is asked now), `last_seen` (ISO 8601, UTC), and whether they are
        `active`: heard of within `claim_minutes`."""
        with self._lock:
            self._check_open()
            self._catch_up()
            state = self._state
            clock = state.asked.clock_at(self._journal.now())
            labelled = Counter(answer.annotator for answer in state.answers.values() if answer.value is not None)
            for item, said in state.opinions.items():
                stands = state.answers[item].annotator
                labelled.update(who for who, answer in said.items() if who != stands and answer.value is not None)
            told = {}
            for person, (_, last_seen) in sorted(state.asked.seen.items()):
                active = state.asked.is_live(person, clock, self.claim_minutes)
                own = person in state.asked.by and active
                asker = Asker(person, self.overlap, self.claim_minutes)
                told[person] = {
                    "n_labelled": labelled[person],
                    "per_minute": per_minute(state.times.get(person, ())),
                    "n_claimed": len(open_items(state, asker, clock)) if own else 0,
                    "last_seen": last_seen,
                    "active": active,
                }
            return told

    def release(self, *, op_id: str | None = None) -> None:
        """Give back what this annotator was asked and has not answered, so that others may be asked at once.

        `ask` begins anew. Otherwise closing a session keeps it, for whoever opens it again within `claim_minutes`.
        """
        with self._lock:
            self._catch_up()
            self._release(self.annotator, op_id)

    def take_over(self, annotator: str, *, op_id: str | None = None) -> None:
        """Free at once what somebody who has left was asked and has not answered: `ask` goes on with it.

        What they answer all the same, if somebody else has by then, is kept as their opinion: it is in `ratings`, and
        replaces nothing. Raises `ValueError` where nobody of that name has worked in this journal.
        """
        with self._lock:
            self._catch_up()
            known = sorted(self._state.asked.seen)
            if annotator not in known:
                raise ValueError(f"There is nobody called {annotator!r} in this journal, only {', '.join(known)}.")
            self._release(annotator, op_id)

    def _release(self, whose: str, op_id: str | None) -> None:
        self._write(Draft("released", payload={"of": whose}, **self._signed(op_id)))

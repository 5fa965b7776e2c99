"""Several people in one journal: who is there, what each says, and whose work is free to be done by others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from baal_widgets.book import Book
from baal_widgets.claims import Asker, open_items
from baal_widgets.consensus import Disagreement, disagreements
from baal_widgets.journal import Answer, Draft
from baal_widgets.pace import per_minute
from baal_widgets.vocabulary import Vocabulary
from baal_widgets.words import Words, last_words, settlement


class People(Book):
    """The part of a session that knows of others."""

    @property
    def seq(self) -> int:
        """The number of the last fact taken in: what was worked out from the journal holds while it stays the same."""
        with self._lock:
            self._catch_up()
            return self._state.seq

    @property
    def annotators(self) -> tuple[str, ...]:
        """Those who have given answers that stand, by name."""
        with self._lock:
            self._catch_up()
            return tuple(sorted(name for name, n in self._state.n_done.items() if n > 0))

    def ratings(self, *, reviews: bool = True) -> dict[int, dict[str, Any]]:
        """What each person says, `{item: {annotator: label}}`: the last answer of their own that they have not taken
        back, also where somebody else has answered since. Those set aside are left out.

        It goes into the measures of `metrics.agreement` and into `consensus`. Those take people to answer by
        themselves: without `reviews`, answers of a second look, given in sight of others, are passed over.
        Takes 3 us an answer.
        """
        said, words = self._last_words(reviews)
        told = {item: _rated(own, words) for item, own in sorted(said.items())}
        return {item: own for item, own in told.items() if own}

    def disagreements(self, open_only: bool = False) -> list[Disagreement]:
        """The items of which people do not say the same, most contested first: `.item`, `.said` (by whom), `.camps`.

        `review(item, label)` settles one: `.settled` is that label, `None` before, and again once somebody who answers
        later contradicts it. With `open_only` those that are settled are left out.
        """
        said, words = self._last_words()
        told = []
        for one in disagreements({item: _rated(own, words) for item, own in sorted(said.items())}):
            value = settlement(said[one.item])
            if value is None or not open_only:
                told.append(one if value is None else replace(one, settled=words.told(value)))
        return told

    def _last_words(self, reviews: bool = True) -> tuple[Words, Vocabulary]:
        with self._lock:
            self._check_open()
            self._catch_up()
            done, words = list(self._state.done), self._words()
        return last_words(done, reviews=reviews), words

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


def _rated(said: Mapping[str, Answer], words: Vocabulary) -> dict[str, Any]:
    """The labels among what people said of an item, by name."""
    return {who: words.told(answer.value) for who, answer in sorted(said.items()) if answer.value is not None}

"""A session as a deck of cards: its queries, its blind repeats, the labels to look at again and those to settle."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from baal_widgets.advice import stopping_advice
from baal_widgets.consensus import Disagreement, Suggestion
from baal_widgets.insight import Dispute
from baal_widgets.session import LabellingSession
from baal_widgets.vocabulary import SKIPPED, UNSURE, Vocabulary
from baal_widgets.widgets.cards import PAST, marks, present_keys, shown_classes
from baal_widgets.widgets.keymap import keymap
from baal_widgets.widgets.messages import Op
from baal_widgets.widgets.together import Agreement, Together, told_contest

MOST_EVERY = 100_000

FIRST, REPEAT, REVIEW, CONTEST = range(4)
"""Why a card is there: to be labelled, to be labelled once more blindly, to be looked at again, to be settled because
people disagree."""
UNDONE = -1


class SessionDeck:
    """What a session asks. What is under the person's hands stays until they turn the page.

    A card's number is `kind * n_items + item`, so that the page knows nothing of what makes a repeat one, and an
    image may lie there as itself and as a repeat.

    `keys` are keys of one's own, `blind` hides the model's guess until an answer is given, `retrain_every` is the
    number of labels after which the model learns by itself, 0 for never.
    """

    def __init__(
        self,
        session: LabellingSession,
        *,
        keys: Mapping[str, str] | None = None,
        blind: bool = True,
        retrain_every: int = 0,
    ) -> None:
        self.session, self.keys, self.blind = session, dict(keys or {}), blind
        self.retrain_every = check_every(retrain_every)
        keymap(session.classes, self.keys)
        self.store = session.store
        self._n: int = session.progress["n_items"]
        self._lock = threading.RLock()
        self._told_of: object = None
        self._turned = ""
        self._other: dict[int, Any] = {}
        self._claims: dict[int, Dispute] = {}
        self._together = Together(session)
        self._contests: dict[int, tuple[Disagreement, Suggestion | None]] = {}
        self._settled: dict[int, int] = {}  # items settled here, by which fact; what is undone is contested again
        self._page = self._first_page()
        self._advice: tuple[int, str] = (-1, "")

    # What is shown

    def view(self) -> dict[str, Any]:
        session = self.session
        with self._lock, session.moment():
            told, words = session.progress, session.vocabulary
            classes = shown_classes(words)
            page, queue = self._page, self._queue()
            answers = self._answers(page)
            reviews, agreement = self._reviews(), self._together.known()
            contested = self._contested(agreement)
            return {
                "classes": classes,
                "keys": keymap(classes, present_keys(self.keys, session.present_name)),
                "multi": session.multi_label,
                "blind": self.blind,
                "page": list(page),
                "turned": self._turned,
                "queue": queue,
                "reviews": reviews,
                "contested": contested,
                "size": session.query_size,
                "generation": told["round"],
                "answers": {str(card): value for card, value in answers.items()},
                "marks": marks(self._items_told(page), session.flagged, session.notes),
                "guesses": self._guesses(page if not self.blind else [card for card in page if card in answers]),
                "claims": self._told_claims({*page, *reviews[: session.query_size]}),
                "contests": self._told_contests({*page, *contested[: session.query_size]}, agreement, words),
                "recent": [[i, words.numbered(words.indices(answer))] for i, answer in session.recent(PAST)],
                "counts": [told["per_class"][name] if name else 0 for name in classes],
                "summary": summary(told, session.consistency if session.repeats else None, str(agreement)),
                "advice": self._stopping(told["budget"]),
                "canUndo": session.can_undo,
                "canRedo": session.can_redo,
                "canAdd": True,
                "training": self._training(),
            }

    def _items_told(self, cards: Sequence[int]) -> dict[int, int]:
        """The items of cards, but for those asked once more: what is known of an item would tell that it is one."""
        told = {card: divmod(card, self._n) for card in cards}
        return {card: item for card, (kind, item) in told.items() if kind != REPEAT}

    @property
    def n_cards(self) -> int:
        return 4 * self._n

    def picture(self, card: int, side: int) -> Image.Image:
        return self.session.picture(self._open(card)[1], side=side)

    def why(self, card: int) -> dict[str, Any] | None:
        known, words = self.session.explain(self._open(card)[1]), self.session.vocabulary
        if known is None:
            return None
        chances = dict(zip(words.numbers.values(), known.probabilities, strict=False))
        return {
            "generation": known.round,
            "rank": known.rank,
            "ranked": known.n_ranked,
            "score": _rounded(known.score),
            "total": _rounded(known.total),
            "epistemic": _rounded(known.epistemic),
            "aleatoric": _rounded(known.aleatoric),
            "probabilities": [_rounded(chances.get(number, 0.0)) for number in range(max(chances, default=-1) + 1)],
            "votes": words.numbered(known.votes),
            "neighbours": [
                {"card": near.item, "value": words.numbered(near.label), "distance": _rounded(near.distance)}
                for near in known.neighbours
            ],
        }

    # What hands do

    def answer(self, op: Op) -> int | None:
        session = self.session
        match op.kind:
            case "undo" | "redo":
                return self._step(op)
            case "class":
                session.add_class(op.text, op_id=op.id)
                return None
            case "rename":
                session.rename_class(self._class_of(op), op.text, op_id=op.id)
                return None
            case "merge":
                session.merge_classes(self._class_of(op), op.text, op_id=op.id)
                return None
        assert op.card is not None
        kind, item = self._open(op.card)
        match op.kind:
            case "flag":
                session.flag(item, op.on, op_id=op.id)
            case "note":
                session.note(item, op.text, op_id=op.id)
            case "keep" if kind != REVIEW:
                raise ValueError("Only a label that is looked at again can be kept.")
            case "keep":
                session.review(item, None, op_id=op.id)
                self._note_other(op.card)
            case "skip" | "unsure" if kind == CONTEST:
                self._note_other(op.card, SKIPPED)  # it stays as it is
            case "skip" | "unsure":
                if kind != REPEAT:
                    session.skip(item, why=op.kind, op_id=op.id, group=op.group, about=op.about)
                if kind != FIRST:
                    self._note_other(op.card, SKIPPED if op.kind == "skip" else UNSURE)
            case "label":
                self._label(kind, item, op)
        self._go_on()
        return None

    def turn(self, cards: Sequence[int], turn_id: str) -> None:
        for card in cards:
            self._open(card)
        with self._lock:
            self._page, self._turned = tuple(dict.fromkeys(cards)), turn_id
            self._other = {card: value for card, value in self._other.items() if card in self._page}
            self._claims = {card: self._claims[card] for card in self._page if card in self._claims}
            for dispute in self.session.disputes:
                card = REVIEW * self._n + dispute.item
                if card in self._page:
                    self._claims[card] = self._numbered(dispute)
            agreement, held = self._together.known(), self._contests
            found = {card: agreement.of(card - CONTEST * self._n) or held.get(card) for card in self._page}
            self._contests = {card: one for card, one in found.items() if one is not None}
        self._go_on()

    def command(self, name: str, message: Mapping[str, Any]) -> str:
        match name:
            case "more":
                self._go_on()
                return ""
            case "learn":
                self.session.learn(wait=False)
                return "Training; go on labelling"
            case "cancel":
                if self.session.job is not None:
                    self.session.job.cancel()
                return "Training is cancelled"
            case "export":
                target = self.session.export(self._export_path())
                return f"{len(self.session.labels):,} labels written to {target}"
            case "every":
                self.retrain_every = check_every(message.get("n"))
                return f"Retrains after {self.retrain_every} labels" if self.retrain_every else "Retrains when asked"
            case "blind":
                if not isinstance(message.get("on"), bool):
                    raise TypeError("Expected true or false for hiding the guesses.")
                self.blind = message["on"]
                return "Guesses are hidden until you answer" if self.blind else "Guesses are shown"
        raise ValueError(f"There is no {name!r} here.")

    def seen(self) -> None:
        self._told_of = self.session.job

    def __repr__(self) -> str:
        told = self.session.progress
        return f"{told['n_items']} images, {told['n_labelled']} labelled"

    # Within

    def _open(self, card: int) -> tuple[int, int]:
        """What a card is: why it is there, and its item."""
        if not 0 <= card < self.n_cards:
            raise IndexError(f"There is no image {card} among {self._n}.")
        return divmod(card, self._n)

    def _class_of(self, op: Op) -> str:
        names = self.session.outputs
        if not isinstance(op.value, int) or op.value >= len(names):
            raise IndexError(f"There is no class {op.value!r} among {len(names)}.")
        return names[op.value]

    def _first_page(self) -> tuple[int, ...]:
        query = self.session.ask()
        return self._mixed(query.items)

    def _mixed(self, items: Sequence[int]) -> tuple[int, ...]:
        """The items with the query's repeats among them, at places that only the query's number decides."""
        query, cards = self.session.query, list(items)
        rng = np.random.default_rng([self.session.seed, query.number])
        for item in query.repeats:
            cards.insert(int(rng.integers(0, len(cards) + 1)), REPEAT * self._n + item)
        return tuple(cards)

    def _queue(self) -> list[int]:
        """What follows the page: the rest of the query, then what its ranking goes on with."""
        query, session = self.session.query, self.session
        coming = [*query.items, *query.reserve]
        answered = session.answers(coming)
        page = set(self._page)
        repeats = [REPEAT * self._n + item for item in query.repeats if item not in session.repeated]
        queue = [card for card in coming if card not in answered and card not in page]
        fresh = [card for card in repeats if card not in page and card not in self._other]
        rng = np.random.default_rng([session.seed, query.number])
        for card in fresh:
            queue.insert(int(rng.integers(0, min(len(queue), session.query_size) + 1)), card)
        return queue

    def _reviews(self) -> list[int]:
        return [REVIEW * self._n + dispute.item for dispute in self.session.disputes]

    def _contested(self, agreement: Agreement) -> list[int]:
        """What people disagree on and nobody has settled: here that is known at once."""
        opened = [one.item for one in agreement.contested.values() if one.settled is None]
        return [CONTEST * self._n + item for item in opened if self._settled.get(item, UNDONE) <= agreement.seq]

    def _told_contests(self, cards: set[int], agreement: Agreement, words: Vocabulary) -> dict[str, dict[str, Any]]:
        told = {}
        for card in cards:
            one = self._contests.get(card) or agreement.of(card - CONTEST * self._n)
            if one is not None:
                with suppress(KeyError):  # a class was renamed a moment ago: it is told again in the next one
                    told[str(card)] = told_contest(*one, words)
        return told

    def _answers(self, cards: Sequence[int]) -> dict[int, Any]:
        words = self.session.vocabulary
        given = self.session.answers([card for card in cards if card < self._n])
        told: dict[int, Any] = {card: words.numbered(value) for card, value in given.items()}
        return told | {card: words.current(self._other[card]) for card in cards if card in self._other}

    def _guesses(self, cards: Sequence[int]) -> dict[str, tuple[int, float]]:
        told, words = {}, self.session.vocabulary
        for card in cards:
            if card < self._n and (guess := self.session.guess(card)) is not None:
                told[str(card)] = (words.numbered(int(guess[0])), round(float(guess[1]), 3))
        return told

    def _told_claims(self, cards: set[int]) -> dict[str, dict[str, Any]]:
        words = self.session.vocabulary
        current = {REVIEW * self._n + dispute.item: self._numbered(dispute) for dispute in self.session.disputes}
        return {
            str(card): {
                "said": words.current(d.label),
                "guess": words.current(d.guess),
                "share": round(float(d.confidence), 3),
            }
            for card, d in {**current, **self._claims}.items()
            if card in cards
        }

    def _numbered(self, dispute: Dispute) -> Dispute:
        """A dispute by numbers, which stay when classes are merged."""
        words = self.session.vocabulary
        if words.outputs == list(words.classes):
            return dispute
        return replace(dispute, label=words.numbered(dispute.label), guess=words.numbered(dispute.guess))

    def _label(self, kind: int, item: int, op: Op) -> None:
        session, given = self.session, self.session.vocabulary.named(op.value)
        if kind == REPEAT:
            session.repeat(item, given, op_id=op.id, about=op.about)
        elif kind in (REVIEW, CONTEST):
            session.review(item, given, op_id=op.id)
        else:
            session.label(item, given, op_id=op.id, group=op.group, about=op.about)
        if kind == CONTEST:
            self._settled[item] = session.seq
        if kind != FIRST:
            self._note_other(kind * self._n + item, list(op.value) if isinstance(op.value, tuple) else op.value)

    def _note_other(self, card: int, value: Any = None) -> None:
        with self._lock:
            if value is None:
                given = self.session.answers([card % self._n])
                value = self.session.vocabulary.numbered(given[card % self._n]) if given else None
            self._other[card] = value

    def _step(self, op: Op) -> int | None:
        changed: int | None = self.session.undo(op_id=op.id) if op.kind == "undo" else self.session.redo(op_id=op.id)
        if changed is None:
            return None
        with self._lock:
            again = (REVIEW * self._n + changed, CONTEST * self._n + changed)
            looked = next((c for c in again if c in self._page), again[1] if changed in self._settled else changed)
            if looked not in self._page:  # what is taken back must be seen, also from long ago
                self._page = (looked, *self._page)
            if op.kind == "redo" and looked != changed:
                self._note_other(looked)
            else:
                self._other.pop(looked, None)  # what was looked at again is open again
            if changed in self._settled:
                self._settled[changed] = self.session.seq if op.kind == "redo" else UNDONE
        return looked

    def _go_on(self) -> None:
        """Ask anew once everything asked is answered, and learn once enough is new."""
        session = self.session
        session.ask()
        if self.retrain_every and (session.job is None or session.job.done):
            told = session.progress
            if told["model_behind_by"] >= self.retrain_every and told["n_labelled"]:
                session.learn(wait=False)

    def _export_path(self) -> Path:
        """Beside the journal and named like it; in the working folder where the journal is no file."""
        place = self.session.journal_path
        return Path("labels.csv") if place is None else place.with_suffix(".csv")

    def _training(self) -> dict[str, Any]:
        job = self.session.job
        running = job is not None and not job.done
        return {
            "running": running,
            "fraction": job.progress.fraction if running and job else 0.0,
            "message": self._training_line(running),
            "error": self._failure(),
            "every": self.retrain_every,
        }

    def _training_line(self, running: bool) -> str:
        job, history = self.session.job, self.session.history
        if running and job is not None:
            eta = job.progress.eta
            left = "" if eta is None else f" · about {_duration(eta)} left"
            return f"{job.progress.phase}: {job.progress.message}{left}"
        if not history:
            return ""
        last = history[-1]
        line = f"round {last['round']}: " + (f"accuracy {last['accuracy']:.1%}" if "accuracy" in last else "done")
        if last["converged"] is False:  # None: another library knows
            line += " (loss still falling: allow more steps)"
        return line

    def _failure(self) -> str:
        job = self.session.job
        if job is None or not job.done or job is self._told_of:
            return ""
        error = job.exception()
        if error is None or isinstance(error, CancelledError):
            return ""
        return f"Training failed. {type(error).__name__}: {error}"

    def _stopping(self, budget: int | None) -> str:
        """What speaks for stopping, worked out once a lesson."""
        round_ = self.session.round
        if self._advice[0] != round_:
            advice = stopping_advice(self.session.history, budget=budget)
            fired = [f"{sign.name}: {sign.reason}" for sign in advice.signs if sign.fired]
            self._advice = (round_, f"You may stop. {' '.join(fired)}" if advice.stop and fired else "")
        return self._advice[1]


def summary(told: Mapping[str, Any], consistency: Mapping[str, Any] | None = None, agreement: str = "") -> str:
    """Where the labelling stands, in a line."""
    parts = [f"{told['n_labelled']:,} labelled"]
    if told["budget"]:
        parts[0] += f" of {told['budget']:,}"
    parts += [f"{told['n_skipped']:,} set aside", f"{told['n_pool']:,} in the pool"]
    behind = told["model_behind_by"]
    if told["round"] and behind:
        parts.append(f"the model is {behind} label{'s' * (behind != 1)} behind")
    if told["per_minute"]:
        parts.append(f"{told['per_minute']:.0f} a minute")
    if told["minutes_left"]:
        parts.append(f"about {_duration(60 * told['minutes_left'])} to go")
    if consistency and consistency["n"]:
        parts.append(f"{consistency['same']} of {consistency['n']} blind repeats answered alike")
    return " · ".join([*parts, agreement] if agreement else parts)


def check_every(value: object) -> int:
    """A number of labels, 0 for never."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_EVERY:
        raise ValueError(f"Expected a number of labels from 0 (never) to {MOST_EVERY:,}, got {value!r}.")
    return value


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{float(number):.4g}")

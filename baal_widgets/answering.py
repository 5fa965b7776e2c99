"""What a person says of an item: a label, a skip, a second look, a note, and all of that taken back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from baal_widgets.book import Book
from baal_widgets.checks import check_about, check_item, check_text
from baal_widgets.claims import is_open
from baal_widgets.consistency import consistency
from baal_widgets.journal import Answer

LONGEST_NOTE = 10_000
LONGEST_ID = 80


class Answering(Book):
    """The part of a session that takes answers."""

    def label(
        self,
        item: int,
        label: str | int | Sequence[str | int],
        *,
        op_id: str | None = None,
        group: str | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Say what an item is: a class name or its index. Also changes a label given before.

        With `multi_label` a list of classes, `()` for none of them. On disk when it returns. `op_id` names this very
        answer: giving it again with the same id does nothing. Answers of one `group` are undone together. `about`
        tells how it was given: `via` (`key`, `click`, `bulk`, `confirm`), `ms` (the time to think), `guess` (`hidden`,
        `shown`), `view` (`grid`, `card`). Raises `IndexError`, `ValueError` or `TypeError`, and writes nothing, where
        item or class is not known.
        """
        self._answer("label", item, label, op_id, _told(group, about))

    def skip(
        self,
        item: int,
        *,
        why: str = "skip",
        op_id: str | None = None,
        group: str | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Set an item aside: neither asked again nor trained on. A label takes it back.

        `why` is `skip`, or `unsure` for one that somebody who knows more should look at. The rest is as in `label`.
        """
        if why not in ("skip", "unsure"):
            raise ValueError(f"Expected why to be 'skip' or 'unsure', got {why!r}.")
        reason = {"why": why} if why != "skip" else {}
        self._answer("skip", item, None, op_id, {**reason, **_told(group, about)})

    def review(self, item: int, label: Any = None, *, op_id: str | None = None) -> None:
        """Say that a person has looked again at a label, which the model or other people dispute: `None` keeps it.

        An answer like any other, for `undo` too. What was reviewed is no longer among the `disputes`, and what people
        disagreed on is settled, until somebody contradicts it.
        """
        item = check_item(item, len(self._source.keys))
        with self._lock:
            self._catch_up()
            stands = self._state.answers.get(item)
            if stands is None or (stands.value is None and label is None):
                if self._is_written(op_id):
                    return
                raise ValueError(f"Item {item} has no label to look at again: label(item, ...) gives it one.")
            value = stands.value if label is None else self._value(label)
            payload = {"review": "kept" if value == stands.value else "changed"}
            self._write(self._draft("label", item, value, op_id, payload=payload))

    def undo(self, *, op_id: str | None = None) -> int | None:
        """Take back the last answer of this annotator that still stands; its item, `None` when there is none.

        All answers of its group go with it; then the item is that of the first. Reaches back over retrains and
        restarts.
        """
        return self._step_back_or_forth("undo", op_id)

    def redo(self, *, op_id: str | None = None) -> int | None:
        """Give again the answer that was last taken back, or its group; the item, `None` when there is none."""
        return self._step_back_or_forth("redo", op_id)

    def repeat(
        self,
        item: int,
        label: str | int | Sequence[str | int],
        *,
        op_id: str | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Answer one of the query's `repeats`. Changes no label: it is there for `consistency` alone."""
        self._answer("repeat", item, label, op_id, _told(None, about))

    @property
    def repeated(self) -> dict[int, Any]:
        """The answers given to the repeats of this annotator's last query, as in `labels`."""
        with self._lock:
            words = self._words()
            return {item: words.told(value) for item, value in self._state.repeated.get(self.annotator, {}).items()}

    @property
    def consistency(self) -> dict[str, Any]:
        """How often this annotator said the same of an item when it was last repeated: of `n` repeats `same`, their
        `rate`, its 95 % `interval`, and Cohen's `kappa`. `None` stands for what cannot be told yet."""
        with self._lock:
            self._catch_up()
            return consistency(self._state.again.get(self.annotator, {}).values())

    def flag(self, item: int, on: bool = True, *, op_id: str | None = None) -> None:
        """Put a flag on an item, to find it again, or take it off."""
        if not isinstance(on, bool):
            raise TypeError(f"Expected true or false for a flag, got {on!r}.")
        item = check_item(item, len(self._source.keys))
        with self._lock:
            self._write(self._draft("flag", item, None, op_id, payload={"on": on}))

    def note(self, item: int, text: str, *, op_id: str | None = None) -> None:
        """Write down something about an item, at most 10,000 characters, in the place of what was there; `""` removes
        it."""
        item = check_item(item, len(self._source.keys))
        text = check_text("a note", text, LONGEST_NOTE)
        with self._lock:
            self._write(self._draft("note", item, text, op_id))

    def _answer_shown(self, item: int) -> Answer | None:
        own = self._state.said(item, self.annotator)
        return own if own or is_open(self._state, item, self._asker()) else self._state.answers.get(item)

    def _answer(self, kind: str, item: int, label: Any, op_id: str | None, payload: Mapping[str, Any]) -> None:
        item = check_item(item, len(self._source.keys))
        with self._lock:
            value = None if kind == "skip" else self._value(label)
            self._write(self._draft(kind, item, value, op_id, payload=payload))

    def _step_back_or_forth(self, kind: str, op_id: str | None) -> int | None:
        with self._lock:
            self._catch_up()
            changes = getattr(self._state, f"next_to_{kind}")(self.annotator)
            if not changes or self._is_written(op_id):
                return None
            ids = _ids(op_id, len(changes))
            drafts = [
                self._draft(kind, change.item, None, one, payload={"target": change.seq})
                for change, one in zip(changes, ids, strict=True)
            ]
            self._write(*drafts)
            return int(min(changes, key=lambda change: change.seq).item)


def _told(group: str | None, about: Mapping[str, Any] | None) -> dict[str, Any]:
    """What goes along with an answer, checked; only what there is."""
    told: dict[str, Any] = {}
    if group is not None:
        told["group"] = check_text("a group", group, LONGEST_ID, 1)
    if about := check_about(about):
        told["about"] = about
    return told


def _ids(op_id: str | None, n: int) -> list[str | None]:
    """An id for each of the facts that one operation writes: its own for the first."""
    if op_id is None:
        return [None] * n
    ids = [op_id, *(f"{op_id}.{place}" for place in range(1, n))]
    return [one if len(one) <= LONGEST_ID else hashlib.sha256(one.encode()).hexdigest() for one in ids]

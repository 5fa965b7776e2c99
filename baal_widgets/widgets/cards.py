"""A deck in memory: images, classes and a callback, without session or journal on disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any
from uuid import uuid4

from PIL import Image

from baal_widgets.checks import check_class, check_classes, check_item, check_merge
from baal_widgets.images import to_image
from baal_widgets.journal import Draft, Journal, State
from baal_widgets.vocabulary import Vocabulary
from baal_widgets.widgets.keymap import keymap
from baal_widgets.widgets.messages import Op

ANNOTATOR = ""
PAST = 12  # answers in the history strip


class Cards:
    """Images to label, and what was said of them. A card is an image's place."""

    def __init__(
        self,
        images: Sequence[Any],
        classes: Sequence[str],
        on_label: Callable[[int, Any], None] | None = None,
        *,
        multi_label: bool = False,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        self.images, self.on_label = images, on_label
        self.multi_label, self.keys = multi_label, dict(keys or {})
        self.store = uuid4().hex
        self._page = list(range(len(images)))
        self._turned = ""
        self._lock = threading.RLock()
        self._journal = Journal(None)
        self._state = State({"multi_label": multi_label}, list(check_classes(classes)))
        keymap(self._state.classes, self.keys)

    @property
    def labels(self) -> dict[int, Any]:
        with self._lock:
            return {item: self._words.told(value) for item, value in self._state.labels.items()}

    def view(self) -> dict[str, Any]:
        with self._lock:
            state, words = self._state, self._words
            return {
                "classes": (classes := shown_classes(words)),
                "keys": keymap(classes, present_keys(self.keys, state.present_name)),
                "multi": self.multi_label,
                "blind": True,
                "page": self._page,
                "turned": self._turned,
                "queue": [],
                "reviews": [],
                "contested": [],
                "size": len(self.images),
                "generation": 0,
                "answers": {str(i): words.numbered(words.indices(answer)) for i, answer in state.answers.items()},
                "marks": marks({card: card for card in self._page}, state.flagged, state.notes),
                "guesses": {},
                "claims": {},
                "contests": {},
                "recent": [[i, words.numbered(words.indices(answer))] for i, answer in state.recent(ANNOTATOR, PAST)],
                "counts": [state.counts[name] if name else 0 for name in classes],
                "summary": f"{state.n_labelled} of {len(self.images)} labelled, {state.aside.total()} set aside",
                "advice": "",
                "canUndo": bool(state.done),
                "canRedo": bool(state.undone),
                "canAdd": True,
                "training": None,
            }

    @property
    def n_cards(self) -> int:
        return len(self.images)

    def picture(self, card: int, side: int) -> Image.Image:
        return to_image(self.images[check_item(card, len(self.images))])

    def answer(self, op: Op) -> int | None:
        with self._lock:
            changed = self._write(op)
            told = [(item, self.labels.get(item)) for item in changed]
        if self.on_label is not None and op.kind not in ("flag", "note"):
            for item, name in told:
                self.on_label(item, name)
        return changed[0] if changed and op.kind in ("undo", "redo") else None

    def turn(self, cards: Sequence[int], turn_id: str) -> None:
        self._page = [check_item(card, len(self.images)) for card in cards]
        self._turned = turn_id

    def why(self, card: int) -> dict[str, Any] | None:
        return None

    def command(self, name: str, message: Mapping[str, Any]) -> str:
        if name == "more":
            return ""
        raise ValueError(f"There is no {name!r} here.")

    def seen(self) -> None:
        pass

    def __repr__(self) -> str:
        return f"{len(self.images)} images, {len(self.labels)} labelled"

    @property
    def _words(self) -> Vocabulary:
        return Vocabulary(self._state.classes, self.multi_label, self._state.merged)

    def _write(self, op: Op) -> list[int]:
        """The images whose answer changed."""
        drafts = self._drafts(op)
        changed = []
        for event in self._journal.append(*drafts) if drafts else ():
            if event.seq > self._state.seq:
                item = self._state.apply(event)
                if item is not None:
                    changed.append(item)
        return changed

    def _drafts(self, op: Op) -> list[Draft]:
        about: dict[str, Any] = {"about": dict(op.about)} | ({"group": op.group} if op.group else {})
        match op.kind:
            case "undo" | "redo":
                moves = self._state.next_to_undo if op.kind == "undo" else self._state.next_to_redo
                ids = (f"{op.id}.{place}" if place else op.id for place in count())
                return [
                    Draft(op.kind, payload={"target": change.seq}, op_id=op_id)
                    for change, op_id in zip(moves(ANNOTATOR), ids, strict=False)
                ]
            case "class":
                return [Draft("class_added", value=check_classes([*self._state.classes, op.text])[-1], op_id=op.id)]
            case "rename":
                old = check_class(self._state.classes, self._words.named(op.value))
                check_classes([op.text if name == old else name for name in self._state.classes])
                return [Draft("class_renamed", payload={"old": old, "new": op.text}, op_id=op.id)]
            case "merge":
                old = check_class(self._state.classes, self._words.named(op.value))
                check_merge(self._state.classes, old, op.text)
                return [Draft("class_merged", payload={"old": old, "into": op.text}, op_id=op.id)]
        item = check_item(op.card, len(self.images))
        match op.kind:
            case "flag":
                return [Draft("flag", item=item, payload={"on": op.on}, op_id=op.id)]
            case "note":
                return [Draft("note", item=item, value=op.text, op_id=op.id)]
            case "skip" | "unsure":
                return [Draft("skip", item=item, payload={"why": op.kind, **about}, op_id=op.id)]
            case "label":
                value = self._words.written(self._words.named(op.value))
                return [Draft("label", item=item, value=value, payload=about, op_id=op.id)]
        raise ValueError(f"There is nothing to {op.kind} here.")


def shown_classes(words: Vocabulary) -> list[str]:
    """The classes by number, as the page knows them: empty where one was merged into another."""
    return [name if words.numbers[name] == number else "" for number, name in enumerate(words.outputs)]


def present_keys(keys: Mapping[str, str], name_of: Callable[[str], str]) -> dict[str, str]:
    """Keys of one's own by what the classes are called now; of classes that became one the first one's."""
    told: dict[str, str] = {}
    for name, key in keys.items():
        told.setdefault(name_of(name), key)
    return told


def marks(cards: Mapping[int, int], flagged: set[int], notes: Mapping[int, str]) -> dict[str, dict[str, Any]]:
    """The flags and notes of some cards, each given with its item, as the page takes them."""
    return {
        str(card): {"flag": item in flagged, "note": notes.get(item, "")}
        for card, item in cards.items()
        if item in flagged or item in notes
    }

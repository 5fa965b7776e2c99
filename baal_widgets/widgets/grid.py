"""A grid of images to label by key and click."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import anywidget
import traitlets
from PIL import Image
from sqlalchemy.exc import SQLAlchemyError

from baal_widgets.widgets.cards import Cards
from baal_widgets.widgets.messages import Op, check_cards, check_id, parse_op
from baal_widgets.widgets.modules import join_modules, read_static
from baal_widgets.widgets.thumbnails import LARGE, SIDE, Thumbnails

MODULES = (
    "dom.js",
    "keys.js",
    "outbox.js",
    "pictures.js",
    "finder.js",
    "why.js",
    "stage.js",
    "prefs.js",
    "sheet.js",
    "history.js",
    "status.js",
    "again.js",
    "lane.js",
    "looks.js",
    "controls.js",
    "grid.js",
)
"""The files of the page, what is imported before what imports it."""

MOST_OPS = 5_000
AT_FIRST = 96  # pictures made ready before the page asks for them


class Deck(Protocol):
    """What lies before the person, card by card: the widget shows it and hands it what was done."""

    store: str
    """Names the place where answers are kept: the browser's own copy of unsaved ones finds its way by it."""

    def view(self) -> dict[str, Any]:
        """All there is to show; see `View` in grid.js."""

    @property
    def n_cards(self) -> int:
        """The numbers of cards are below it."""

    def picture(self, card: int, side: int) -> Image.Image:
        """The image of a card, worth at most so many pixels a side."""

    def answer(self, op: Op) -> int | None:
        """Write one operation and return when it is kept; the card to look at next, for undo and redo."""

    def turn(self, cards: Sequence[int], turn_id: str) -> None:
        """The person has turned to these cards."""

    def why(self, card: int) -> dict[str, Any] | None:
        """What the model knows of a card; see `Why` in why.js."""

    def command(self, name: str, message: Mapping[str, Any]) -> str:
        """Do what a control asks; what to tell the person."""

    def seen(self) -> None:
        """The person has read and dismissed the error shown."""


class LabelGrid(anywidget.AnyWidget):
    """Images in a grid or one at a time, a class for each by key or click.

    `images` are PIL images, arrays or tensors; `classes` the class names. `on_label(place, class_name)` is
    called after each answer with the image's place in `images`, with `None` for set aside or taken back. What is
    labelled so far is in `labels`, a dict `{place: class name}`. With `multi_label` an image may have several
    classes, and a tuple of names stands for one. `keys` gives keys of one's own, by class or command:
    `{"cat": "c", "skip": "x"}`.

    The browser asks and the kernel answers, never the other way round, so answers arrive in order from
    whichever thread handles them, and no thread of the kernel touches the widget behind the person's back.
    """

    _esm = join_modules(*MODULES)
    _css = read_static("grid.css")
    store = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        images: Sequence[Any] = (),
        classes: Sequence[str] = (),
        on_label: Callable[[int, Any], None] | None = None,
        *,
        multi_label: bool = False,
        keys: Mapping[str, str] | None = None,
        deck: Deck | None = None,
    ) -> None:
        self.deck: Deck = (
            deck if deck is not None else Cards(images, classes, on_label, multi_label=multi_label, keys=keys)
        )
        self.dark = False
        self._beside: bool | None = None
        self._state_lock = threading.RLock()
        self._thumbnails = Thumbnails(self.deck.picture)
        super().__init__(store=self.deck.store)
        self.on_msg(self._on_message)
        self._answer_where_asked()

    @property
    def labels(self) -> dict[int, Any]:
        """What is labelled so far: `{place: class name}`, or a tuple of names with `multi_label`."""
        if not isinstance(self.deck, Cards):
            raise AttributeError("This grid shows a session: its labels are session.labels.")
        return self.deck.labels

    def __repr__(self) -> str:
        return f"LabelGrid({self.deck!r}). Run this cell to label."

    def report(self, error: BaseException) -> None:
        """Show an error to the person, in answer to the message at hand."""
        self._reply(errors=[describe(error)])

    def _answer_where_asked(self) -> None:
        # ipykernel 7.4 sends the messages of a widget to the thread that last published for it: the main one,
        # which made it. Were it busy with the next cells, the grid would stay empty until they are through.
        comm = getattr(self, "comm", None)
        if comm is not None:
            vars(comm).pop("_reply_subshell_id", None)

    def _on_message(self, _widget: Any, message: Any, _buffers: Any) -> None:
        """One message of the browser, which is not to be trusted: it may come twice, late or malformed."""
        try:
            self._beside = threading.current_thread() is not threading.main_thread()
            self.dark = bool(message.get("dark", self.dark))
            match message.get("kind"):
                case "pictures":
                    cards = check_cards(message["cards"], self.deck.n_cards)
                    self._send_pictures(cards, LARGE if message.get("large") is True else SIDE)
                case "ops":
                    self._take(message["ops"])
                case "turn":
                    self.deck.turn(check_cards(message["cards"]), check_id(message["id"]))
                    self._reply()
                case "why":
                    (card,) = check_cards([message["card"]])
                    view = self.deck.view()
                    self.send(
                        {"kind": "why", "card": card, "generation": view["generation"], "why": self.deck.why(card)}
                    )
                case "do":
                    self._reply(said=self.deck.command(str(message["do"])[:40], message))
                case "seen":
                    self.deck.seen()
                case "hello":
                    told = self._reply()
                    if told is not None:  # the page asks for these as soon as it has the view
                        self._thumbnails.prepare(told["page"][:AT_FIRST])
                case "tick":
                    self._reply()
                case kind:
                    raise ValueError(f"Unknown message {str(kind)[:40]!r} from the page.")
        except Exception as error:  # an error in a handler would vanish: show it to the person instead
            self.report(error)

    def _take(self, ops: Sequence[object]) -> None:
        if not isinstance(ops, list) or len(ops) > MOST_OPS:
            raise TypeError(f"Expected a list of at most {MOST_OPS:,} operations, got {type(ops).__name__}.")
        done, held, errors, focus = list[str](), list[str](), list[str](), None
        for place, raw in enumerate(ops):
            try:
                focus = self.deck.answer(parse_op(raw))
            except SQLAlchemyError as error:  # a full disk, a locked file: the browser keeps it and tries again
                errors.append(f"Not saved yet, and tried again until it is. {describe(error)}")
                held = _ids(ops[place:])
                break
            except Exception as error:
                errors.append(describe(error))
            done += _ids([raw])
        self._reply(done=done, held=held, errors=list(dict.fromkeys(errors))[:5], focus=focus)

    def _reply(self, **told: Any) -> dict[str, Any] | None:
        with self._state_lock:  # the view and its sending are one, or an older view could arrive last
            try:
                view = {**self.deck.view(), "beside": self._beside}
            except Exception as error:
                view, told["errors"] = None, [*told.get("errors", ()), describe(error)]
            self.send({"kind": "view", "view": view, **told})
        return view

    def _send_pictures(self, cards: Sequence[int], side: int) -> None:
        made = self._thumbnails.of(cards, side)
        self.send(
            {
                "kind": "pictures",
                "cards": list(cards),
                "large": side == LARGE,
                "types": [one.type for one in made],
                "reasons": [one.reason[:500] for one in made],
                "whole": [one.whole for one in made],
                "sizes": [len(one.data) for one in made],
            },
            [b"".join(one.data for one in made)],  # one buffer: each costs a frame on every step of the way
        )


def describe(error: BaseException) -> str:
    """An exception in a line for a person."""
    return f"{type(error).__name__}: {getattr(error, 'orig', None) or error}"


def _ids(ops: Sequence[object]) -> list[str]:
    return [str(op["id"]) for op in ops if isinstance(op, Mapping) and "id" in op]

"""A grid of images to label by key and click."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol
from uuid import uuid4

import anywidget
import traitlets
from PIL import Image
from sqlalchemy.exc import SQLAlchemyError

from baal_widgets.checks import check_class, check_classes, check_item
from baal_widgets.images import to_image
from baal_widgets.journal import Draft, Journal, State
from baal_widgets.widgets.modules import join_modules, read_static
from baal_widgets.widgets.thumbnails import encode

KEPT_PICTURES = 1000
OPERATIONS = ("label", "skip", "undo", "redo")


class Deck(Protocol):
    """What lies before the person: the widget shows it and hands it what was done, and knows nothing else."""

    store: str
    """Names the place where answers are kept: the browser's own copy of unsaved ones finds its way by it."""

    def view(self) -> dict[str, Any]:
        """All there is to show; see `View` in grid.js."""

    def picture(self, item: int) -> Image.Image:
        """The image of an item."""

    def answer(self, op: str, item: int | None, value: int | None, op_id: str) -> int | None:
        """Write one operation and return when it is kept; the item to look at next, for undo and redo."""

    def command(self, name: str) -> str:
        """Do what a button asks (`next`, `learn`, `cancel`); what to tell the person."""

    def seen(self) -> None:
        """The person has read and dismissed the error shown."""


class LabelGrid(anywidget.AnyWidget):
    """Images in a grid, a class for each by key or click.

    `images` are PIL images, arrays or tensors; `classes` the class names. `on_label(place, class_name)` is
    called after each answer with the image's place in `images`, with `None` for skipped or taken back. What is
    labelled so far is in `labels`, a dict `{place: class name}`.

    The browser asks and the kernel answers, never the other way round, so answers arrive in order from
    whichever thread handles them, and no thread of the kernel touches the widget behind the person's back.
    """

    _esm = join_modules("keys.js", "outbox.js", "grid.js")
    _css = read_static("grid.css")
    store = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        images: Sequence[Any] = (),
        classes: Sequence[str] = (),
        on_label: Callable[[int, str | None], None] | None = None,
        *,
        deck: Deck | None = None,
    ) -> None:
        self.deck: Deck = deck if deck is not None else Cards(images, classes, on_label)
        self.dark = False
        self._state_lock = threading.RLock()
        self._pictures: OrderedDict[int, tuple[str, bytes]] = OrderedDict()
        super().__init__(store=self.deck.store)
        self.on_msg(self._on_message)
        self._answer_where_asked()

    @property
    def labels(self) -> dict[int, str]:
        """What is labelled so far: `{place: class name}`."""
        view = self.deck.view()
        return {int(item): view["classes"][value] for item, value in view["answers"].items() if value >= 0}

    def __repr__(self) -> str:
        view = self.deck.view()
        return f"LabelGrid({len(view['items'])} images, {len(self.labels)} labelled)"

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
            kind = message.get("kind")
            self.dark = bool(message.get("dark", self.dark))
            match kind:
                case "pictures":
                    self._send_pictures(message["items"])
                case "ops":
                    self._take(message["ops"])
                case "do":
                    self._reply(said=self.deck.command(str(message["do"])))
                case "seen":
                    self.deck.seen()
                case "hello" | "tick":
                    self._reply()
                case _:
                    raise ValueError(f"Unknown message {kind!r} from the browser.")
        except Exception as error:  # an error in a handler would vanish: show it to the person instead
            self.report(error)

    def _take(self, ops: Sequence[Mapping[str, Any]]) -> None:
        done, held, errors, focus = [], list[str](), [], None
        for place, op in enumerate(ops):
            try:
                if op["op"] not in OPERATIONS:
                    raise ValueError(f"Unknown operation {op['op']!r} from the browser.")
                focus = self.deck.answer(op["op"], op.get("item"), op.get("value"), str(op["id"]))
            except SQLAlchemyError as error:  # a full disk, a locked file: the browser keeps it and tries again
                errors.append(f"Not saved yet, and tried again until it is. {describe(error)}")
                held = [str(later["id"]) for later in ops[place:]]
                break
            except Exception as error:
                errors.append(describe(error))
            if isinstance(op, Mapping) and "id" in op:
                done.append(str(op["id"]))
        self._reply(done=done, held=held, errors=errors, focus=focus)

    def _reply(self, **told: Any) -> None:
        with self._state_lock:  # the view and its sending are one, or an older view could arrive last
            try:
                view = self.deck.view()
            except Exception as error:
                view, told["errors"] = None, [*told.get("errors", ()), describe(error)]
            self.send({"kind": "view", "view": view, **told})

    def _send_pictures(self, items: Sequence[int]) -> None:
        told = [(item, *self._picture(item)) for item in items]
        self.send(
            {"kind": "pictures", "items": [item for item, _, _ in told], "types": [kind for _, kind, _ in told]},
            [data for _, _, data in told],
        )

    def _picture(self, item: int) -> tuple[str, bytes]:
        if not isinstance(item, int):
            raise TypeError(f"Expected an item's index, got {item!r}.")
        with self._state_lock:
            if item not in self._pictures:
                try:
                    self._pictures[item] = encode(self.deck.picture(item))
                except IndexError:
                    raise
                except Exception:  # whatever a dataset or a file comes up with: the other pictures are fine
                    self._pictures[item] = encode(_broken())
                while len(self._pictures) > KEPT_PICTURES:
                    self._pictures.popitem(last=False)
            return self._pictures[item]


class Cards:
    """A deck in memory: images, classes and a callback, without session or journal on disk."""

    def __init__(
        self,
        images: Sequence[Any],
        classes: Sequence[str],
        on_label: Callable[[int, str | None], None] | None,
    ) -> None:
        self.images, self.classes, self.on_label = images, check_classes(classes), on_label
        self.store = uuid4().hex
        self._lock = threading.RLock()
        self._journal = Journal(None)
        self._state = State()

    def view(self) -> dict[str, Any]:
        with self._lock:
            state, counts = self._state, self._state.counts
            return {
                "classes": list(self.classes),
                "items": list(range(len(self.images))),
                "upcoming": [],
                "answers": numbered(state, self.classes),
                "counts": [counts[name] for name in self.classes],
                "summary": f"{counts.total()} of {len(self.images)} labelled, {len(state.skipped)} skipped",
                "canUndo": bool(state.done),
                "canRedo": bool(state.undone),
                "canNext": False,
                "fresh": False,
                "training": None,
            }

    def picture(self, item: int) -> Image.Image:
        return to_image(self.images[check_item(item, len(self.images))])

    def answer(self, op: str, item: int | None, value: int | None, op_id: str) -> int | None:
        with self._lock:
            changed = self._write(op, item, value, op_id)
            name = self._state.labels.get(changed) if changed is not None else None
        if changed is not None and self.on_label is not None:
            self.on_label(changed, name)
        return changed if op in ("undo", "redo") else None

    def command(self, name: str) -> str:
        raise ValueError(f"There is no {name!r} here.")

    def seen(self) -> None:
        pass

    def _write(self, op: str, item: int | None, value: int | None, op_id: str) -> int | None:
        if op in ("undo", "redo"):
            stack = self._state.done if op == "undo" else self._state.undone
            if not stack:
                return None
            draft = Draft(op, payload={"target": stack[-1].seq}, op_id=op_id)
        else:
            name = check_class(self.classes, value) if op == "label" else None
            draft = Draft(op, item=check_item(item, len(self.images)), value=name, op_id=op_id)
        event = self._journal.append(draft)[0]
        return self._state.apply(event) if event.seq > self._state.seq else None


def numbered(state: State, classes: Sequence[str]) -> dict[str, int]:
    """The answers as class indices, -1 for skipped, by item."""
    index = {name: place for place, name in enumerate(classes)}
    return {str(i): -1 if a.value is None else index[a.value] for i, a in state.answers.items()}


def describe(error: BaseException) -> str:
    """An exception in a line for a person."""
    return f"{type(error).__name__}: {getattr(error, 'orig', None) or error}"


def _broken() -> Image.Image:
    """A grey picture with a cross, in the place of a file that can no longer be read."""
    from PIL import ImageDraw

    image = Image.new("RGB", (128, 128), "#999999")
    draw = ImageDraw.Draw(image)
    draw.line((24, 24, 104, 104), fill="#dddddd", width=6)
    draw.line((24, 104, 104, 24), fill="#dddddd", width=6)
    return image

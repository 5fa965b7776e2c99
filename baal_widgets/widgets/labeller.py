"""The whole circle in a cell: the grid of the query, retraining, and what it brought."""

from __future__ import annotations

import json
import threading
from concurrent.futures import CancelledError
from typing import Any

import ipywidgets
import plotly.graph_objects as go
from PIL import Image

from baal_widgets import plots
from baal_widgets.session import LabellingSession
from baal_widgets.widgets.grid import LabelGrid, describe
from baal_widgets.widgets.thumbnails import SIDE


class SessionDeck:
    """The query of a session. What is under the person's hands stays until they are through or ask for more."""

    def __init__(self, session: LabellingSession) -> None:
        self.session = session
        self.store = session.store
        self._lock = threading.RLock()
        self._error = ""
        self._told_of: object = None
        query = session.ask()
        self._shown, self._number = query.items, query.number

    def view(self) -> dict[str, Any]:
        with self._lock:
            session, query = self.session, self.session.query
            answers = session.answers(self._shown)
            told, job = session.progress, session.job
            running = job is not None and not job.done
            return {
                "classes": list(session.classes),
                "items": list(self._shown),
                "upcoming": list(session.upcoming() if query.number == self._number else query.items),
                "answers": {str(item): value for item, value in answers.items()},
                "counts": list(told["per_class"].values()),
                "summary": summary(told),
                "canUndo": session.can_undo,
                "canRedo": session.can_redo,
                "canNext": query.number != self._number or (len(answers) == len(self._shown) and told["n_pool"] > 0),
                "fresh": query.number != self._number,
                "training": {
                    "running": running,
                    "fraction": job.progress.fraction if running and job else 0.0,
                    "message": self._training_line(running),
                    "error": self._failure(),
                },
            }

    def picture(self, item: int) -> Image.Image:
        return self.session.picture(item, side=SIDE)

    def answer(self, op: str, item: int | None, value: int | None, op_id: str) -> int | None:
        session = self.session
        match op:
            case "label" if item is not None and value is not None:
                session.label(item, value, op_id=op_id)
            case "skip" if item is not None:
                session.skip(item, op_id=op_id)
            case "undo" | "redo":
                changed = session.undo(op_id=op_id) if op == "undo" else session.redo(op_id=op_id)
                with self._lock:  # what is taken back must be seen, also from long ago
                    if changed is not None and changed not in self._shown:
                        self._shown = (changed, *self._shown)
                return changed
            case _:
                raise ValueError(f"{op!r} needs an item and, for a label, a class.")
        return None

    def command(self, name: str) -> str:
        match name:
            case "next":
                with self._lock:
                    self._show()
                return f"{len(self._shown)} new images"
            case "learn":
                self.session.learn(wait=False)
                return "Training; go on labelling"
            case "cancel":
                if self.session.job is not None:
                    self.session.job.cancel()
                return "Training is cancelled"
        raise ValueError(f"There is no {name!r} here.")

    def seen(self) -> None:
        self._told_of = self.session.job

    def _show(self) -> None:
        """Turn to the session's query, less what was answered since it was asked."""
        query = self.session.ask()
        answered = self.session.answers(query.items)
        self._shown, self._number = tuple(item for item in query.items if item not in answered), query.number

    def _training_line(self, running: bool) -> str:
        job, history = self.session.job, self.session.history
        if running and job is not None:
            return f"{job.progress.phase}: {job.progress.message}"
        if not history:
            return ""
        last = history[-1]
        line = f"round {last['round']}: " + (f"accuracy {last['accuracy']:.1%}" if "accuracy" in last else "done")
        if not last["converged"]:
            line += " (loss still falling: allow more steps)"
        return line

    def _failure(self) -> str:
        job = self.session.job
        if job is None or not job.done or job is self._told_of:
            return ""
        error = job.exception()
        return "" if error is None or isinstance(error, CancelledError) else f"Training failed. {describe(error)}"


class Labeller(ipywidgets.VBox):
    """Label a session's queries in a cell: grid, keys, progress, retrain, learning curve, calibration.

    `Labeller(session)` at the end of a cell shows it. Retraining runs beside the labelling. The figures redraw
    after each lesson, in the colours of the notebook's theme. Show it in as many cells or windows as you like: they
    stay in step.
    """

    def __init__(self, session: LabellingSession) -> None:
        self.session = session
        self.grid = LabelGrid(deck=SessionDeck(session))
        self._curve, self._calibration = _place_for_figure(), _place_for_figure()
        self._drawn: tuple[int, bool] | None = None
        self._draw_lock = threading.Lock()
        self._draw()
        self.grid.on_msg(self._draw_after)
        figures = ipywidgets.HBox(
            [self._curve, self._calibration], layout={"flex_flow": "row wrap", "overflow": "visible"}
        )
        super().__init__([self.grid, figures])

    def figures(self, dark: bool = False) -> tuple[go.Figure, go.Figure]:
        """The learning curve and the reliability diagram as they are now."""
        history = self.session.history
        return (
            plots.learning_curve(history, dark=dark),
            plots.reliability(history[-1] if history else None, dark=dark),
        )

    def __repr__(self) -> str:
        return f"Labeller({self.session!r})"

    def _draw_after(self, *_: Any) -> None:
        try:
            self._draw()
        except Exception as error:  # it would vanish: show it to the person instead
            self.grid.report(error)

    def _draw(self) -> None:
        with self._draw_lock:
            now = (self.session.round, self.grid.dark)
            if now == self._drawn:
                return
            for place, figure in zip((self._curve, self._calibration), self.figures(self.grid.dark), strict=True):
                place.outputs = (
                    {
                        "output_type": "display_data",
                        "metadata": {},
                        "data": {
                            "application/vnd.plotly.v1+json": json.loads(figure.to_json()),
                            "text/plain": str(figure.layout.title.text),
                        },
                    },
                )
            self._drawn = now


def summary(told: dict[str, Any]) -> str:
    """Where the labelling stands, in a line."""
    parts = [
        f"{told['n_labelled']:,} labelled",
        f"{told['n_skipped']:,} skipped",
        f"{told['n_pool']:,} in the pool",
    ]
    behind = told["model_behind_by"]
    if told["round"] and behind:
        parts.append(f"the model is {behind} label{'s' * (behind != 1)} behind")
    return " · ".join(parts)


def _place_for_figure() -> ipywidgets.Output:
    return ipywidgets.Output(layout={"flex": "1 1 420px", "min_width": "320px", "overflow": "hidden"})

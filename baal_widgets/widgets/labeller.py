"""The whole circle in a cell: the images of the query, retraining, and what it brought."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets
import plotly.graph_objects as go

from baal_widgets import plots
from baal_widgets.jobs import Job
from baal_widgets.session import LabellingSession
from baal_widgets.widgets.deck import SessionDeck
from baal_widgets.widgets.grid import LabelGrid

PAUSE, LATEST = 3.0, 60.0
"""Seconds without an answer after which the figures are drawn, and the longest that they lag behind."""


class Labeller(ipywidgets.VBox):
    """Label a session's queries in a cell: images, keys, progress, retrain, learning curve, calibration.

    `Labeller(session)` at the end of a cell shows it. Retraining runs beside the labelling. The figures redraw
    after each lesson, in the colours of the notebook's theme. Show it in as many cells or windows as you like: they
    stay in step.

    `keys` gives keys of one's own, by class or command: `{"cat": "c", "skip": "x"}`. `blind=False` shows the model's
    guess before the answer. `retrain_every` retrains by itself after so many labels. `oracle` are the true labels,
    where they are known: then the learning curve is drawn beside that of the same model on randomly chosen images.
    """

    def __init__(
        self,
        session: LabellingSession,
        *,
        keys: Mapping[str, str] | None = None,
        blind: bool = True,
        retrain_every: int = 0,
        oracle: Sequence[str | int] | Mapping[int, str | int] | None = None,
    ) -> None:
        self.session = session
        self.deck = SessionDeck(session, keys=keys, blind=blind, retrain_every=retrain_every)
        self.grid = LabelGrid(deck=self.deck)
        self.twin = None if oracle is None else session.random_twin(oracle)
        self._twin_job: Job[Any] | None = None
        self._places = tuple(_place_for_figure() for _ in range(4))
        self._drawn: tuple[Any, ...] = ()
        self._draw_lock = threading.Lock()
        self._busy = self._waiting = 0.0
        self._draw()
        self.grid.on_msg(self._draw_after)
        columns = "repeat(auto-fit, minmax(min(100%, 400px), 1fr))"
        figures = ipywidgets.GridBox(self._places, layout={"grid_template_columns": columns, "overflow": "visible"})
        super().__init__([self.grid, figures])

    def figures(self, dark: bool = False) -> tuple[go.Figure, ...]:
        """The learning curve, the reliability diagram, the pool's uncertainty and the balance of the classes."""
        history = self.session.history
        others = {"random choice": self.twin.history} if self.twin is not None and self.twin.history else None
        return (
            plots.learning_curve(history, others=others, dark=dark),
            plots.reliability(history[-1] if history else None, dark=dark),
            plots.pool_uncertainty(history, dark=dark),
            plots.class_balance(self._counts(), dark=dark),
        )

    def __repr__(self) -> str:
        return f"Labeller({self.session!r}). Run this cell to label."

    def _counts(self) -> dict[str, int]:
        counts: dict[str, int] = self.session.progress["per_class"]
        return counts

    def _draw_after(self, _widget: Any, message: Any, _buffers: Any) -> None:
        """Draw anew when the hands pause: drawing four figures takes the page longer than a key may wait."""
        now = time.monotonic()
        try:
            if isinstance(message, dict) and message.get("kind") == "ops":
                self._busy = now
                self._waiting = self._waiting or now
            if now - self._busy < PAUSE and now - self._waiting < LATEST:
                return
            self._waiting = 0.0
            self._learn_twin()
            self._draw()
        except Exception as error:  # it would vanish: show it to the person instead
            self.grid.report(error)

    def _learn_twin(self) -> None:
        """Let the twin learn from as many labels as the model has, while nothing else is learned."""
        twin, job = self.twin, self.session.job
        if twin is None:
            return
        if job is not None and not job.done:
            if self._twin_job is not None:
                self._twin_job.cancel()
            return
        behind = self.session.history[len(twin.history) :]
        if behind and (self._twin_job is None or self._twin_job.done):
            row = behind[0]
            self._twin_job = Job(lambda job: twin.learn(row["n_labelled"], row["round"], job)).start()

    def _draw(self) -> None:
        with self._draw_lock:
            lessons = self.session.round, len(self.twin.history) if self.twin is not None else 0
            now = (*lessons, self.grid.dark, *self._counts().values())
            if now == self._drawn:
                return
            for place, figure in zip(self._places, self.figures(self.grid.dark), strict=True):
                bundle = {
                    "application/vnd.plotly.v1+json": json.loads(figure.to_json()),
                    "text/plain": str(figure.layout.title.text),
                }
                outputs = ({"output_type": "display_data", "metadata": {}, "data": bundle},)
                if place.outputs != outputs:  # only what changed goes over the wire
                    place.outputs = outputs
            self._drawn = now


def _place_for_figure() -> ipywidgets.Output:
    return ipywidgets.Output(layout={"min_width": "0", "overflow": "hidden"})

"""The labelling session: one object that walks the circle of asking, answering, learning and asking again."""

from __future__ import annotations

import os
import threading
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn
from torch.utils.data import Dataset

from baal_widgets.active.dataset import ActiveLearningDataset
from baal_widgets.active.heuristics import HEURISTICS, AbstractHeuristic, get_heuristic
from baal_widgets.checks import check_class, check_classes, check_item, positive
from baal_widgets.jobs import Job
from baal_widgets.journal import Draft, Event, Journal, Query, State, fold
from baal_widgets.journal.exchange import write_labels
from baal_widgets.learning import Learner, Lesson
from baal_widgets.modelwrapper import ModelWrapper
from baal_widgets.queries import Ranking, asking, continued_ranking
from baal_widgets.sources import open_source
from baal_widgets.training import Training


@dataclass(frozen=True)
class Round:
    """A finished lesson: its number, the labels it learned from, what was measured and what to ask next."""

    number: int
    n_labelled: int
    metrics: dict[str, Any]
    query: Query


class LabellingSession:
    """Labels, a model that learns from them, and the question what to label next; all of it on disk.

    `dataset` is an `ActiveLearningDataset`, any torch dataset, or the path of a folder of images. `model` is a
    classifier with dropout (`nn.Module` or `ModelWrapper`, one output per class, logits); without one a small
    CNN is used. `test_set` yields (input, class index) and turns on the learning curve and calibration.
    `heuristic` ranks the pool: a name (`bald`, `entropy`, ...) or a `Heuristic`. `iterations` is the number of
    draws from the model, whose dropout stays on for them; a model that is a `BayesianModule` (an ensemble, Laplace,
    SWAG...) draws by itself. `targets` yields inputs whose labels matter, for EPIG. `journal` is a path or database
    URL, `None` keeps it in memory; a journal that exists is resumed: same round, same query, same history.

    An item is its index in the whole dataset. Every answer is on disk when the call that gave it returns.
    All methods may be called from any thread.
    """

    def __init__(
        self,
        dataset: ActiveLearningDataset | Dataset[Any] | str | os.PathLike[str],
        model: nn.Module | ModelWrapper | None = None,
        classes: Sequence[str] = (),
        *,
        test_set: Dataset[Any] | None = None,
        heuristic: str | AbstractHeuristic = "bald",
        query_size: int = 24,
        journal: str | os.PathLike[str] | None = "labels.db",
        annotator: str = "me",
        seed: int = 0,
        device: str | None = None,
        iterations: int = 20,
        training: Training | None = None,
        targets: Dataset[Any] | None = None,
    ) -> None:
        self.classes = check_classes(classes)
        self.query_size = positive("query_size", query_size)
        self.annotator = annotator
        self.seed = seed
        self._heuristic_name = _name_of(heuristic)
        made = get_heuristic(heuristic, seed=seed) if isinstance(heuristic, str) else heuristic
        self.heuristic = made.sized(self.query_size)
        self._source = open_source(dataset)
        self._learner = Learner(
            self._source,
            model,
            n_classes=len(self.classes),
            test_set=test_set,
            heuristic=self.heuristic,
            iterations=positive("iterations", iterations),
            training=training or Training(),
            device=device,
            seed=seed,
            targets=targets,
        )
        self._lock = threading.RLock()
        self._job: Job[Round] | None = None
        self._closed = False
        self._index_of = {key: item for item, key in enumerate(self._source.keys)}
        self._journal = Journal(journal)
        try:
            self._state = self._resume()
        except BaseException:
            self._journal.close()
            raise

    @classmethod
    def open(
        cls,
        journal: str | os.PathLike[str],
        dataset: ActiveLearningDataset | Dataset[Any] | str | os.PathLike[str],
        model: nn.Module | ModelWrapper | None = None,
        **options: Any,
    ) -> LabellingSession:
        """Go on where a journal ends, with the classes, heuristic, query size and seed it was begun with.

        `options` are those of the constructor and win over what the journal says. Raises `FileNotFoundError`
        where there is no journal.
        """
        if "://" not in os.fspath(journal) and not Path(journal).expanduser().is_file():
            raise FileNotFoundError(f"No journal at {journal}. To begin one, call LabellingSession(...) with it.")
        reader = Journal(journal)
        settings = fold(reader.events()).settings
        reader.close()
        if not settings:
            raise ValueError(f"{journal} is an empty journal. To begin it, call LabellingSession(...) with it.")
        told = {name: settings[name] for name in ("classes", "heuristic", "query_size", "seed") if settings[name]}
        return cls(dataset, model, journal=journal, **{**told, **options})

    # What is now true

    @property
    def store(self) -> str:
        """A name for this journal that no other has, the same each time it is opened."""
        return self._store

    @property
    def dataset(self) -> ActiveLearningDataset:
        """The `ActiveLearningDataset`, always in step with the journal."""
        return self._source.dataset

    @property
    def labels(self) -> dict[int, str]:
        """`{item: class name}`, the current truth."""
        with self._lock:
            self._catch_up()
            return self._state.labels

    @property
    def skipped(self) -> set[int]:
        """The items set aside by `skip`."""
        with self._lock:
            return self._state.skipped

    @property
    def round(self) -> int:
        """How many times the model has learned."""
        with self._lock:
            return self._state.round

    @property
    def history(self) -> list[dict[str, Any]]:
        """One dict for each time the model learned: `round`, `n_labelled`, `loss`, `converged` and, with a
        `test_set`, `accuracy`, `nll`, `brier`, `ece` and the bins of the `reliability` diagram."""
        with self._lock:
            self._catch_up()
            return [dict(row) for row in self._state.history]

    @property
    def progress(self) -> dict[str, Any]:
        """Counts: `n_items`, `n_labelled`, `n_skipped`, `n_pool`, `per_class`, `round`, and `model_behind_by`,
        the labels given or changed since the model's last lesson began."""
        with self._lock:
            self._catch_up()
            state, n_items = self._state, len(self._source.keys)
            counts = state.counts
            return {
                "n_items": n_items,
                "n_labelled": counts.total(),
                "n_skipped": len(state.skipped),
                "n_pool": n_items - len(state.answers),
                "per_class": {name: counts[name] for name in self.classes},
                "round": state.round,
                "model_behind_by": state.labels_after(state.history[-1]["seq"] if state.history else 0),
            }

    @property
    def model(self) -> nn.Module:
        """The model as the last lesson of this process left it: a copy of the one that was given."""
        return self._learner.wrapper.model

    def picture(self, item: int, side: int | None = None) -> Image.Image:
        """The image of an item for a person: as it is in the file or the dataset, without augmentation.

        `side` reads a file faster, at most that many pixels a side.
        """
        return self._source.picture(check_item(item, len(self._source.keys)), side)

    @property
    def can_undo(self) -> bool:
        with self._lock:
            return self._state.last_done(self.annotator) is not None

    @property
    def can_redo(self) -> bool:
        with self._lock:
            return self._state.last_undone(self.annotator) is not None

    def answers(self, items: Sequence[int]) -> dict[int, int]:
        """What is said of these items: a class index, or -1 for skipped. Items without an answer are left out."""
        with self._lock:
            given = {item: self._state.answers[item] for item in items if item in self._state.answers}
        return {i: -1 if a.value is None else self.classes.index(a.value) for i, a in given.items()}

    # Asking

    @property
    def query(self) -> Query:
        """The query that was asked last, answered or not; asks the first one."""
        with self._lock:
            return self._state.query or self.ask()

    def upcoming(self) -> tuple[int, ...]:
        """The items that `ask` would go on with before the next lesson: worth loading ahead."""
        with self._lock:
            query, answers = self._state.query, self._state.answers
            return () if query is None else tuple(i for i in query.reserve if i not in answers)[: self.query_size]

    def ask(self) -> Query:
        """The items to label now, most wanted first. The same query until each of them is labelled or skipped.

        Before the first lesson they are drawn at random: an untrained model's scores say nothing. A heuristic that
        looks at features alone (`typiclust`, `coreset`, `max_herding`) begins by those of the model as it came. A query
        is empty when nothing is left to ask.
        """
        with self._lock:
            self._catch_up()
            last = self._state.query
            if last is None or not self._state.open_items:
                ranked = self._first_ranking() if last is None else []
                ranked = ranked or continued_ranking(self._state, len(self._source.keys), self.query_size, self.seed)
                if ranked or last is None or last.items:  # that nothing is left is written once
                    self._write(self._asking(ranked, self._state.round))
            assert self._state.query is not None
            return self._state.query

    def _first_ranking(self) -> Ranking:
        """What a heuristic asks that needs no labels, nothing where it does."""
        candidates = [item for item in range(len(self._source.keys)) if item not in self._state.answers]
        ranked = self._learner.rank_unlabelled(candidates, self._state.labels)
        return [] if ranked is None else list(zip(*ranked, strict=True))

    # Answering

    def label(self, item: int, label: str | int, *, op_id: str | None = None) -> None:
        """Say what an item is: a class name or its index. Also changes a label given before.

        On disk when it returns. `op_id` names this very answer: giving it again with the same id does nothing.
        Raises `IndexError`, `ValueError` or `TypeError`, and writes nothing, where item or class is not known.
        """
        self._answer("label", check_item(item, len(self._source.keys)), check_class(self.classes, label), op_id)

    def skip(self, item: int, *, op_id: str | None = None) -> None:
        """Set an item aside: neither asked again nor trained on. A label takes it back."""
        self._answer("skip", check_item(item, len(self._source.keys)), None, op_id)

    def undo(self, *, op_id: str | None = None) -> int | None:
        """Take back the last answer of this annotator that still stands; its item, `None` when there is none.

        Reaches back over retrains and restarts.
        """
        return self._step_back_or_forth("undo", op_id)

    def redo(self, *, op_id: str | None = None) -> int | None:
        """Give again the answer that was last taken back; its item, `None` when there is none."""
        return self._step_back_or_forth("redo", op_id)

    # Learning

    def learn(self, wait: bool = True) -> Any:
        """Train on the labels given so far, measure, score the pool and ask anew; the finished `Round`.

        With `wait=False` the same runs beside the labelling: a `Job` with `progress`, `cancel()` and `result()`.
        It learns from a snapshot: labels given meanwhile are kept and count for the next round. Cancelled or
        failed, it leaves everything as it was. One lesson runs at a time (`RuntimeError`).
        """
        with self._lock:
            self._catch_up()
            self._check_idle()
            targets = {item: self.classes.index(label) for item, label in self._state.labels.items()}
            if not targets:
                raise ValueError("There is nothing to learn from yet: label at least one item first.")
            seq, round_ = self._state.seq, self._state.round + 1
            candidates = [item for item in range(len(self._source.keys)) if item not in self._state.answers]

            def work(job: Job[Round]) -> Round:
                lesson = self._learner.learn(targets, candidates, round_, job)
                return self._finish(lesson, seq)

            self._job = Job(work)
        return self._job.start() if not wait else self._job.run().result()

    @property
    def job(self) -> Job[Round] | None:
        """The lesson that runs, or the last one."""
        return self._job

    def simulate(
        self,
        oracle: Sequence[str | int] | Mapping[int, str | int],
        rounds: int = 5,
        *,
        on_round: Callable[[dict[str, Any]], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Answer every query from the true labels and learn after each, `rounds` times; the history.

        `oracle[item]` is a class name or index. The answers are written as those of the annotator `oracle`.
        `on_round` is called with each new row of the history. Ends early when the pool is used up.
        """
        for _ in range(positive("rounds", rounds)):
            with self._lock:
                self._check_idle()
                self.ask()
                open_items = self._state.open_items
                told = {item: check_class(self.classes, oracle[item]) for item in open_items}
                self._write(*(self._draft("label", i, told[i], None, annotator="oracle") for i in open_items))
            if not open_items:
                break
            self.learn()
            if on_round is not None:
                on_round(self.history[-1])
        return self.history

    # Leaving

    def export(self, path: str | os.PathLike[str]) -> Path:
        """Write the labels to a file, `.csv` or `.jsonl`: item, key, label, annotator, round."""
        with self._lock:
            rows = [
                {
                    "item": item,
                    "key": self._source.keys[item],
                    "label": answer.value,
                    "annotator": answer.annotator,
                    "round": answer.round,
                }
                for item, answer in sorted(self._state.answers.items())
                if answer.value is not None
            ]
        return write_labels(rows, path)

    def close(self) -> None:
        """Stop learning, if it is going on, and let go of the journal. Nothing needs saving."""
        job = self._job
        if job is not None and not job.done:
            job.cancel()
            job.exception()
        with self._lock:
            self._closed = True
            self._journal.close()

    def __enter__(self) -> LabellingSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        told = self.progress
        return (
            f"LabellingSession({told['n_labelled']} of {told['n_items']} labelled, {len(self.classes)} classes, "
            f"round {told['round']})"
        )

    # Within: every change is a fact in the journal first, then folded

    def _resume(self) -> State:
        events = self._journal.events()
        if not events:
            self._journal.append(self._opening(), *self._given())
            events = self._journal.events()
        self._store = events[0].op_id
        state = fold(events, self._index_of)
        self._check_settings(state.settings)
        if state.unknown:
            names = ", ".join(sorted(state.unknown)[:3])
            warnings.warn(
                f"{len(state.unknown)} items of the journal are not in the dataset (such as {names}). Their labels "
                "stay in the journal and count again once the files are back.",
                stacklevel=4,
            )
        steps: dict[int, dict[int, int | None]] = {}
        for item, answer in state.answers.items():
            if answer.value is not None:
                steps.setdefault(answer.round + 1, {})[item] = self.classes.index(answer.value)
        for item in self._source.given.keys() - state.labels.keys():
            steps.setdefault(1, {})[item] = None
        for step in sorted(steps):
            self._source.put(steps[step], step)
        return state

    def _opening(self) -> Draft:
        settings = {
            "classes": list(self.classes),
            "heuristic": self._heuristic_name,
            "query_size": self.query_size,
            "seed": self.seed,
            "n_items": len(self._source.keys),
        }
        return Draft("opened", annotator=self.annotator, payload=settings)

    def _given(self) -> list[Draft]:
        """The labels that the dataset came with, as facts of the annotator `dataset`."""
        return [
            self._draft("import", item, check_class(self.classes, target), None, annotator="dataset", round_=0)
            for item, target in self._source.given.items()
        ]

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        begun = list(settings.get("classes", ()))
        if begun != list(self.classes):
            raise ValueError(
                f"The journal {self._journal.place} was begun with the classes {begun}, you gave "
                f"{list(self.classes)}. Give another journal=, or resume it with LabellingSession.open(...)."
            )
        by_number = self._source.files is None
        if by_number and settings["n_items"] != len(self._source.keys):
            raise ValueError(
                f"The journal {self._journal.place} was begun on {settings['n_items']} items, the dataset has "
                f"{len(self._source.keys)}. Give another journal= for another dataset."
            )

    def _answer(self, kind: str, item: int, value: str | None, op_id: str | None) -> None:
        with self._lock:
            self._write(self._draft(kind, item, value, op_id))

    def _step_back_or_forth(self, kind: str, op_id: str | None) -> int | None:
        with self._lock:
            undo = kind == "undo"
            change = self._state.last_done(self.annotator) if undo else self._state.last_undone(self.annotator)
            if change is None:
                return None
            draft = self._draft(kind, change.item, None, op_id, payload={"target": change.seq})
            return change.item if self._write(draft) else None

    def _draft(
        self,
        kind: str,
        item: int,
        value: str | None,
        op_id: str | None,
        *,
        annotator: str | None = None,
        round_: int | None = None,
        payload: Mapping[str, Any] | None = None,
    ) -> Draft:
        query = self._state.query if round_ is None else None
        asked = dict(zip(query.items, query.scores, strict=True)) if query is not None else {}
        return Draft(
            kind,
            item=item,
            key=self._source.keys[item],
            value=value,
            annotator=annotator or self.annotator,
            round=self._state.round if round_ is None else round_,
            score=asked.get(item),
            payload=payload or {},
            op_id=op_id or uuid.uuid4().hex,
        )

    def _write(self, *drafts: Draft) -> list[Event]:
        """Append to the journal, then fold what it holds that is new, whoever wrote it; the new facts."""
        with self._lock:
            if self._closed:
                raise RuntimeError("This session is closed. LabellingSession.open(...) goes on where it ended.")
            self._journal.append(*drafts)
            return self._catch_up()

    def _catch_up(self) -> list[Event]:
        """Fold the facts that this or another process has written since."""
        if self._closed:
            return []
        fresh = self._journal.events(after=self._state.seq)
        changed = {self._state.apply(event, self._index_of) for event in fresh} - {None}
        answers = {item: self._state.answers.get(item) for item in changed if item is not None}
        if answers:
            self._source.put(
                {i: self.classes.index(a.value) if a and a.value is not None else None for i, a in answers.items()},
                self._state.round + 1,
            )
        return fresh

    def _check_idle(self) -> None:
        if self._job is not None and not self._job.done:
            raise RuntimeError("The model is learning already: wait for job.result(), or call job.cancel().")

    def _finish(self, lesson: Lesson, seq: int) -> Round:
        """Write what was measured and the next query in one transaction. Items answered meanwhile drop out."""
        with self._lock:
            self._catch_up()
            round_ = self._state.round + 1
            ranked = [
                (i, score) for i, score in zip(lesson.items, lesson.scores, strict=True) if i not in self._state.answers
            ]
            measured = Draft(
                "measured", annotator="model", round=round_, payload={**lesson.metrics, "round": round_, "seq": seq}
            )
            self._write(measured, self._asking(ranked, round_))
            assert self._state.query is not None
            return Round(round_, lesson.metrics["n_labelled"], dict(lesson.metrics), self._state.query)

    def _asking(self, ranked: Ranking, round_: int) -> Draft:
        number = 0 if self._state.query is None else self._state.query.number + 1
        return asking(ranked, query_size=self.query_size, number=number, round_=round_, keys=self._source.keys)


def _name_of(heuristic: str | AbstractHeuristic) -> str | None:
    """The name to find a heuristic by again; `None` for one with options of its own."""
    if isinstance(heuristic, str):
        return heuristic.lower()
    return next((name for name, kind in HEURISTICS.items() if type(heuristic) is kind), None)

"""The labelling session: one object that walks the circle of asking, answering, learning and asking again."""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

from baal_widgets.active.dataset import ActiveLearningDataset
from baal_widgets.active.heuristics import HEURISTICS, AbstractHeuristic, get_heuristic
from baal_widgets.checks import (
    check_about,
    check_class,
    check_class_name,
    check_classes,
    check_item,
    check_share,
    check_text,
    positive,
)
from baal_widgets.consensus import Disagreement, disagreements
from baal_widgets.consistency import consistency
from baal_widgets.exchange import ImportPlan, Labelled, Whole, plan_import, read_labels, write_labels
from baal_widgets.insight import Dispute, Explanation, Insight
from baal_widgets.jobs import Job
from baal_widgets.journal import Answer, Draft, Event, Journal, JournalMovedError, Query, State, fold, keep, resume
from baal_widgets.learning import Learner, Lesson
from baal_widgets.modelwrapper import ModelWrapper
from baal_widgets.pace import per_minute
from baal_widgets.queries import RESERVE, Ranking, asking, chosen_repeats, continued_ranking
from baal_widgets.sources import open_source
from baal_widgets.training import Training
from baal_widgets.twin import RandomTwin
from baal_widgets.vocabulary import Vocabulary
from baal_widgets.words import Words, last_words, settlement

LONGEST_NOTE = 10_000
LONGEST_ID = 80
MOST_REPEATS = 0.5
OPENING = ("heuristic", "query_size", "seed", "repeats", "budget", "multi_label")
"""The settings, besides the classes, that `open` takes from the journal."""


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

    `repeats` is the share of a query, at most a half, that comes once more on top of it: items this annotator has
    labelled before, to tell how consistent they are. `budget` is how many labels are wanted in all. With
    `multi_label` an item has any number of classes: labels are lists of them.

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
        repeats: float = 0.0,
        budget: int | None = None,
        multi_label: bool = False,
    ) -> None:
        names = check_classes(classes)
        self.multi_label = bool(multi_label)
        self._state = State({"multi_label": self.multi_label}, list(names))
        self.repeats = check_share("repeats", repeats, MOST_REPEATS)
        self.budget = None if budget is None else positive("budget", budget)
        self.query_size = positive("query_size", query_size)
        self.annotator = annotator
        self.seed = seed
        self._heuristic_name = _name_of(heuristic)
        # of several labels at once each is a question of its own: an item's score is their mean
        whole: dict[str, Any] = {"reduction": "mean"} if self.multi_label else {}
        made = get_heuristic(heuristic, seed=seed, **whole) if isinstance(heuristic, str) else heuristic
        self.heuristic = made.sized(self.query_size)
        self._source = open_source(dataset, multi_label=self.multi_label)
        learner = partial(
            Learner,
            self._source,
            model,
            test_set=test_set,
            heuristic=self.heuristic,
            iterations=positive("iterations", iterations),
            training=training or Training(),
            device=device,
            seed=seed,
            targets=targets,
            multi_label=self.multi_label,
            explained=(1 + RESERVE) * self.query_size,
        )
        self._learner = learner(n_classes=len(names))
        self._insight: Insight | None = None
        self._lock = threading.RLock()
        self._job: Job[Round] | None = None
        self._closed = False
        self._moments = 0
        self._index_of = {key: item for item, key in enumerate(self._source.keys)}
        self._journal = Journal(journal)
        try:
            self._state = self._resume()
            begun = len(self._state.settings["classes"])
            if begun < len(names) and model is not None and n_outputs(model) == begun:
                self._learner = learner(n_classes=begun)  # made when there were fewer classes: to be widened
            self._fit_learner()
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
        state = fold(reader.events(kinds=("opened", "class_added", "class_renamed")))
        reader.close()
        settings = state.settings
        if not settings:
            raise ValueError(f"{journal} is an empty journal. To begin it, call LabellingSession(...) with it.")
        told = {name: settings[name] for name in OPENING if settings.get(name)}
        return cls(dataset, model, journal=journal, **{"classes": state.classes, **told, **options})

    # What is now true

    @property
    def store(self) -> str:
        """A name for this journal that no other has, the same each time it is opened."""
        return self._store

    @property
    def journal_path(self) -> Path | None:
        """The file of the journal; `None` where it is in memory or in a database elsewhere."""
        place = self._journal.place
        return None if place is None or "://" in place else Path(place).expanduser()

    @property
    def dataset(self) -> ActiveLearningDataset:
        """The `ActiveLearningDataset`, always in step with the journal."""
        return self._source.dataset

    @property
    def classes(self) -> list[str]:
        """The names of the classes as they are now. One that is added comes last, so an index stays what it was."""
        return list(self._state.classes)

    @contextmanager
    def moment(self) -> Iterator[None]:
        """All that is read within is of one moment, and the journal is looked at once. Others wait: be brief."""
        with self._lock:
            self._catch_up()
            self._moments += 1
            try:
                yield
            finally:
                self._moments -= 1

    @property
    def labels(self) -> dict[int, Any]:
        """`{item: class name}`, the current truth; with `multi_label` a tuple of names, in the order of the classes."""
        with self._lock:
            self._catch_up()
            labels = self._state.labels
            words = self._words()
            return {item: words.told(value) for item, value in labels.items()} if self.multi_label else labels

    def names_in(self, value: str) -> tuple[str, ...]:
        """The class names that the `value` of an `Answer` stands for; with `multi_label` any number of them."""
        return self._state.names_in(value)

    @property
    def skipped(self) -> set[int]:
        """The items set aside by `skip`, for whatever reason."""
        with self._lock:
            return self._state.skipped

    @property
    def unsure(self) -> set[int]:
        """Those of the items set aside of which somebody was not sure."""
        with self._lock:
            return self._state.unsure

    @property
    def flagged(self) -> set[int]:
        """The items that somebody has put a flag on."""
        with self._lock:
            self._catch_up()
            return set(self._state.flagged)

    @property
    def notes(self) -> dict[int, str]:
        """What somebody has written down about an item."""
        with self._lock:
            self._catch_up()
            return dict(self._state.notes)

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
        """Counts: `n_items`, `n_labelled`, `n_skipped` (`n_unsure` of them unsure), `n_pool`, `n_flagged`, `per_class`,
        `round`, and `model_behind_by`, the labels given or changed since the model's last lesson began.

        `per_minute` is how fast this annotator answers, `None` until that can be told, and `minutes_left` how long the
        `budget` takes at that pace, `None` without one.
        """
        with self._lock:
            self._catch_up()
            state, n_items = self._state, len(self._source.keys)
            pace = per_minute(state.times.get(self.annotator, ()))
            left = None if self.budget is None else max(0, self.budget - state.n_labelled)
            return {
                "n_items": n_items,
                "n_labelled": state.n_labelled,
                "n_skipped": state.aside.total(),
                "n_unsure": state.aside["unsure"],
                "n_pool": n_items - len(state.answers),
                "n_flagged": len(state.flagged),
                "per_class": {name: state.counts[name] for name in state.classes},
                "round": state.round,
                "model_behind_by": state.behind,
                "budget": self.budget,
                "per_minute": pace,
                "minutes_left": None if left is None or pace is None else left / pace,
            }

    def recent(self, n: int) -> tuple[tuple[int, Answer], ...]:
        """The latest n answers of this annotator that still stand, newest first."""
        with self._lock:
            return tuple(self._state.recent(self.annotator, positive("n", n)))

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

    def answers(self, items: Sequence[int]) -> dict[int, Any]:
        """What is said of these items: a class index (with `multi_label` a list of them), -1 for skipped, -2 for
        unsure. Items without an answer are left out."""
        with self._lock:
            given = {item: self._state.answers[item] for item in items if item in self._state.answers}
            words = self._words()
        return {item: words.indices(answer) for item, answer in given.items()}

    # What the model knows

    def explain(self, item: int) -> Explanation | None:
        """Why the model asks for an item, as of the last lesson of this process; `None` before one, or where it did
        not look at the item."""
        item, insight = check_item(item, len(self._source.keys)), self._insight
        return None if insight is None else insight.explain(item)

    def guess(self, item: int) -> tuple[int, float] | None:
        """The class that the model takes an item for, by its index, with its probability; `None` as in `explain`."""
        item, insight = check_item(item, len(self._source.keys)), self._insight
        return None if insight is None else insight.guess(item)

    @property
    def disputes(self) -> tuple[Dispute, ...]:
        """The labels that the last lesson of this process confidently disputes, most confident first, less those that
        were reviewed, changed or taken back since."""
        with self._lock:
            self._catch_up()
            disputes = () if self._insight is None else self._insight.disputes
            stand = self.answers([dispute.item for dispute in disputes])
            reviewed = self._state.reviewed
            return tuple(d for d in disputes if d.item not in reviewed and stand.get(d.item) == d.label)

    def random_twin(self, oracle: Sequence[Any] | Mapping[int, Any]) -> RandomTwin:
        """The same model, to learn from as many labels of randomly chosen items: what active learning saves.

        `oracle` are the true labels, as in `simulate`.
        """
        with self._lock:
            items = oracle.keys() if isinstance(oracle, Mapping) else range(len(oracle))
            words = self._words()
            truth = {int(item): words.target(words.written(oracle[item])) for item in items}
            return RandomTwin(self._learner, truth, self.seed)

    # Asking

    @property
    def query(self) -> Query:
        """The query that was asked last, answered or not; asks the first one."""
        with self._lock:
            return self._asked() or self.ask()

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
            query = self._asked()
            assert query is not None
            return query

    def _asked(self) -> Query | None:
        """The last query, with the repeats of this annotator alone."""
        query = self._state.query
        others = query is not None and query.repeats and query.annotator != self.annotator
        return replace(query, repeats=(), annotator="") if query is not None and others else query

    def _first_ranking(self) -> Ranking:
        """What a heuristic asks that needs no labels, nothing where it does."""
        candidates = [item for item in range(len(self._source.keys)) if item not in self._state.answers]
        ranked = self._learner.rank_unlabelled(candidates, self._state.labels)
        return [] if ranked is None else list(zip(*ranked, strict=True))

    # Answering

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
        """The answers given to the repeats of the query that was asked last, as in `labels`."""
        with self._lock:
            words = self._words()
            return {item: words.told(value) for item, value in self._state.repeated.items()}

    @property
    def consistency(self) -> dict[str, Any]:
        """How often this annotator said the same of an item when it was last repeated: of `n` repeats `same`, their
        `rate`, its 95 % `interval`, and Cohen's `kappa`. `None` stands for what cannot be told yet."""
        with self._lock:
            self._catch_up()
            return consistency(self._state.again.get(self.annotator, {}).values())

    # Several people

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

    # Beside the answers

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

    def add_class(self, name: str, *, op_id: str | None = None) -> int:
        """Add a class after the others; its index. The model learns of it in the next lesson.

        Raises `ValueError` where there is one of that name, or where the model cannot be given another output.
        """
        name = check_class_name(name)
        with self._lock:
            self._catch_up()
            if not self._is_written(op_id):
                self._check_new(name)
                if self._job is None or self._job.done:  # else the next lesson begins with it
                    self._fit_learner(len(self.classes) + 1)
                self._write(Draft("class_added", value=name, **self._signed(op_id)))
            return self.classes.index(check_class(self.classes, name))

    def rename_class(self, old: str, new: str, *, op_id: str | None = None) -> None:
        """Give a class another name, in every label too, those taken back included."""
        new = check_class_name(new)
        with self._lock:
            self._catch_up()
            if self._is_written(op_id):
                return
            if not isinstance(old, str):
                raise TypeError(f"Expected the name of a class, got {old!r}.")
            check_class(self.classes, old)
            self._check_new(new)
            self._write(Draft("class_renamed", payload={"old": old, "new": new}, **self._signed(op_id)))

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
            targets = self._words().targets(self._state.answers)
            if not targets:
                raise ValueError("There is nothing to learn from yet: label at least one item first.")
            self._fit_learner()
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
        oracle: Sequence[Any] | Mapping[int, Any],
        rounds: int = 5,
        *,
        on_round: Callable[[dict[str, Any]], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Answer every query from the true labels and learn after each, `rounds` times; the history.

        `oracle[item]` is a class name or index, with `multi_label` a list of them. The answers are written as those of
        the annotator `oracle`.
        `on_round` is called with each new row of the history. Ends early when the pool is used up.
        """
        for _ in range(positive("rounds", rounds)):
            with self._lock:
                self._check_idle()
                self.ask()
                open_items = self._state.open_items
                told = {item: self._value(oracle[item]) for item in open_items}
                self._write(*(self._draft("label", i, told[i], None, annotator="oracle") for i in open_items))
            if not open_items:
                break
            self.learn()
            if on_round is not None:
                on_round(self.history[-1])
        return self.history

    # Leaving

    def export(self, path: str | os.PathLike[str], format: str | None = None, **options: Any) -> Path:  # noqa: A002
        """Write the labels in a format, or in the one that the suffix tells; the path.

        `.csv`, `.jsonl`, `.parquet`, `.npz` (`baal`: the state of Baal's dataset), `.coco.json` (`coco`),
        `.label-studio.json` (`label-studio`), or a new folder with the images, as `imagefolder` (the default) or
        `huggingface`. Items set aside are left out. `options` are those of `exchange.write_labels`.
        """
        with self._lock:
            self._catch_up()
            words = self._words()
            rows = [
                Labelled(item, self._source.keys[item], words.told(answer.value), answer.annotator, answer.round)
                for item, answer in sorted(self._state.answers.items())
                if answer.value is not None
            ]
            state = self._source.dataset.random_state.bit_generator.state
            whole = Whole(tuple(self._state.classes), len(self._source.keys), self._source, state)
        return write_labels(rows, path, format, whole=whole, **options)

    def import_labels(
        self,
        path: str | os.PathLike[str],
        *,
        dry_run: bool = False,
        new_classes: bool = False,
        overwrite: bool = False,
        format: str | None = None,  # noqa: A002
    ) -> ImportPlan:
        """Take over the labels of a file or folder, in any format that `export` writes; what was done, to be printed.

        Items are found by their key (the path of an image), by index alone where the dataset has no keys of its own.
        Only items without an answer are labelled: `overwrite` also replaces labels that differ and labels what was set
        aside. Rows of unknown items or classes, and rows that contradict each other, are left out and reported;
        `new_classes` adds the classes. With `dry_run` nothing is written. The same file again changes nothing, and one
        `undo` takes all of its labels back (classes stay). The labels are this annotator's; who gave them first is in
        the journal. Raises `ValueError` and writes nothing where the file cannot be read.
        """
        rows = read_labels(path, format)
        with self._lock:
            while True:
                self._catch_up()
                plan = plan_import(
                    rows,
                    Path(path).name or os.fspath(path),
                    index_of=self._index_of,
                    by_number=self._source.files is None,
                    classes=self._state.classes,
                    multi_label=self.multi_label,
                    standing=self._standing,
                    new_classes=new_classes,
                    overwrite=overwrite,
                )
                if dry_run or not plan.to_write:
                    return plan
                try:
                    self._write_import(plan)
                except JournalMovedError:  # somebody has answered meanwhile: what is new may be so no more
                    continue
                return replace(plan, written=len(plan.to_write))

    def close(self) -> None:
        """Stop learning, if it is going on, and let go of the journal. Nothing needs saving."""
        job = self._job
        if job is not None and not job.done:
            job.cancel()
            job.exception()
        with self._lock:
            if not self._closed:
                keep(self._journal, self._state, self._index_of)
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
        if not self._journal.events(limit=1):
            with suppress(JournalMovedError):  # another process has just begun it
                self._journal.append(self._opening(), *self._given(), after=0)
        self._store = self._journal.events(limit=1)[0].op_id
        given, state = self.classes, resume(self._journal, self._index_of)
        self._check_settings(state, given)
        if state.unknown:
            names = ", ".join(sorted(state.unknown)[:3])
            warnings.warn(
                f"{len(state.unknown)} items of the journal are not in the dataset (such as {names}). Their labels "
                "stay in the journal and count again once the files are back.",
                stacklevel=4,
            )
        self._state = state
        steps: dict[int, dict[int, Any]] = {}
        for item, target in self._words().targets(state.answers).items():
            steps.setdefault(state.answers[item].round + 1, {})[item] = target
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
            "repeats": self.repeats,
            "budget": self.budget,
            "multi_label": self.multi_label,
        }
        return Draft("opened", annotator=self.annotator, payload=settings)

    def _given(self) -> list[Draft]:
        """The labels that the dataset came with, as facts of the annotator `dataset`."""
        return [
            self._draft("import", item, self._value(target), None, annotator="dataset", round_=0)
            for item, target in self._source.given.items()
        ]

    def _check_settings(self, state: State, given: Sequence[str]) -> None:
        settings, begun = state.settings, list(state.settings.get("classes", ()))
        if given not in (begun, state.classes):
            now = "" if begun == state.classes else f", which are {state.classes} now"
            raise ValueError(
                f"The journal {self._journal.place} was begun with the classes {begun}{now}, you gave "
                f"{list(given)}. Give another journal=, or resume it with LabellingSession.open(...)."
            )
        if bool(settings.get("multi_label")) != self.multi_label:
            raise ValueError(
                f"The journal {self._journal.place} was begun with multi_label={not self.multi_label}, you gave "
                f"{self.multi_label}. Give another journal=, or resume it with LabellingSession.open(...)."
            )
        by_number = self._source.files is None
        if by_number and settings["n_items"] != len(self._source.keys):
            raise ValueError(
                f"The journal {self._journal.place} was begun on {settings['n_items']} items, the dataset has "
                f"{len(self._source.keys)}. Give another journal= for another dataset."
            )

    def _answer(self, kind: str, item: int, label: Any, op_id: str | None, payload: Mapping[str, Any]) -> None:
        item = check_item(item, len(self._source.keys))
        with self._lock:
            value = None if kind == "skip" else self._value(label)
            self._write(self._draft(kind, item, value, op_id, payload=payload))

    def _standing(self, item: int) -> tuple[bool, Any]:
        """Whether an item has an answer, and its label, `None` where it was set aside."""
        answer = self._state.answers.get(item)
        value = None if answer is None else answer.value
        return answer is not None, None if value is None else self._words().told(value)

    def _write_import(self, plan: ImportPlan) -> None:
        """Write the classes and labels of an import, all in one, if nothing was written since it was planned."""
        if plan.added_classes and (self._job is None or self._job.done):
            self._fit_learner(len(self.classes) + len(plan.added_classes))
        classes = [Draft("class_added", value=name, **self._signed(None)) for name in plan.added_classes]
        words = Vocabulary([*self._state.classes, *plan.added_classes], self.multi_label)
        told = {"via": "import", "source": plan.source, "group": uuid.uuid4().hex}
        labels = [
            self._draft("label", one.item, words.written(one.new), None, payload={**told, "annotator": one.annotator})
            for one in plan.to_write
        ]
        self._write(*classes, *labels, after=self._state.seq)

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

    def _is_written(self, op_id: str | None) -> bool:
        return op_id is not None and not self._closed and self._journal.holds(op_id)

    def _signed(self, op_id: str | None) -> dict[str, Any]:
        """What every fact of a person carries."""
        return {"annotator": self.annotator, "round": self._state.round, "op_id": op_id or uuid.uuid4().hex}

    def _check_new(self, name: str) -> None:
        if name in self._state.classes:
            raise ValueError(f"There is a class {name!r} already. The classes are {', '.join(self._state.classes)}.")

    def _fit_learner(self, n_classes: int | None = None) -> None:
        """Give the model an output for each class, where some were added."""
        wanted = len(self._state.classes) if n_classes is None else n_classes
        if self._learner.n_classes < wanted:
            self._learner.set_classes(wanted)

    def _words(self) -> Vocabulary:
        return Vocabulary(self._state.classes, self.multi_label)

    def _value(self, label: Any) -> str:
        """A label as the journal writes it, once it is known to be one."""
        try:
            return self._words().written(label)
        except ValueError:
            if not self._catch_up():  # else another process may have added the class
                raise
            return self._words().written(label)

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

    def _write(self, *drafts: Draft, after: int | None = None) -> list[Event]:
        """Append to the journal, then fold what it holds that is new, whoever wrote it; the new facts."""
        with self._lock:
            self._check_open()
            self._journal.append(*drafts, after=after)
            self._moments, held = 0, self._moments
            try:
                return self._catch_up()
            finally:
                self._moments = held

    def _catch_up(self) -> list[Event]:
        """Fold the facts that this or another process has written since."""
        if self._closed or self._moments:
            return []
        fresh, n_classes = self._journal.events(after=self._state.seq), len(self._state.classes)
        changed = {self._state.apply(event, self._index_of) for event in fresh} - {None}
        answers = {item: self._state.answers.get(item) for item in changed if item is not None}
        if self.multi_label and len(self._state.classes) > n_classes:  # their rows have become longer
            answers |= self._state.answers
        if answers:
            self._source.put({**dict.fromkeys(answers), **self._words().targets(answers)}, self._state.round + 1)
        return fresh

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("This session is closed. LabellingSession.open(...) goes on where it ended.")

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
            self._insight = getattr(lesson, "insight", None)
            query = self._asked()
            assert query is not None
            return Round(round_, lesson.metrics["n_labelled"], dict(lesson.metrics), query)

    def _asking(self, ranked: Ranking, round_: int) -> Draft:
        number = 0 if self._state.query is None else self._state.query.number + 1
        again = chosen_repeats(
            self._state,
            self.annotator,
            round(self.repeats * self.query_size),
            np.random.default_rng([self.seed, number]),
        )
        return asking(
            ranked,
            query_size=self.query_size,
            number=number,
            round_=round_,
            keys=self._source.keys,
            repeats=again,
            annotator=self.annotator,
        )


def n_outputs(model: nn.Module | ModelWrapper) -> int | None:
    """How many outputs the last linear or convolutional layer of a model has; `None` without one."""
    layers = (model.model if isinstance(model, ModelWrapper) else model).modules()
    told = [getattr(layer, "out_features", getattr(layer, "out_channels", None)) for layer in layers]
    return next((n for n in reversed(told) if isinstance(n, int)), None)


def _name_of(heuristic: str | AbstractHeuristic) -> str | None:
    """The name to find a heuristic by again; `None` for one with options of its own."""
    if isinstance(heuristic, str):
        return heuristic.lower()
    return next((name for name, kind in HEURISTICS.items() if type(heuristic) is kind), None)


def _told(group: str | None, about: Mapping[str, Any] | None) -> dict[str, Any]:
    """What goes along with an answer, checked; only what there is."""
    told: dict[str, Any] = {}
    if group is not None:
        told["group"] = check_text("a group", group, LONGEST_ID, 1)
    if about := check_about(about):
        told["about"] = about
    return told


def _rated(said: Mapping[str, Answer], words: Vocabulary) -> dict[str, Any]:
    """The labels among what people said of an item, by name."""
    return {who: words.told(answer.value) for who, answer in sorted(said.items()) if answer.value is not None}


def _ids(op_id: str | None, n: int) -> list[str | None]:
    """An id for each of the facts that one operation writes: its own for the first."""
    if op_id is None:
        return [None] * n
    ids = [op_id, *(f"{op_id}.{place}" for place in range(1, n))]
    return [one if len(one) <= LONGEST_ID else hashlib.sha256(one.encode()).hexdigest() for one in ids]
